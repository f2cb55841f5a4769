"""Decoded images: the same whatever keeps them and however many threads decode, whole or not at all on disk."""

import multiprocessing
import os
import signal
import struct
import time
import zlib
from functools import partial
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import numpy as np
import pytest

from cnnexp.data import array_store, loading
from cnnexp.data import images as images_module
from cnnexp.data.augment import Strong
from cnnexp.data.dataset import Split
from cnnexp.data.images import ImageError, read_square, resize, to_channels, warnings_caught
from cnnexp.data.loading import CacheLimits, ImageLoader
from cnnexp.data.opencv import cv2
from cnnexp.data.parallel import in_order, in_parts
from cnnexp.data.pipeline import TrainBatches
from cnnexp.errors import UserError

COUNT, SIZE = 7, 8
BYTES = COUNT * SIZE * SIZE * 3


def split_of(paths: tuple[str, ...] | None = None, arrays: np.ndarray | None = None, digest: str = "digest") -> Split:
    count = len(paths) if paths is not None else len(arrays if arrays is not None else ())
    return Split("train", np.arange(count) % 2, paths, arrays, tuple(map(str, range(count))), digest)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """Seven noisy pictures of 12 x 9 pixels."""
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (9, 12, 3), np.uint8))
    return tuple(str(tmp_path / f"{number}.png") for number in range(COUNT))


