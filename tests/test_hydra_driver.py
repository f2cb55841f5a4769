"""Hydra is reached through one file: what it needs of Hydra, and that a sweep is refused before its first job."""

import inspect
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.defaults_list import create_defaults_list
from hydra.types import RunMode
from omegaconf import OmegaConf

from cnnexp.config import hydra_driver
from cnnexp.config.composition import load_config
from cnnexp.config.hydra_driver import hydra_context
from cnnexp.runs.folder import RunFolder

Run = Callable[..., tuple[int, str, str]]
CNNEXP = Path(__file__).resolve().parents[1] / "cnnexp"
# private names of Hydra 1.3 that `hydra_driver` uses, with the parameters that it gives
PRIVATE = {
    "hydra._internal.callbacks:Callbacks": ["config"],
    "hydra._internal.config_loader_impl:ConfigLoaderImpl": ["config_search_path"],
    "hydra._internal.config_loader_impl:ConfigLoaderImpl._compose_config_from_defaults_list": ["defaults", "repo"],
    "hydra._internal.config_loader_impl:create_defaults_list": [
        "repo",
        "config_name",
        "overrides_list",
        "prepend_hydra",
        "skip_missing",
    ],
    "hydra._internal.defaults_list:Overrides": ["repo", "overrides_list"],
    "hydra._internal.core_plugins.basic_sweeper:BasicSweeper.split_arguments": ["overrides", "max_batch_size"],
    "hydra._internal.core_plugins.file_config_source:FileConfigSource.load_config": ["self", "config_path"],
    "hydra._internal.sources_registry:SourcesRegistry.instance": [],
    "hydra._internal.hydra:Hydra": ["task_name", "config_loader"],
    "hydra._internal.hydra:Hydra.run": ["config_name", "task_function", "overrides"],
    "hydra._internal.hydra:Hydra.multirun": ["config_name", "task_function", "overrides"],
    "hydra._internal.utils:_run_hydra": ["args", "args_parser", "task_function", "config_path", "config_name"],
    "hydra._internal.utils:create_config_search_path": ["search_path_dir"],
    "hydra._internal.utils:get_args_parser": [],
    "hydra._internal.utils:run_and_report": ["func"],
    "hydra.initialize:get_gh_backup": [],
    "hydra.initialize:restore_gh_from_backup": ["_gh_backup"],
    "hydra.plugins.sweeper:Sweeper.validate_batch_is_legal": ["self", "batch"],
}


@pytest.mark.parametrize("name", PRIVATE)
def test_hydra_has_what_the_driver_needs(name: str) -> None:
    module, _, path = name.partition(":")
    found = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    parameters = list(inspect.signature(found).parameters)
    assert [parameter for parameter in PRIVATE[name] if parameter not in parameters] == []


def test_no_other_file_reaches_into_hydra() -> None:
    words = ("hydra._internal", "hydra.initialize", "hydra.plugins")
    files = {file for file in CNNEXP.rglob("*.py") if any(word in file.read_text() for word in words)}
    assert files == {CNNEXP / "config" / "hydra_driver.py"}


def test_jobs_of_a_sweep_get_the_config_that_hydra_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the node `hydra`, and with what was resolved once for the whole sweep, as the time in its folder's name."""
    line = ["experiment=demo/frozen", "hydra.mode=MULTIRUN", "hydra.sweep.subdir=${hydra.job.override_dirname}"]
    jobs = [
        ["optimizer.learning_rate=0.1", "seed=1"],
        ["optimizer.learning_rate=0.2", "seed=2"],
        ["optimizer=sgd", "seed=2"],
        ["hydra.job.name=other", "seed=3"],
        ["optimizer.learning_rate=0.3", "seed=4"],
    ]
    merged = []
    real = ConfigLoaderImpl._compose_config_from_defaults_list
    monkeypatch.setattr(
        ConfigLoaderImpl,
        "_compose_config_from_defaults_list",
        lambda self, defaults, repo: merged.append(defaults) or real(self, defaults, repo),
    )
    for cache in ("_merged", "_listed"):
        monkeypatch.setattr(hydra_driver, cache, {})
    with hydra_context() as hydra:
        loader = hydra.config_loader
        master = loader.load_configuration("config", line, RunMode.MULTIRUN)
        place = master.hydra.sweep.dir
        shared = [loader.load_sweep_config(master, job) for job in jobs]
        assert len(merged) == 3  # the line, and jobs with and without optimizer=sgd
        monkeypatch.setattr(config_loader_impl, "create_defaults_list", create_defaults_list)
        hydras_own = ConfigLoaderImpl(loader.config_search_path)
        plain = [hydras_own.load_sweep_config(master, job) for job in jobs]
        assert len(merged) == 3 + len(jobs)
    for one, other, job in zip(shared, plain, jobs, strict=True):
        assert one.hydra.sweep.dir == other.hydra.sweep.dir == place
        assert one.hydra.overrides.task == job[job[0].startswith("hydra") :]
        assert OmegaConf.to_container(one) == OmegaConf.to_container(other)
        assert OmegaConf.get_type(one.optimizer) is OmegaConf.get_type(other.optimizer)
        assert all(OmegaConf.is_struct(each) and not OmegaConf.is_readonly(each.hydra) for each in (one, other))
    assert shared[1].hydra.sweep.subdir == "optimizer.learning_rate=0.2,seed=2"


