"""The feature cache on disk: shared by processes, killed, damaged, full. A stand-in takes the network's place."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from cnnexp.data import array_store
from cnnexp.errors import UserError
from cnnexp.training.feature_store import FeatureStore

COUNT = 10
ENTRY_BYTES = 128 + COUNT * 3 * 4 + len('{"bytes": [248]}')  # NumPy's header, the values, meta.json


class Doubler:
    """Stands in for a network: image i is (i, i, i), its features are (2 i, 2 i, 2 i), and 3 i where two are asked."""

    def __init__(self, outputs: int = 1, factor: float = 1.0) -> None:
        self.outputs = [np.empty((1, 3)), np.empty((1, 2, 1))][:outputs]
        self.factor = factor
        self.asked: list[int] = []

    def take(self, indices: np.ndarray) -> np.ndarray:
        self.asked += indices.tolist()
        return np.repeat(indices[:, np.newaxis], 3, axis=1).astype(np.uint8)

    def predict_on_batch(self, images: np.ndarray) -> Any:
        with np.errstate(invalid="ignore"):  # 0 * infinity
            x = images * np.float32(self.factor)
        results = [2 * x, 3 * x[:, :2, np.newaxis]][: len(self.outputs)]
        return results if len(results) > 1 else results[0]


def compute(store: FeatureStore, key: str = "k", fixed: Doubler | None = None) -> tuple[list[np.ndarray], bool]:
    fixed = fixed or Doubler()
    return store.features(key, fixed, fixed.take, COUNT, batch_size=4)


def doubled() -> np.ndarray:
    return np.repeat(2 * np.arange(COUNT, dtype=np.float32)[:, np.newaxis], 3, axis=1)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------------------- one process


def test_features_are_computed_once_and_mapped(tmp_path: Path) -> None:
    store, fixed = FeatureStore(tmp_path / "new" / "folder"), Doubler()
    (first,), found = compute(store, fixed=fixed)
    assert not found
    (second,), found = compute(store, fixed=fixed)
    assert found
    assert fixed.asked == list(range(COUNT))
    for array in (first, second):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, doubled())


def test_each_output_is_an_array(tmp_path: Path) -> None:
    (first, second), _ = compute(FeatureStore(tmp_path), fixed=Doubler(outputs=2))
    np.testing.assert_array_equal(first, doubled())
    assert second.shape == (COUNT, 2, 1)
    np.testing.assert_array_equal(second[:, 1, 0], 3 * np.arange(COUNT))


def test_numpy_reads_an_entry_without_our_help(tmp_path: Path) -> None:
    compute(FeatureStore(tmp_path))
    np.testing.assert_array_equal(np.load(tmp_path / "k" / "0.npy"), doubled())


def test_has_and_entries(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "cache")
    assert not store.has("k")
    assert store.entries() == []
    compute(store, "k")
    compute(store, "l")
    os.utime(store.folder / "k", (2000, 2000))
    os.utime(store.folder / "l", (1000, 1000))
    assert store.has("k")
    assert store.entries() == [("l", ENTRY_BYTES, 1000.0), ("k", ENTRY_BYTES, 2000.0)]


def test_float16_takes_half_the_bytes(tmp_path: Path) -> None:
    (array,), _ = compute(FeatureStore(tmp_path, "float16"), fixed=Doubler(factor=0.1))
    assert array.dtype == np.float16
    assert (tmp_path / "k" / "0.npy").stat().st_size == 128 + COUNT * 3 * 2
    np.testing.assert_allclose(array, 0.1 * doubled(), rtol=2**-11)


@pytest.mark.parametrize(("factor", "shown"), [(65504 / 18 + 1, "65522"), (-1e6, "6e\\+06"), (np.inf, "inf")])
def test_float16_refuses_what_it_cannot_hold(tmp_path: Path, factor: float, shown: str) -> None:
    store = FeatureStore(tmp_path, "float16")
    with pytest.raises(UserError, match=rf"^trainer.feature_dtype=float16: .*{shown}.*trainer.feature_dtype=float32$"):
        compute(store, fixed=Doubler(factor=factor))
    assert names(tmp_path) == [".lock", "k.lock"]
    (array,), _ = compute(store, fixed=Doubler(factor=65504 / 18))  # the largest that it can
    assert array.max() == 65504


def test_an_interrupted_pass_leaves_no_entry(tmp_path: Path) -> None:
    fixed = Doubler()

    def interrupted(indices: np.ndarray) -> np.ndarray:
        if indices[0] >= 4:
            raise KeyboardInterrupt
        return fixed.take(indices)

    with pytest.raises(KeyboardInterrupt):
        FeatureStore(tmp_path).features("k", fixed, interrupted, COUNT, 4)
    assert names(tmp_path) == [".lock", "k.lock"]


def test_an_image_that_cannot_be_read_is_not_the_fault_of_the_cache(tmp_path: Path) -> None:
    def missing(indices: np.ndarray) -> np.ndarray:
        raise FileNotFoundError("photo.jpg")

    with pytest.raises(FileNotFoundError, match=r"photo\.jpg"):
        FeatureStore(tmp_path).features("k", Doubler(), missing, COUNT, 4)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written \(.*\).*paths\.cache=FOLDER.*feature_cache=false$"):
        compute(FeatureStore(tmp_path / "file" / "cache"))


# ------------------------------------------------------------------------------------------------------ damage


def cut_short(entry: Path) -> None:
    with (entry / "0.npy").open("r+b") as file:
        file.truncate(130)


def spoil_header(entry: Path) -> None:
    with (entry / "0.npy").open("r+b") as file:
        file.write(b"garbage")


def spoil_layout(entry: Path) -> None:
    content = (entry / "0.npy").read_bytes()
    (entry / "0.npy").write_bytes(content.replace(b"(10, 3)", b"(10, 3("))


def other_shape(entry: Path) -> None:
    np.save(entry / "0.npy", np.zeros((3, COUNT), np.float32))  # as many bytes


DAMAGES = {
    "truncated": cut_short,
    "missing": lambda entry: (entry / "0.npy").unlink(),
    "no meta": lambda entry: (entry / "meta.json").unlink(),
    "garbage in meta": lambda entry: (entry / "meta.json").write_bytes(b"\xff\x00{"),
    "another meta": lambda entry: (entry / "meta.json").write_text("[1]"),
    "garbage in header": spoil_header,
    "garbage in layout": spoil_layout,
    "another shape": other_shape,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_is_computed_again(tmp_path: Path, damage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    store = FeatureStore(tmp_path)
    compute(store)
    damage(tmp_path / "k")
    (array,), found = compute(store)
    assert not found
    np.testing.assert_array_equal(array, doubled())
    assert capsys.readouterr().err.endswith("k: this entry of the feature cache is damaged and computed again\n")
    assert compute(store)[1]


# --------------------------------------------------------------------------------------------------- the limit


def store_with(folder: Path, keys: str, limit_bytes: int | None) -> FeatureStore:
    """A store with these entries, the first used longest ago."""
    store = FeatureStore(folder, limit_bytes=limit_bytes)
    for number, key in enumerate(keys):
        compute(store, key)
        os.utime(folder / key, (number, number))
    return store


def test_without_a_limit_nothing_goes(tmp_path: Path) -> None:
    assert [entry.key for entry in store_with(tmp_path, "abcde", None).entries()] == list("abcde")


def test_the_least_recently_used_goes(tmp_path: Path) -> None:
    limit = 3 * ENTRY_BYTES
    store = store_with(tmp_path, "abc", limit)
    assert compute(store, "a")[1]  # used: now b is the oldest
    compute(store, "d")
    assert names(tmp_path) == [".lock", "a", "a.lock", "c", "c.lock", "d", "d.lock"]
    assert sum(entry.size_bytes for entry in store.entries()) <= limit


def test_as_many_go_as_needed_and_no_more(tmp_path: Path) -> None:
    store = store_with(tmp_path, "abcd", 4 * ENTRY_BYTES)
    fixed = Doubler(outputs=2)  # needs the room of two
    store.features("e", fixed, fixed.take, COUNT, 4)
    assert [entry.key for entry in store.entries()] == ["c", "d", "e"]


def test_what_is_mapped_outlives_its_entry(tmp_path: Path) -> None:
    store = store_with(tmp_path, "", ENTRY_BYTES)
    (array,), _ = compute(store, "a")
    compute(store, "b")
    assert not store.has("a")
    np.testing.assert_array_equal(array, doubled())


def test_an_entry_larger_than_the_limit_is_one_line(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, limit_bytes=2 * 2**30)
    fixed = SimpleNamespace(outputs=[np.empty((1, 9, 9, 512))])
    said = r"^trainer\.feature_cache_limit=2: photos take 3\.09 GiB; set trainer\.feature_cache_limit=3\.09 or more"
    with pytest.raises(UserError, match=said):  # 20000 x 9 x 9 x 512 x 4 bytes are 3.0899 GiB
        store.features("k", fixed, lambda indices: indices, 20000, 64, "photos")  # type: ignore[arg-type]
    assert names(tmp_path) == ["k.lock"]


def test_an_entry_in_use_stays_until_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(array_store, "PATIENCE_S", 0.1)
    store = store_with(tmp_path, "a", ENTRY_BYTES)
    waiting = threading.Thread(target=compute, args=(store, "b"))
    with FileLock(tmp_path / "a.lock"):  # as a process does that is about to open it
        waiting.start()
        waiting.join(1.0)
        assert waiting.is_alive()
        assert store.has("a")
    waiting.join(10.0)
    assert [entry.key for entry in store.entries()] == ["b"]
    assert "waiting for room for features of 10 images" in capsys.readouterr().out


def test_what_dead_processes_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "dead.tmp").mkdir()
    (tmp_path / "dead.tmp" / "0.npy").write_bytes(b"half")
    (tmp_path / "busy.tmp").mkdir()
    (tmp_path / "stale.lock").touch()
    with FileLock(tmp_path / "busy.lock"):
        compute(FeatureStore(tmp_path))
        assert names(tmp_path) == [".lock", "busy.lock", "busy.tmp", "k", "k.lock"]


# ------------------------------------------------------------------------------------------- several processes

PROGRAM = """
    import os, signal, sys, time
    from pathlib import Path
    import numpy as np
    from cnnexp.data import array_store
    from cnnexp.errors import UserError
    from cnnexp.training.feature_store import FeatureStore

    class Fixed:
        outputs = [np.empty((1, 3))]
        def predict_on_batch(self, x):
            with open("calls", "a") as file:
                file.write("x")
            return x * 2.0

    def take(indices):
        return np.repeat(indices[:, np.newaxis], 3, axis=1)

    def compute(store, key="k"):
        return store.features(key, Fixed(), take, 10, 4)

