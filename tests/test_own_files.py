"""What of a user's own could be taken for something else: records of runs as folders of options, names of ours."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnexp.commands import train
from cnnexp.config.hydra_driver import conf_dir

Run = Callable[..., tuple[int, str, str]]


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("sprung"),)  # type: ignore[return-value]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What a line would train, in place of training it."""
    ran: list[object] = []

    def train_single(composed: object) -> float:
        ran.append(composed)
        return 0.0

    monkeypatch.setattr(train, "train_single", train_single)
    return ran


def refused(cnnexp: Run, jobs: list[object], *line: str) -> str:
    code, _, err = cnnexp("train", *line)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert jobs == []
    return err


@pytest.fixture
def record(cnnexp: Run, jobs: list[object]) -> str:
    """The folder of a run, as Hydra and cnnexp leave it."""
    assert cnnexp("train", "experiment=mnist", "seed=4", "hydra.run.dir=outputs/runs/a b")[0] == 0
    jobs.clear()
    folder = Path("outputs/runs/a b")
    (folder / "config.yaml").write_text((folder / ".hydra/config.yaml").read_text())
    (folder / "run.json").write_text("{}")
    return str(folder)


@pytest.mark.parametrize("name", [[], ["--config-name=config"], ["--config-name=overrides"], ["-m", "seed=1,2"]])
def test_a_record_of_a_run_is_no_folder_of_options(
    cnnexp: Run, jobs: list[object], record: str, name: list[str]
) -> None:
    for folder in (record, f"{record}/.hydra", f"{record}/../a b/.hydra/"):
        err = refused(cnnexp, jobs, f"--config-dir={folder}", *name)
        assert "`cnnexp reproduce 'outputs/runs/a b'` trains it again" in err
        code, _, err = cnnexp("plan", f"--config-dir={folder}", *name)
        assert code == 2 and "cnnexp reproduce" in err
    err = refused(cnnexp, jobs, f"hydra.searchpath=['file://{Path(record).resolve()}/.hydra']")
    assert err.startswith("cnnexp: hydra.searchpath=") and "`cnnexp reproduce 'outputs/runs/a b'`" in err
    assert len(list(Path("outputs/runs").iterdir())) == 1


def test_a_copied_record_is_refused_too(cnnexp: Run, jobs: list[object], record: str) -> None:
    Path("mine").mkdir()
    text = Path(record, "config.yaml").read_text()
    Path("mine/config.yaml").write_text(text)
    assert "config.yaml has the name of a file of cnnexp" in refused(cnnexp, jobs, "--config-dir=mine")
    Path("mine/config.yaml").rename("mine/again.yaml")
    err = refused(cnnexp, jobs, "--config-dir=mine", "--config-name=again")
    assert "`cnnexp reproduce RUN`" in err


def test_a_rerun_does_not_open_its_pickle(cnnexp: Run, jobs: list[object], record: str) -> None:
    for place, line in ((f"{record}/.hydra", "cnnexp reproduce 'outputs/runs/a b'"), (".", "cnnexp reproduce RUN")):
        Path(place, "config.pickle").write_bytes(pickle.dumps(Trap()))
        for flag in (
            [f"--experimental-rerun={place}/config.pickle"],
            ["--experimental-rerun", f"{place}/config.pickle"],
        ):
            assert f"`{line}`" in refused(cnnexp, jobs, *flag)
            assert f"`{line}`" in refused(cnnexp, jobs, "seed=1", *flag, "-m")
    assert not Path("sprung").exists()


def test_an_own_file_is_never_replaced_by_one_of_ours(cnnexp: Run, jobs: list[object]) -> None:
    Path("mine/optimizer").mkdir(parents=True)
    own, ours = Path("mine/optimizer/adam.yaml"), conf_dir() / "optimizer/adam.yaml"
    own.write_text(ours.read_text())
    code, _, err = cnnexp("train", "--config-dir=mine", "optimizer=adam")  # the same, as in a copy of conf/
    assert (code, err, len(jobs)) == (0, "", 1)
    jobs.clear()
    own.write_text(ours.read_text() + "beta_1: 0.5\n")
    err = refused(cnnexp, jobs, "--config-dir=mine", "optimizer=adam")
    assert "optimizer/adam.yaml has the name of a file of cnnexp" in err and "optimizer=NEW" in err
    own.unlink()
    Path("mine/config.yaml").write_text("defaults:\n  - schema\n  - _self_\nname: mine\n")
    for name in ([], ["--config-name=config"], ["--config-name", "config", "--cfg", "job"]):
        assert "--config-name=NEW" in refused(cnnexp, jobs, "--config-dir=mine", *name)