def test_a_file_of_the_package_is_read_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And what is done with a composed config does not reach the next; files of the user's own are read anew."""
    (tmp_path / "experiment").mkdir()
    own = tmp_path / "experiment" / "mine.yaml"
    read = []
    real = FileConfigSource.load_config
    monkeypatch.setattr(FileConfigSource, "load_config", lambda *given: read.append(given[1]) or real(*given))
    for cache in ("_delivered", "_listed", "_merged"):
        monkeypatch.setattr(hydra_driver, cache, {})
    line = ["experiment=mine", "backbone=vgg16"]
    for rate in ("0.1", "0.2"):
        own.write_text(f"# @package _global_\noptimizer:\n  learning_rate: {rate}\n")
        config = load_config(line, str(tmp_path))
        assert config.optimizer.learning_rate == float(rate)
        assert config.backbone.name == "vgg16" and config.tracking.tags == {}
        config.backbone.name, config.tracking.tags["a"] = "changed", "b"
    assert len(read) == len(set(read)) > 10 and "backbone/vgg16" in read


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
class TestASweepIsRefusedBeforeItsFirstJob:
    line = ("train", "-m", "debug=smoke", "seed=1,2")

    def test_by_a_store_that_cannot_be_opened(self, cnnexp: Run, tmp_path: Path) -> None:
        (tmp_path / "store.db").write_bytes(b"this is no database" * 100)
        code, out, err = cnnexp(*self.line, f"tracking.uri=sqlite:///{tmp_path}/store.db")
        assert code == 2 and "[0]" not in out and "Launching" not in out
        assert len(err.splitlines()) == 1 and "store.db" in err
        assert not list(tmp_path.glob("outputs/runs/*"))

    def test_by_another_process_in_its_folder(self, cnnexp: Run, tmp_path: Path) -> None:
        with RunFolder(tmp_path / "mine").lock():
            code, out, err = cnnexp(*self.line, "tracking=none", f"hydra.sweep.dir={tmp_path / 'mine'}")
        assert code == 2 and "[0]" not in out
        assert err.startswith(f"cnnexp: {tmp_path / 'mine'}: another process (") and err.count("\n") == 1
        assert not (tmp_path / "mine" / "sweep.json").exists()


@pytest.mark.trains
def test_a_single_run_that_is_refused_leaves_no_folder_and_one_line(cnnexp: Run, tmp_path: Path) -> None:
    code, _, err = cnnexp("train", "dataset=folder", f"dataset.path={tmp_path / 'none'}", "tracking=none")
    assert code == 2 and err.count("\n") == 1 and str(tmp_path / "none") in err
    assert not (tmp_path / "outputs" / "runs").exists()


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("options", "shown", "kept"),
    [
        ([], 0, 1),
        (["hydra/job_logging=disabled"], 0, 0),
        (["hydra/job_logging=disabled", "hydra/hydra_logging=disabled", "-m"], 0, 0),
        (["hydra/job_logging=stdout", "hydra/hydra_logging=none"], 1, 0),
    ],
)
def test_what_is_logged_and_what_is_said(
    cnnexp: Run, tmp_path: Path, drawn_root: Path, options: list[str], shown: int, kept: int
) -> None:
    """A log of Hydra's that is left out, or goes elsewhere, takes nothing from what the run itself says."""
    line = ["debug=smoke", "trainer.epochs=1", "dataset=synthetic", "tracking=none", f"paths.data={drawn_root}"]
    code, out, err = cnnexp("train", *line, *options)
    assert code == 0 and not err and "variant" in out and "files in " in out
    assert out.count("epoch 1: {'") == shown
    logs = [file.read_text() for file in (tmp_path / "outputs").rglob("train.log")]
    assert [text.count("epoch 1: {'") for text in logs] == [1] * kept


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
def test_a_sweep_over_a_key_that_has_to_be_given_begins(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    """What the jobs have in common is no whole configuration then."""
    folders = [tmp_path / "a", tmp_path / "b"]
    made = next(iter(sorted(drawn_root.glob("**/train"))))
    for folder in folders:
        folder.symlink_to(made.parent)
    line = ("dataset=folder", "debug=smoke", "tracking=none", f"dataset.path={folders[0]},{folders[1]}")
    code, out, err = cnnexp("train", "-m", *line)
    assert code == 0, err
    assert "#0 : dataset=folder" in out and "#1 : dataset=folder" in out and not err


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("more", [["seed=1"], ["-m", "seed=1,2"]])
def test_relative_paths_count_from_where_the_command_was_given(
    cnnexp: Run, tmp_path: Path, drawn_root: Path, more: list[str]
) -> None:
    data = os.path.relpath(drawn_root, tmp_path)
    line = ["train", "debug=smoke", "dataset=synthetic", f"paths.data={data}", "hydra.job.chdir=true", *more]
    code, _, err = cnnexp(*line, "hydra.run.dir=here", "hydra.sweep.dir=here")
    assert code == 0 and err.count("hydra.job.chdir=true has no effect") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "here"}
    assert [path.name for path in (tmp_path / "outputs").iterdir() if path.suffix == ".db"] == ["mlflow.db"]
    assert not list((tmp_path / "here").rglob("outputs")) and list((tmp_path / "here").rglob("run.json"))