"""


def program(folder: Path, text: str, *prefix: str) -> subprocess.Popen[str]:
    """Starts a small program in `folder`, where `compute` counts its forward passes in the file `calls`."""
    text = textwrap.dedent(PROGRAM) + textwrap.dedent(text)
    command = [*prefix, sys.executable, "-c", text]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    out, err = program(tmp_path, "print({'keras', 'tensorflow', 'cv2'} & set(sys.modules))").communicate(timeout=60)
    assert (out, err) == ("set()\n", "")


def test_two_processes_compute_an_entry_once(tmp_path: Path) -> None:
    text = """
        array_store.PATIENCE_S = 0.2
        def slow(x, quick=Fixed.predict_on_batch):
            time.sleep(0.4)
            return quick(None, x)
        Fixed.predict_on_batch = staticmethod(slow)
        (array,), found = compute(FeatureStore(Path("cache")))
        assert (array[:, 0] == np.arange(10) * 2).all()
        print(found)
    """
    processes = [program(tmp_path, text) for _ in range(2)]
    printed = sorted(process.communicate(timeout=60) for process in processes)
    waited = "waiting for features of 10 images: another process computes them\nTrue\n"
    assert printed == [("False\n", ""), (waited, "")]
    assert (tmp_path / "calls").read_text() == "xxx"  # 10 images, 4 at a time, once


KILLED_IN = {
    "making the files": "os.posix_fallocate",
    "the second batch": "Fixed.predict_on_batch",
    "writing through": "os.fsync",
    "the last step": "Path.rename",
}


@pytest.mark.parametrize("function", KILLED_IN.values(), ids=KILLED_IN.keys())
def test_killed_while_writing_leaves_no_wrong_entry(tmp_path: Path, function: str) -> None:
    killed = program(
        tmp_path,
        f"""
        calls = 0
        def dies(*arguments, real={function}):
            global calls
            calls += 1
            if calls == {2 if "predict" in function else 1}:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)
        {function} = dies
        compute(FeatureStore(Path("cache")))
        """,
    )
    assert killed.wait(60) == -signal.SIGKILL
    store = FeatureStore(tmp_path / "cache")
    assert (store.folder / "k.tmp").is_dir()
    assert not store.has("k")
    (array,), found = compute(store)
    assert not found
    np.testing.assert_array_equal(array, doubled())
    assert names(store.folder) == [".lock", "k", "k.lock"]


FULL = """
    {first}
    try:
        compute(FeatureStore(Path("cache")))
    except UserError as error:
        print(error)
        print(sorted(os.listdir("cache")))
