"""What the tests share: quiet libraries, commands in this process, drawn pictures, a tracked run, stand-ins."""

import gc
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import absl.logging
import pytest
import stand_ins

import cnnexp.data.opencv  # before Keras imports OpenCV, as in a command
from cnnexp.process import quiet_libraries

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # at 2, a deterministic `predict` writes an error of TensorFlow's now and then
quiet_libraries()  # with oneDNN on every processor, as commands compute

# TensorFlow's log handler closes its stream when Hydra sets up logging: it must not be pytest's
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__

PICTURES = stand_ins.Pictures()


# what a test file that needs TensorFlow imports at its top, or is marked with as a whole
HEAVY = re.compile(
    r"^(?:import|from) (?:keras|tensorflow|explained|test_trainer|cnnexp\.(?:training|explain|models\.(?!names)))\b"
    r"|^pytestmark = .*(?:\n    .*)*mark\.(?:trains|slow|long)\b",
    re.MULTILINE,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--light", action="store_true", help="leave out what trains, is slow or imports TensorFlow")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--light`, TensorFlow is not even imported: that takes as long as all light tests together."""
    wanted = config.getoption("light") and collection_path.suffix == ".py"
    return True if wanted and HEAVY.search(source(collection_path)) else None


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What trains can be told by its fixtures."""
    for item in items:
        if {"tracked_run", "no_training", "interrupted"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.trains)
    if config.getoption("light"):
        heavy = [item for item in items if item.get_closest_marker("trains") or item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=heavy)
        items[:] = [item for item in items if item not in set(heavy)]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadscope`, tests are divided one by one, but for those of a file that share a fixture."""
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid, config.rootpath)

    return Scheduling(config, log)


def scope(test: str, root: Path) -> str:
    """What is to run in one process with this test: its file, or of a file whose fixtures have parameters its part."""
    file = test.partition("::")[0]
    text = source(root / file)
    if 'scope="module", params=' in text:
        return file + test[test.find("[") :]
    return file if 'scope="module"' in text else test


@cache
def source(file: Path) -> str:
    return file.read_text()


def pytest_collection_finish() -> None:
    """What the test modules have imported stays: it is not to be searched for garbage, as before each training."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the fixtures: those of a whole module that is marked `pictures` draw them, too."""
    PICTURES.drawn = item.get_closest_marker("pictures") is not None


@pytest.fixture(scope="session", autouse=True)
def blank_pictures() -> Iterator[None]:
    """Figures are drawn only in tests marked `pictures`; see `stand_ins.Pictures`."""
    with pytest.MonkeyPatch.context() as patch:
        PICTURES.stand_in(patch)
        yield


@pytest.fixture(autouse=True)
def drawing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that are run in this process have no drawing process, in which the stand-ins would not be known."""
    monkeypatch.setattr("cnnexp.drawing._cores", lambda: 1)


@pytest.fixture(autouse=True)
def no_collection_before_each_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking through all that a process of tests has made takes longer than a training of a few small pictures."""
    if "cnnexp.training.runtime" in sys.modules:
        stand_in = SimpleNamespace(get_freeze_count=gc.get_freeze_count, freeze=gc.freeze, collect=lambda: 0)
        monkeypatch.setattr("cnnexp.training.runtime.gc", stand_in)  # gc.collect itself stays what it is


@pytest.fixture
def draw_pictures() -> Callable[[], None]:
    """From its call on, pictures are drawn in this test."""

    def start() -> None:
        PICTURES.drawn = True

    return start


@pytest.fixture(scope="session", autouse=True)
def quick_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """New SQLite stores of this process are copies of one: MLflow's migrations take two seconds each."""
    from cnnexp.tracking import mlflow

    real = mlflow.create_sqlite

    def create(file: Path, artifact_root: str) -> None:
        if file.exists() and file.stat().st_size > 0:
            return
        made = stand_ins.once(tmp_path_factory, "store", lambda folder: real(folder / "mlflow.db", artifact_root))
        template = made / "mlflow.db"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(template, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow, "create_sqlite", create)
        yield


@pytest.fixture(autouse=True)
def no_log_of_an_earlier_test() -> None:
    """Hydra's handlers of an earlier test write to a stream that is closed, and Python says so on the console."""
    kept = [one for one in logging.root.handlers if not getattr(getattr(one, "stream", None), "closed", False)]
    logging.root.handlers[:] = kept


@pytest.fixture(autouse=True)
def no_store_of_mlflows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mlflow.set_tracking_uri` leaves its store in this process, where it hides what the environment says."""
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(autouse=True)
def no_figures_of_an_earlier_test() -> None:
    """A command is a process of its own, in which only its own run's figures are known."""
    if "cnnexp.metrics.registry" in sys.modules:
        sys.modules["cnnexp.metrics.registry"].use_own({})


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    """No test misses a line because another one had it."""
    from cnnexp.console import warn_once

    warn_once.cache_clear()


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `paths.data` in which the drawn pictures of `debug=smoke` lie, the same for every process."""

    def draw(folder: Path) -> None:
        stand_ins.command(folder, "prepare", "synthetic", "debug=smoke", f"paths.data={folder}")

    return stand_ins.once(tmp_path_factory, "drawn", draw)


@pytest.fixture(scope="session")
def tracked_run(tmp_path_factory: pytest.TempPathFactory, drawn_root: Path) -> Path:
    """One tracked smoke run, with its model and heat maps: the folder it was started in. It is only read."""

    def train(folder: Path) -> None:
        line = ["experiment=baseline", "debug=smoke", f"paths.data={drawn_root}", "dataset=synthetic", "seed=3"]
        stand_ins.command(folder, "train", *line, "+tracking.tags.why=test", "tracking.explain=true")

    return stand_ins.once(tmp_path_factory, "tracked", train)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands train nothing: for what is done with a run before, after and in between; see `stand_ins.fit`."""
    monkeypatch.setattr("cnnexp.runs.run.fit", stand_ins.fit)


@pytest.fixture
def cnnexp(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process from an empty folder; returns exit code, output and error output."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        from cnnexp.cli import main
        from cnnexp.console import warn_once

        monkeypatch.setattr("sys.argv", ["cnnexp"])
        warn_once.cache_clear()
        capfd.readouterr()
        try:
            code = main(list(arguments))
        except SystemExit as error:  # Hydra ends the process itself
            code = int(error.code or 0)
        captured = capfd.readouterr()
        assert "-traceback.txt" not in captured.err, captured.err  # nothing that a test does is a mistake of cnnexp
        return code, captured.out, captured.err

    return run


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, type[BaseException]], None]:
    """Ends the next training after some epochs."""

    from cnnexp.runs import run as job_module

    def arm(epochs: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        real = job_module.fit

        def fit(parts: Any, on_epoch: Any, *more: Any, **options: Any) -> Any:
            def stop(epoch: int, metrics: dict[str, float]) -> None:
                if epoch == epochs:
                    monkeypatch.setattr(job_module, "fit", real)
                    raise error("stopped")
                on_epoch(epoch, metrics)

            return real(parts, stop, *more, **options)

        monkeypatch.setattr(job_module, "fit", fit)

    return arm
