"""Looking at single files: why they cannot be used, what is unusual about them."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from odd_files import BAD, ODD, PLAIN, jpeg, other_kinds, png_that_says

from cnnexp.data.check.look import inspect_file, look_at
from cnnexp.process import MOST_PIXELS


@pytest.mark.parametrize("name", BAD)
def test_why_a_file_cannot_be_used(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, reason = BAD[name]
    (tmp_path / name).write_bytes(data)
    (found,) = look_at([str(tmp_path / name)], threads=2)
    assert reason in found.problem
    assert found.digest == hashlib.sha256(data).hexdigest()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ODD)
def test_what_is_unusual_but_does_no_harm(name: str, tmp_path: Path) -> None:
    data, note = ODD[name]
    (tmp_path / name).write_bytes(data)
    found = inspect_file(str(tmp_path / name))
    assert found.problem == "" and note in found.notes


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_have_no_notes(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PLAIN[name])
    found = inspect_file(str(tmp_path / name))
    assert (found.problem, found.notes, found.width, found.height) == ("", (), 48, 48)


def test_what_is_no_file(tmp_path: Path) -> None:
    reasons = other_kinds(tmp_path)
    (tmp_path / "folder.jpg").mkdir()
    for name, reason in (reasons | {"folder.jpg": "no regular file"}).items():
        assert reason in inspect_file(str(tmp_path / name)).problem


def test_bytes_too_many_in_a_jpeg_do_no_harm_and_stay_off_the_console(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = jpeg(3)
    at = data.index(b"\xff\xda")
    (tmp_path / "surplus.jpg").write_bytes(data[:at] + b"\0\0\0" + data[at:])
    names = [f"{number}.jpg" for number in range(5)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(jpeg(number))
    looks = list(look_at([str(tmp_path / name) for name in [*names, "surplus.jpg"]], threads=2))
    assert [found.problem for found in looks] == [""] * 6
    assert [found.notes for found in looks[:5]] == [()] * 5
    assert all(note.startswith("surplus: ") for note in looks[5].notes)
    assert capfd.readouterr().err == ""


def test_a_picture_that_says_it_is_absurdly_large_takes_no_memory(tmp_path: Path) -> None:
    side = int(MOST_PIXELS**0.5) + 1
    for number, data in enumerate((png_that_says(side, side), png_that_says(200_000, 200_000))):
        (tmp_path / f"{number}.png").write_bytes(data)
    script = (
        "import resource, sys\n"
        "from cnnexp.data.check.look import inspect_file\n"
        "from cnnexp.data.images import ImageError, read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    assert 'more than' in inspect_file(path).problem\n"
        "    try: read_image(path)\n"
        "    except ImageError as error: assert 'more than' in str(error), error\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    paths = sorted(map(str, tmp_path.glob("*.png")))
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50_000  # kB; decoded: 500,000
