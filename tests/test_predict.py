"""`cnnexp predict`: what it reads, and that it gives what the run recorded, however it is asked."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def root(tracked_run: Path) -> Path:
    """The `paths.root` of one tracked smoke run."""
    return tracked_run / "outputs"


@pytest.fixture(scope="module")
def recorded(root: Path) -> dict[str, dict[str, str]]:
    """The rows of predictions.csv by the path of their picture."""
    (folder,) = (root / "runs").iterdir()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    pictures = next(Path(config["dataset"]["path"]).rglob("test")).parent
    with open(folder / "predictions.csv", newline="") as file:
        return {str(pictures / row["file"]): row for row in csv.DictReader(file)}


def as_json(cnnexp: Run, root: Path, *arguments: str) -> list[dict[str, object]]:
    code, out, err = cnnexp("predict", *arguments, "--json", f"paths.root={root}")
    assert code == 0, err
    rows: list[dict[str, object]] = json.loads(out)
    return rows


def probabilities(rows: list[dict[str, object]]) -> list[float]:
    return [value for row in rows for value in row["probabilities"].values()]  # type: ignore[attr-defined]


def test_json_and_csv_give_what_the_run_recorded(cnnexp: Run, root: Path, recorded: dict[str, dict[str, str]]) -> None:
    rows = as_json(cnnexp, root, "latest", *recorded)
    assert [row["file"] for row in rows] == list(recorded)
    assert [row["predicted"] for row in rows] == [row["predicted"] for row in recorded.values()]
    expected = [float(row[key]) for row in recorded.values() for key in ("p_cat", "p_dog")]
    assert probabilities(rows) == pytest.approx(expected, abs=1e-5)
    code, out, err = cnnexp("predict", "latest", *recorded, "--csv", f"paths.root={root}")
    assert code == 0, err
    table = list(csv.DictReader(out.splitlines()))
    assert [row["file"] for row in table] == list(recorded)
    assert [float(row[key]) for row in table for key in ("p_cat", "p_dog")] == pytest.approx(expected, abs=1e-5)


def test_folders_and_patterns(cnnexp: Run, root: Path, recorded: dict[str, dict[str, str]], tmp_path: Path) -> None:
    files = list(recorded)[:4]
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    for number, file in enumerate(files):
        shutil.copy(file, tmp_path / "in" / ("deeper" if number % 2 else ".") / f"{number}.jpg")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / "deeper" / "clip.mov").write_bytes(b"\0\0\0\x14ftypqt  " + bytes(40))
    (tmp_path / "in" / "@eaDir").mkdir()
    shutil.copy(files[0], tmp_path / "in" / "@eaDir" / "SYNOPHOTO_THUMB_M.jpg")
    code, _, err = cnnexp("predict", "latest", "in", f"paths.root={root}")
    assert code == 0 and len(err.splitlines()) == 1
    assert "in: left aside, being no images that can be read: 1 .mov in in, 1 .txt in in, 1 @eaDir/ in in" in err
    shutil.rmtree(tmp_path / "in" / "@eaDir")
    names = {"in/0.jpg", "in/2.jpg", "in/deeper/1.jpg", "in/deeper/3.jpg"}
    assert {row["file"] for row in as_json(cnnexp, root, "latest", "in")} == names
    assert [row["file"] for row in as_json(cnnexp, root, "latest", "in/*.jpg")] == ["in/0.jpg", "in/2.jpg"]
    assert {row["file"] for row in as_json(cnnexp, root, "latest", "in/**/*.jpg", "in", "in/0.jpg")} == names
    absolute = as_json(cnnexp, root, "latest", f"{tmp_path}/in/deeper/*.jpg")
    assert [row["file"] for row in absolute] == [f"{tmp_path}/in/deeper/{n}.jpg" for n in (1, 3)]
    code, out, err = cnnexp("predict", "latest", "in/*.png", f"paths.root={root}")
    assert (code, out) == (2, "") and err.startswith("cnnexp: in/*.png: no image there")


def test_the_batch_does_not_matter(
    cnnexp: Run, root: Path, recorded: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = probabilities(as_json(cnnexp, root, "latest", *recorded))
    for size in (1, 5):
        monkeypatch.setattr("cnnexp.commands.predict.BATCH", size)
        assert probabilities(as_json(cnnexp, root, "latest", *recorded)) == pytest.approx(together, abs=1e-6)


def test_what_cannot_be_read_is_named_and_skipped(
    cnnexp: Run, root: Path, recorded: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    first, *_, last = recorded
    (tmp_path / "broken.jpg").write_bytes(Path(first).read_bytes()[:100])
    (tmp_path / "empty.png").touch()
    code, out, err = cnnexp("predict", "latest", first, "broken.jpg", "empty.png", last, "--json", f"paths.root={root}")
    assert code == 1
    assert [row["file"] for row in json.loads(out)] == [first, last]
    assert ["broken.jpg" in err, "empty.png" in err, first in err] == [True, True, False]
    code, out, err = cnnexp("predict", "latest", "broken.jpg", "empty.png", f"paths.root={root}")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "cnnexp: cnnexp predict: none of the images could be read"


def test_a_damaged_jpeg_is_skipped(
    cnnexp: Run, root: Path, recorded: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    where = f"paths.root={root}"
    jpeg = Path(next(iter(recorded))).read_bytes()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/good.jpg").write_bytes(jpeg)
    for damaged in (b"nothing", jpeg[: len(jpeg) // 2] + jpeg[-2:]):
        (tmp_path / "pictures/bad.jpg").write_bytes(damaged)
        code, out, err = cnnexp("predict", "latest", "pictures", "--csv", where)
        assert code == 1
        assert out.splitlines()[0] == "file,predicted,p_cat,p_dog"
        assert len(out.splitlines()) == 2
        assert "bad.jpg" in err
    (line,) = err.splitlines()
    assert "skipped: pictures/bad.jpg" in line and "damaged or cut short (premature end of data segment)" in line
    assert cnnexp("predict", "latest", "pictures/bad.jpg", where)[0] == 2
    assert cnnexp("predict", "latest", "nowhere/*.jpg", where)[0] == 2
    assert cnnexp("predict", "ffff", "pictures", where)[0] == 2


def test_a_registered_model(cnnexp: Run, root: Path, recorded: dict[str, dict[str, str]], tmp_path: Path) -> None:
    from cnnexp.config.composition import load_config
    from cnnexp.runs.tracker import open_tracker, register_model

    shutil.copyfile(root / "mlflow.db", tmp_path / "mlflow.db")  # the model stays where it is
    root = tmp_path
    tracker = open_tracker(load_config([f"paths.root={root}"]).tracking)
    assert register_model(tracker, tracker.find_run("latest").run_id, "cats or dogs") == "models:/cats or dogs/1"
    expected = as_json(cnnexp, root, "latest", *recorded)
    for name in ("models:/cats or dogs/1", "models:/cats or dogs@best"):
        assert as_json(cnnexp, root, name, *recorded) == expected
    code, _, err = cnnexp("predict", "models:/cats or dogs/2", *recorded, f"paths.root={root}")
    assert code == 2 and len(err.splitlines()) == 1


# ------------------------------------------------------------------------------------------------ odd files


def test_what_is_no_file_is_skipped_at_once(cnnexp: Run, root: Path, recorded: dict[str, dict[str, str]]) -> None:
    odd = Path("odd")
    odd.mkdir()
    os.mkfifo(odd / "a.png")
    (odd / "zero.png").symlink_to("/dev/zero")
    (odd / "sparse.png").touch()
    os.truncate(odd / "sparse.png", 30 * 2**30)
    for names in (["odd/a.png"], ["odd/zero.png"], ["odd"], ["odd/*.png"]):
        code, out, err = cnnexp("predict", "latest", *names, f"paths.root={root}")
        lines = err.splitlines()
        assert (code, out, lines.pop()) == (2, "", "cnnexp: cnnexp predict: none of the images could be read")
        assert len(lines) == (3 if len(names[0].split("/")) == 1 or "*" in names[0] else 1)
        for line in lines:
            size = "it has 32,212,254,720 bytes, more than 536,870,910"
            assert line.startswith("cnnexp: skipped: odd/")
            assert (size if "sparse" in line else "it is no regular file") in line
    code, out, err = cnnexp("explain", "latest", "odd/a.png", f"paths.root={root}")
    assert code == 2 and "skipped: odd/a.png" in err and "Traceback" not in err
    shutil.copy(next(iter(recorded)), odd / "well.jpg")
    code, out, _ = cnnexp("predict", "latest", "odd", "--json", f"paths.root={root}")
    assert code == 1 and [row["file"] for row in json.loads(out)] == ["odd/well.jpg"]
    for name, said in (("x" * 5000, "File name too long"), ("**x", "cannot be looked for")):
        code, _, err = cnnexp("predict", "latest", name, f"paths.root={root}")
        assert code == 2 and err.count("\n") == 1 and said in err


ESC = "e\x1b[31mRED\x1b]0;X\x07"


def test_names_are_shown_and_not_obeyed(
    cnnexp: Run, root: Path, recorded: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """Control sequences, a line break, bytes that are no UTF-8, and the beginnings of options and overrides."""
    picture = next(iter(recorded))
    names = [f"{ESC}.jpg", "a\nb.jpg", "\udcff\udcfe.jpg", "=1+1.jpg", "seed=1.jpg", "-x.jpg", "~k.jpg"]
    seen = [r"e\x1b[31mRED\x1b]0;X\x07.jpg", r"a\nb.jpg", r"\xff\xfe.jpg", *names[3:]]
    for name in names:
        shutil.copy(picture, tmp_path / name)
    Path(f"broken{ESC}.jpg").write_bytes(b"\xff\xd8")
    code, out, err = cnnexp("predict", "latest", f"paths.root={root}", "--", f"broken{ESC}.jpg", *names)
    assert code == 1, err
    assert err.count("\n") == 1 and rf"skipped: broken{seen[0]}: cannot be read" in err
    shown = [line.split()[0] for line in out.splitlines() if ".jpg" in line]
    assert shown == seen and "\x1b" not in out + err
    code, out, err = cnnexp("predict", "latest", "./=1+1.jpg", "=1+1.jpg", f"paths.root={root}", "--csv")
    assert code == 0 and [row["file"] for row in csv.DictReader(out.splitlines())] == ["'=1+1.jpg"], err
    code, out, err = cnnexp("predict", "latest", "\udcff\udcfe.jpg", f"paths.root={root}", "--csv")
    assert code == 0, err
    assert len(as_json(cnnexp, root, "latest", "\udcff\udcfe.jpg", "~k.jpg")) == 2
    code, out, err = cnnexp("explain", "latest", "\udcff\udcfe.jpg", names[0], f"paths.root={root}", "--activations")
    assert code == 0 and "\x1b" not in out + err, err
