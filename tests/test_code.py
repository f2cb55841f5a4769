"""The code that ran: kept with a run, compared by `reproduce`, restored by the lines that it prints, and never run."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from resuming import Run, line, tracker

from cnnexp.runs.code import changed_files, target_files
from cnnexp.tracking import record

MINE = """
from cnnexp.data.sources import synthetic


def pictures(path, width, **more):
    return synthetic(path=path, train=8, validation=4, test=4, size=width, seed=0)
"""
Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """The working folder is a repository of the user's own, and cnnexp an installed package."""

    def run(*arguments: str) -> str:
        who = ("-c", "user.name=n", "-c", "user.email=e@example.com")
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(record, "__file__", str(tmp_path / "site-packages" / "record.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "n")
    monkeypatch.setenv("GIT_COMMITTER_NAME", "n")
    monkeypatch.setenv("EMAIL", "e@example.com")
    monkeypatch.syspath_prepend(tmp_path)
    run("init", "-q")
    (tmp_path / "mine_of_code.py").write_text(MINE)
    (tmp_path / "own/experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/x.yaml").write_text("# @package _global_\ndefaults:\n  - base\nname: x\n")
    (tmp_path / "own/experiment/base.yaml").write_text("# @package _global_\nseed: 4\n")
    (tmp_path / "own/experiment/other.yaml").write_text("# @package _global_\nname: other\n")
    (tmp_path / "notes.txt").write_text("one\ntwo\nthree\n")
    (tmp_path / "same.txt").write_text("same\n")
    (tmp_path / ".gitignore").write_text("outputs\n__pycache__\n")
    run("add", ".")
    run("commit", "-qm", "m")
    return run


OWN = ["--config-dir=own", "experiment=x", "dataset=custom", "dataset._target_=mine_of_code.pictures"]
ARGUMENTS = ["+dataset.arguments.path=outputs/pictures", "+dataset.arguments.width=48", "tracking.explain=false"]


def train(cnnexp: Run, root: Path, *more: str) -> str:
    own = [word for word in line(root, *OWN, *ARGUMENTS, *more) if word != "dataset=synthetic"]
    code, _, err = cnnexp(*own)
    assert code == 0, err
    return tracker(root).find_runs()[0].run_id


def kept(root: Path, run_id: str) -> dict[str, str]:
    """What a run kept of its code, by the names of the artifacts."""
    (folder,) = (root / "outputs/mlartifacts").rglob(f"{run_id}/artifacts")
    files = [folder / "code.patch", *folder.glob("code/**/*")]
    return {str(file.relative_to(folder)): file.read_text() for file in files if file.is_file()}


@pytest.mark.usefixtures("no_training")
def test_the_code_is_kept_and_restored(cnnexp: Run, tmp_path: Path, git: Git) -> None:
    first = git("rev-parse", "HEAD")
    (tmp_path / "notes.txt").write_text("one\npostgresql://me:secret@host\nthree\n")
    (tmp_path / "mine_of_code.py").write_text(f"{MINE}\n# mysql://me:secret@host\n")
    (tmp_path / "untracked.txt").write_text("of no interest\n")
    run_id = train(cnnexp, tmp_path)
    found = kept(tmp_path, run_id)
    assert set(found) == {
        "code.patch",
        "code/mine_of_code.py",
        "code/conf/experiment/x.yaml",
        "code/conf/experiment/base.yaml",
    }
    assert "-two\n+postgresql://me:***@host\n" in found["code.patch"] and "secret" not in "".join(found.values())
    assert found["code/mine_of_code.py"] == f"{MINE}\n# mysql://me:***@host\n"
    assert found["code/conf/experiment/base.yaml"] == (tmp_path / "own/experiment/base.yaml").read_text()
    assert tracker(tmp_path).get_run(run_id).tags["config_dir"] == "own"

    again = ["reproduce", run_id, "--allow-target=mine_of_code.pictures"]
    code, out, err = cnnexp(*again)
    assert code == 0 and "files" not in "".join(text for text in out.splitlines() if text.startswith("code:")), (
        out + err
    )

    git("commit", "-qam", "later")
    (tmp_path / "same.txt").write_text("changed\n")
    (tmp_path / "own/experiment/base.yaml").write_text("# @package _global_\nseed: 5\n")
    (tmp_path / "mine_of_code.py").write_text(MINE + "raise_if_run = 1\n")
    code, out, err = cnnexp(*again)
    assert code == 0, err
    assert "code: files that differ: mine_of_code.py, own/experiment/base.yaml, same.txt" in out
    assert "code: files of your own that differ: conf/experiment/base.yaml, mine_of_code.py" in out
    said = out[out.index("as it was then:") :].splitlines()[1:]
    lines = [text.strip() for text in said[: next(i for i, text in enumerate(said) if not text.startswith("  "))]]
    assert [shlex.split(text)[3:4] for text in lines[:3]] == [["stash"], ["checkout"], ["apply"]]
    for text in lines:
        subprocess.run(shlex.split(text), check=True, capture_output=True, cwd=tmp_path)
    assert git("rev-parse", "HEAD") == first
    assert (tmp_path / "notes.txt").read_text() == "one\npostgresql://me:***@host\nthree\n"
    assert (tmp_path / "same.txt").read_text() == "same\n"
    assert (tmp_path / "mine_of_code.py").read_text() == f"{MINE}\n# mysql://me:***@host\n"
    assert "seed: 4" in (tmp_path / "own/experiment/base.yaml").read_text()
    code, out, err = cnnexp(*again)
    assert code == 0 and "as it was then:" not in out, out


@pytest.mark.usefixtures("no_training")
def test_it_is_left_out_where_that_is_asked_for_and_a_patch_that_is_too_long(
    cnnexp: Run, tmp_path: Path, git: Git, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("changed\n")
    run_id = train(cnnexp, tmp_path, "tracking.code=false")
    (folder,) = (tmp_path / "outputs/mlartifacts").rglob(f"{run_id}/artifacts")
    assert not (folder / "code.patch").exists() and not (folder / "code").exists()
    (tmp_path / "notes.txt").write_text("changed\n" * 200_000)
    run_id = train(cnnexp, tmp_path, "seed=9")
    (folder,) = (tmp_path / "outputs/mlartifacts").rglob(f"{run_id}/artifacts")
    assert not (folder / "code.patch").exists() and (folder / "code/mine_of_code.py").is_file()
    git("checkout", "-q", "notes.txt")
    code, out, _ = cnnexp("reproduce", run_id, "--allow-target=mine_of_code.pictures")
    assert code == 0 and "the run has no code.patch" in out


def test_patches_are_compared_by_file() -> None:
    one = "diff --git a/x.py b/x.py\nindex 1..2\n-a\n+b\n"
    other = 'diff --git "a/\\303\\244 y" "b/\\303\\244 y"\nindex 3..4\n-c\n+d\n'
    assert changed_files(one + other, other + one) == []
    assert changed_files(one + other, one) == ["\\303\\244 y"]
    assert changed_files(one, one.replace("+b", "+B")) == ["x.py"] == changed_files("", one)
    (name,) = changed_files("diff --git a/\x1b[2J b/\x1b[2J\n", "")
    assert name.isprintable()


def test_own_targets_are_told_from_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("alone_of_code.py", "package_of_code/__init__.py", "package_of_code/inner.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('imported')\n" if "__init__" not in name else "")
    targets = {
        "dataset": {"_target_": "alone_of_code.f"},
        "head": {"_target_": "package_of_code.f"},
        "phases": {"a": {"optimizer": {"_target_": "package_of_code.inner.f"}}},
        "optimizer": {"_target_": "keras.optimizers.Adam"},
        "backbone": {"_target_": "cnnexp.models.vgg.f", "arguments": {}},
        "augmentation": {"_target_": None},
        "odd": {"_target_": "lost_of_code.f"},
        "builtin": {"_target_": "math.sqrt"},
    }
    found = target_files(targets)
    assert {name: path.relative_to(tmp_path).as_posix() for name, path in found.items()} == {
        name: name for name in ("alone_of_code.py", "package_of_code/__init__.py", "package_of_code/inner.py")
    }