def test_what_the_decoders_warn_of_stays_off_the_console(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A JPEG with bytes too many, as there are in Microsoft's archive, and a PNG with a bad colour profile."""
    picture = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    jpeg, png = (cv2.imencode(ending, picture)[1].tobytes() for ending in (".jpg", ".png"))
    profile = b"iCCPbad\0\0" + zlib.compress(b"profile")
    chunk = struct.pack(">I", len(profile) - 4) + profile + struct.pack(">I", zlib.crc32(profile))
    written = {"surplus.jpg": jpeg[:-2] + bytes(9) + jpeg[-2:], "profile.png": png[:33] + chunk + png[33:]}
    for name, data in written.items():
        (tmp_path / name).write_bytes(data)
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None
    assert "extraneous bytes" in (printed := capfd.readouterr().err) and "libpng warning: iCCP" in printed
    images = ImageLoader(split_of(tuple(str(tmp_path / name) for name in written)), SIZE, 3, threads=2)
    assert images.take(np.arange(2)).shape == (2, SIZE, SIZE, 3)
    assert capfd.readouterr().err == ""


def test_what_is_no_warning_of_a_decoder_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings_caught() as printed:
        os.write(2, b"one\nPremature end of JPEG file\ntwo \xff")
    assert printed() == "Premature end of JPEG file\n"
    assert capfd.readouterr().err == "one\ntwo \N{REPLACEMENT CHARACTER}"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were decoded."""
    found: list[str] = []
    decode_image = images_module.decode_image

    def counted(path: str, *more: Any, **options: Any) -> np.ndarray:
        found.append(path)
        return decode_image(path, *more, **options)

    monkeypatch.setattr(images_module, "decode_image", counted)
    return found


def rooms(folder: Path) -> dict[str, CacheLimits]:
    """In memory, in a file, and nowhere."""
    return {
        "memory": CacheLimits(BYTES),
        "file": CacheLimits(BYTES - 1, folder, BYTES),
        "none": CacheLimits(BYTES - 1, folder, BYTES - 1),
        "no folder": CacheLimits(0),
    }


# ------------------------------------------------------------------------------------------------- keeping


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("threads", [1, 3])
def test_images_from_files(files: tuple[str, ...], tmp_path: Path, channels: int, threads: int) -> None:
    indices = np.array([5, 0, 0, 6])
    expected = np.stack([read_square(files[index], SIZE, channels) for index in indices])
    for name, room in rooms(tmp_path / "cache").items():
        images = ImageLoader(split_of(files), SIZE, channels, threads, room)
        found = images.take(indices)
        assert len(images) == COUNT and found.dtype == np.uint8, name
        assert found.shape == (4, SIZE, SIZE, channels) and (found == expected).all(), name


@pytest.mark.parametrize(("given", "channels"), [(1, 3), (3, 1), (1, 1)])
def test_images_from_arrays(tmp_path: Path, given: int, channels: int) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, given), np.uint8)
    expected = [to_channels(resize(array, 12), channels).tolist() for array in arrays[[3, 1]]]
    for room in (CacheLimits(), CacheLimits(0), CacheLimits(0, tmp_path / "cache", 2**20)):
        images = ImageLoader(split_of(arrays=arrays), 12, channels, 2, room)
        assert images.take(np.array([3, 1])).tolist() == expected


@pytest.mark.parametrize(("where", "count"), [("memory", 7), ("file", 7), ("none", 6), ("no folder", 6)])
def test_images_are_decoded_once_where_there_is_room(
    files: tuple[str, ...], tmp_path: Path, reads: list[str], where: str, count: int
) -> None:
    images = ImageLoader(split_of(files), SIZE, 3, 1, rooms(tmp_path / "cache")[where])
    assert reads == []  # nothing before the first use
    for _ in range(3):
        images.take(np.array([4, 2]))
    assert len(reads) == count
    assert [file.stat().st_size for file in (tmp_path / "cache").glob("*.images")] == [BYTES] * (where == "file")


@pytest.mark.parametrize(("where", "counts"), [("memory", [2, 3, 10, 10]), ("file", [2, 3, 10, 10])])
def test_a_few_images_are_decoded_alone_until_they_are_half_of_all(
    files: tuple[str, ...], tmp_path: Path, reads: list[str], where: str, counts: list[int]
) -> None:
    images = ImageLoader(split_of(files), SIZE, 3, 1, rooms(tmp_path / "cache")[where])
    for wanted, count in zip(([4, 2], [5], [6], [0, 1, 2]), counts, strict=True):  # of 7; 3 are less than half
        found = images.take_few(np.array(wanted))
        assert len(reads) == count
        assert (found == np.stack([read_square(files[index], SIZE, 3) for index in wanted])).all()
        del reads[count:]  # what was expected


@pytest.mark.parametrize("where", ["memory", "file", "none", "no folder"])
def test_load_finds_a_bad_file(files: tuple[str, ...], tmp_path: Path, where: str) -> None:
    room = rooms(tmp_path / "cache")[where]
    Path(files[4]).write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"4\.png: cannot be read"):
        ImageLoader(split_of(files), SIZE, 3, 2, room).load()
    assert not list((tmp_path / "cache").glob("*.[ip]*s"))  # no file of images, and no unfinished one


def test_the_first_bad_file_is_named(files: tuple[str, ...]) -> None:
    for number in (2, 5):
        Path(files[number]).write_bytes(b"")
    for threads in (1, 2, 5):
        with pytest.raises(ImageError, match=r"2\.png"):
            ImageLoader(split_of(files), SIZE, 3, threads).load()


def test_progress_counts_images(files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def progress(items: object, description: str, total: int) -> object:
        listed = list(items)  # type: ignore[call-overload]
        seen.append((description, total, len(listed)))
        return listed

    monkeypatch.setattr(loading, "progress", progress)
    monkeypatch.setattr(loading, "CHUNK", 3)
    images = ImageLoader(split_of(files), SIZE, 3, 2)
    images.load()
    assert seen == [("reading train images", COUNT, COUNT)]
    assert (images.take(np.arange(COUNT)) == np.stack([read_square(file, SIZE) for file in files])).all()


# --------------------------------------------------------------------------------------------- file of images


def test_another_run_uses_the_file(files: tuple[str, ...], tmp_path: Path, reads: list[str]) -> None:
    room = CacheLimits(0, tmp_path / "cache", 10 * BYTES)
    first = ImageLoader(split_of(files), SIZE, 3, 1, room).take(np.arange(COUNT))
    reads.clear()
    assert (ImageLoader(split_of(files), SIZE, 3, 1, room).take(np.arange(COUNT)) == first).all() and reads == []
    for other in (
        ImageLoader(split_of(files, digest="other"), SIZE, 3, 1, room),
        ImageLoader(split_of(files), SIZE, 1, 1, room),
    ):
        other.take(np.arange(1))
        assert len(reads) == COUNT
        reads.clear()


def test_the_least_recently_used_file_gives_way(files: tuple[str, ...], tmp_path: Path, reads: list[str]) -> None:
    room = CacheLimits(0, tmp_path / "cache", 2 * BYTES)

    def use(digest: str) -> ImageLoader:
        images = ImageLoader(split_of(files, digest=digest), SIZE, 3, 1, room)
        images.load()
        time.sleep(0.02)
        return images

    first = use("a")
    use("b")
    use("a")  # now b is the least recently used
    use("c")
    reads.clear()
    use("a")
    assert reads == []
    use("b")
    assert len(reads) == COUNT
    assert (first.take(np.array([3])) == read_square(files[3], SIZE)).all()  # also if its file was removed


def test_a_file_of_another_size_is_written_anew(
    files: tuple[str, ...], tmp_path: Path, reads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    room = CacheLimits(0, tmp_path / "cache", 10 * BYTES)
    ImageLoader(split_of(files), SIZE, 3, 1, room).load()
    (file,) = (tmp_path / "cache").glob("*.images")
    os.truncate(file, BYTES - 1)
    reads.clear()
    ImageLoader(split_of(files), SIZE, 3, 1, room).load()
    assert len(reads) == COUNT and file.stat().st_size == BYTES
    assert capsys.readouterr().err == f"{file}: this entry of the image cache is damaged and computed again\n"


def test_files_that_others_write_are_within_the_limit(
    files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The limit is filled by a file that another thread is still writing; it goes once it is written."""
    monkeypatch.setattr(array_store, "PATIENCE_S", 0.1)
    room = CacheLimits(0, tmp_path / "cache", BYTES)
    go_on = Event()

    def slow(*arguments: Any) -> np.ndarray:
        assert go_on.wait(10)
        return read_square(*arguments)

    first, second = (ImageLoader(split_of(files, digest=digest), SIZE, 3, 1, room) for digest in "ab")
    monkeypatch.setattr(loading, "read_square", slow)
    threads = [Thread(target=first.load), Thread(target=second.load)]
    threads[0].start()
    while not list((tmp_path / "cache").glob("*.partial")):
        time.sleep(0.005)
    threads[1].start()
    threads[1].join(0.5)
    assert threads[1].is_alive() and len(list((tmp_path / "cache").glob("*.partial"))) == 1
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert (
        "waiting for room for 7 decoded images: other processes fill trainer.image_cache_limit"
        in capsys.readouterr().out
    )
    assert [file.stat().st_size for file in (tmp_path / "cache").glob("*.images")] == [BYTES]
    assert (first.take(np.array([3])) == second.take(np.array([3]))).all()


def _load_slowly(files: tuple[str, ...], room: CacheLimits) -> None:
    loading.CHUNK = 1
    loading.read_square = lambda *arguments: time.sleep(0.05) or read_square(*arguments)  # type: ignore[func-returns-value]
    ImageLoader(split_of(files), SIZE, 3, 1, room).load()


def test_a_kill_while_it_is_written_leaves_no_file_and_two_processes_write_one(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    room = CacheLimits(0, tmp_path / "cache", 10 * BYTES)
    start = multiprocessing.get_context("spawn").Process
    killed = start(target=_load_slowly, args=(files, room))
    killed.start()
    while not list((tmp_path / "cache").glob("*.partial")):
        time.sleep(0.005)
    os.kill(killed.pid or 0, signal.SIGKILL)
    killed.join()
    assert not list((tmp_path / "cache").glob("*.images"))
    both = [start(target=_load_slowly, args=(files, room)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    (file,) = (tmp_path / "cache").glob("*.images")
    assert not list((tmp_path / "cache").glob("*.partial"))
    assert file.read_bytes() == np.stack([read_square(path, SIZE) for path in files]).tobytes()


def test_what_a_killed_process_left_of_other_images_is_removed(files: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "0123.partial").write_bytes(b"0" * 100)
    ImageLoader(split_of(files), SIZE, 3, 1, CacheLimits(0, tmp_path / "cache", 10 * BYTES)).load()
    assert not (tmp_path / "cache" / "0123.partial").exists()


def test_a_full_disk_is_one_line(files: tuple[str, ...]) -> None:
    if not Path("/dev/full").exists() or os.geteuid() != 0:
        pytest.skip("a file system of its own needs root")
    folder = Path("/dev/shm")
    size = 10 * os.statvfs(folder).f_blocks * os.statvfs(folder).f_frsize
    split = split_of(tuple(files[0] for _ in range(size // (512 * 512 * 3) + 1)))
    room = CacheLimits(0, folder / f"cnnexp-{os.getpid()}", 2 * size)
    try:
        with pytest.raises(UserError, match=r"decoded images cannot be kept \(No space left on device\)"):
            ImageLoader(split, 512, 3, 1, room).load()
        assert room.folder is not None and not list(room.folder.glob("*.[ip]*s"))
    finally:
        for file in (room.folder or folder).glob("*.lock"):
            file.unlink()
        (room.folder or folder).rmdir()


# ------------------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("where", ["memory", "file", "none"])
def test_batches_are_the_same_with_any_number_of_threads(files: tuple[str, ...], tmp_path: Path, where: str) -> None:
    transform = Strong(rotation_range=40, zoom_range=0.2, brightness=0.5, saturation=0.5, erasing_probability=0.5)

    def epoch(threads: int) -> np.ndarray:
        images = ImageLoader(split_of(files), SIZE, 3, threads, rooms(tmp_path / "cache")[where])
        batches = TrainBatches(
            images,
            np.arange(COUNT),
            batch_size=5,
            steps_per_epoch=4,
            seed=3,
            augmentation=lambda *batch: transform.augment(*batch, seed=3),
            threads=threads,
        )
        return np.concatenate([np.asarray(x) for x, _ in batches.epochs(1, 3)])

    one = epoch(1)
    for threads in (2, 8):
        assert (epoch(threads) == one).all()


def test_every_item_is_in_one_part_and_errors_come_out() -> None:
    for threads in (1, 2, 3, 8):
        for count in (0, 1, 2, 7, 8, 9):
            seen = np.zeros(count, int)

            def work(part: slice, seen: np.ndarray = seen) -> None:
                seen[part] += 1

            in_parts(threads, count, work)
            assert (seen == 1).all(), (threads, count)

    def fail(part: slice) -> None:
        raise ValueError(part.start)

    with pytest.raises(ValueError, match="0"):
        in_parts(3, 6, fail)


def test_results_come_in_order_however_long_each_takes() -> None:
    def wait_and_return(number: int) -> int:
        time.sleep(0.02 * (number % 3 == 0))
        return number

    for threads in (1, 2, 5):
        assert list(in_order(threads, (partial(wait_and_return, number) for number in range(20)))) == list(range(20))


def test_what_is_asked_for_runs_at_the_same_time_and_not_far_ahead() -> None:
    started: list[int] = []
    together = Barrier(2, timeout=10)  # both threads must come

    def start(number: int) -> int:
        started.append(number)
        if number < 2:
            together.wait()
        return number

    results = in_order(2, (partial(start, number) for number in range(100)))
    assert [next(results), next(results)] == [0, 1]
    results.close()
    assert len(started) < 10  # the others are given up


def test_an_error_comes_at_its_turn() -> None:
    def halves(number: int) -> float:
        return 1 / (number - 3)

    for threads in (1, 2):
        results = in_order(threads, (partial(halves, number) for number in range(9)))
        assert [next(results) for _ in range(3)] == [-1 / 3, -1 / 2, -1]
        with pytest.raises(ZeroDivisionError):
            next(results)