"""
LIMIT_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))"
LARGE = "Fixed.outputs = [np.empty((1, 3000))]; take = lambda indices: np.zeros((len(indices), 3000))"


def assert_one_line(process: subprocess.Popen[str], reason: str) -> None:
    out, err = process.communicate(timeout=60)
    line, left, *rest = out.splitlines()
    remedy = "make room, lower trainer.feature_cache_limit, set paths.cache=FOLDER, or train without it: "
    assert line == f"cache: the feature cache cannot be written ({reason}); {remedy}trainer.feature_cache=false"
    assert (left, rest, err) == ("['.lock', 'k.lock']", [], "")


def test_a_file_that_may_not_grow_is_one_line(tmp_path: Path) -> None:
    assert_one_line(program(tmp_path, FULL.format(first=LIMIT_FILES)), "File too large")


@pytest.mark.parametrize("first", ["", "del os.posix_fallocate; "], ids=["reserving", "writing"])
def test_a_full_disk_is_one_line(tmp_path: Path, first: str) -> None:
    """On a file system of 64 KiB, mounted for this process alone; the features take 120,000 bytes."""
    (tmp_path / "cache").mkdir()
    mounted = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mounted.append('mount -t tmpfs -o size=64k none cache && exec "$@"')
    try:
        possible = subprocess.run([*mounted, "sh", "true"], cwd=tmp_path, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if possible.returncode:
        pytest.skip(f"a file system cannot be mounted: {possible.stderr.strip()}")
    process = program(tmp_path, FULL.format(first=first + LARGE), *mounted, "sh")
    assert_one_line(process, "No space left on device")


def test_no_reader_meets_a_half_removed_entry(tmp_path: Path) -> None:
    """Three processes use four keys where two fit: entries come and go, and every array read is right."""
    limit = 2 * ENTRY_BYTES
    text = """
        order = np.random.default_rng({seed})
        store = FeatureStore(Path("cache"), limit_bytes={limit})
        for number in range(40):
            (array,), found = compute(store, "abcd"[order.integers(4)])
            assert (array == np.arange(10)[:, np.newaxis] * 2).all()
    """
    processes = [program(tmp_path, text.format(seed=seed, limit=limit)) for seed in range(3)]
    assert [process.communicate(timeout=120) for process in processes] == [("", "")] * 3
    assert [process.returncode for process in processes] == [0] * 3
    store = FeatureStore(tmp_path / "cache")
    assert 1 <= len(store.entries()) <= 2
    assert all(store.has(entry.key) for entry in store.entries())
