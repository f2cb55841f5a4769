"""What the tests share: quiet libraries, one process, one drawn data set."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import absl.logging
import pytest

import cnnexp.data.opencv  # before Keras imports OpenCV, as in a command
from cnnexp.process import quiet_libraries

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # at 2, a deterministic `predict` writes an error of TensorFlow's now and then
quiet_libraries()  # with oneDNN on every processor, as commands compute

# TensorFlow's log handler closes its stream when Hydra sets up logging: it must not be pytest's
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(scope="session", autouse=True)
def quick_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """New SQLite stores of this process are copies of one: MLflow's migrations take two seconds each."""
    from cnnexp.tracking import mlflow

    real, template = mlflow.create_sqlite, tmp_path_factory.mktemp("store") / "mlflow.db"

    def create(file: Path, artifact_root: str) -> None:
        if file.exists() and file.stat().st_size > 0:
            return
        real(template, artifact_root)
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(template, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow, "create_sqlite", create)
        yield


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    """No test misses a line because another one had it."""
    from cnnexp.console import warn_once

    warn_once.cache_clear()


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `paths.root` in which the drawn pictures of `debug=smoke` already lie."""
    return tmp_path_factory.mktemp("outputs")


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
        return code, captured.out, captured.err

    return run


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, type[BaseException]], None]:
    """Ends the next training after some epochs."""

    from cnnexp.commands import job as job_module

    def arm(epochs: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        real = job_module.fit

        def fit(config: Any, network: Any, data: Any, on_epoch: Any, *more: Any, **options: Any) -> Any:
            def stop(epoch: int, metrics: dict[str, float]) -> None:
                if epoch == epochs:
                    monkeypatch.setattr(job_module, "fit", real)
                    raise error("stopped")
                on_epoch(epoch, metrics)

            return real(config, network, data, stop, *more, **options)

        monkeypatch.setattr(job_module, "fit", fit)

    return arm
