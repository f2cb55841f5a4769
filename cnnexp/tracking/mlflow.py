"""Runs in an MLflow store. The only file that imports MLflow, and only when a tracker is used."""

import logging
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnexp.console import redact, warn, warn_once
from cnnexp.errors import RunError, UserError
from cnnexp.files import atomic_move, locked, scratch_folder
from cnnexp.tracking import artifacts
from cnnexp.tracking.faults import fault_of, is_outage, reason
from cnnexp.tracking.journal import Record
from cnnexp.tracking.locations import local_folder, mend
from cnnexp.tracking.reader import MODEL, RunReader, is_whole, logged_steps
from cnnexp.tracking.record import pins, run_tags, storable
from cnnexp.tracking.registry import Registered, register
from cnnexp.tracking.stores import (
    QUIET,
    artifact_uri,
    check_inside,
    check_store,
    is_missing,
    naming_uri,
    resolve_uri,
    schema_revision,
    sqlite_file,
)
from cnnexp.tracking.views import experiment_tags
from cnnexp.tracking.writer import RunWriter, clear, replay

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor


TABLES = Path(__file__).with_name("mlflow_tables.sql")  # written by tests/test_tracking_tables.py
MODEL_TAGS = ("mlflow.runName", "variant", "seed", "dataset", "backbone")
MODEL_FIGURES = {"final": "validation", "test": "test"}  # the beginning of a figure's name -> the split that it is of
PARAMS_PER_BATCH = 100  # MLflow takes no more at once


def quiet_mlflow() -> None:
    """Import MLflow without telemetry, progress bars and log lines; what the user has set stays."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401  sets the levels of its loggers when it is imported

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs what it raises
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # each retry; the journal says it once


@contextmanager
def _pins_taken_as_installed() -> Iterator[None]:
    """Spare MLflow the look through every installed package for what `pins` have just been read from.

    It would only warn where a requirement is not what is installed. It takes a second, once a process.
    """
    from mlflow.utils import environment

    check = environment.warn_dependency_requirement_mismatches
    environment.warn_dependency_requirement_mismatches = lambda _: None  # type: ignore[assignment]
    try:
        yield
    finally:
        environment.warn_dependency_requirement_mismatches = check


def create_tables(file: Path) -> None:
    """Make the tables of the MLflow whose store is described in TABLES, where that one is installed; else nothing.

    MLflow makes them in sixty migrations, one after the other, which takes seconds.
    """
    import mlflow

    text = TABLES.read_text(encoding="utf-8")
    if text.startswith(f"-- MLflow {mlflow.__version__}\n"):
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript(text)


def _revision_of_tables() -> str:
    """Of the tables that the installed MLflow works with."""
    text = TABLES.read_text(encoding="utf-8")
    known = re.search(r"""INSERT INTO "alembic_version" VALUES\('(\w+)'\)""", text)
    if known and text.startswith(f"-- MLflow {version('mlflow')}\n"):
        return known[1]
    quiet_mlflow()
    from mlflow.store.db.utils import _get_latest_schema_revision

    return str(_get_latest_schema_revision())


def create_sqlite(file: Path, artifact_root: str) -> None:
    """Make an empty store where `file` is missing or empty. It appears whole, and one process makes it."""
    if not is_missing(file):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(Path(f"{file}.lock")):
        if not is_missing(file):
            return
        quiet_mlflow()
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with atomic_move(file.parent, file.name) as folder:  # and not a hidden file: SQLite puts others beside it
            create_tables(folder / file.name)
            SqlAlchemyStore(f"sqlite:///{(folder / file.name).as_posix()}", artifact_root).engine.dispose()


def _log_inputs(client: "MlflowClient", run_id: str, splits: dict[str, dict[str, str]]) -> None:
    """Jobs that record a data set for the first time race in MLflow; who loses finds it there at the next try."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    inputs = [DatasetInput(Dataset(**entry), [InputTag("mlflow.data.context", name)]) for name, entry in splits.items()]
    for last in (False, False, True):
        try:
            client.log_inputs(run_id, inputs)
            break
        except MlflowException as error:
            if last or "IntegrityError" not in str(error):
                raise


def model_name(run_name: str, run_id: str) -> str:
    """What tells a model from those of other runs, in characters that MLflow takes."""
    return re.sub(r"""[/:.%"']""", "_", f"{run_name} {run_id[:8]}")


def _link_model(model: Path | None, run: Path) -> None:
    """Let the files of a model be artifacts of its run, too."""
    assert model is not None, "a store has its runs and its models in one place"
    run.mkdir(parents=True, exist_ok=True)
    with atomic_move(run, MODEL) as scratch:
        shutil.copytree(model, scratch / MODEL, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def system_monitors() -> "list[BaseMetricsMonitor]":
    """MLflow's own, of processor, memory, disk and network; none unless MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING asks."""
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING as SWITCH

    try:
        if not SWITCH.get():
            return []
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    except ImportError as error:
        warn_once(f"cnnexp: {SWITCH.name}: needs {error.name} (pip install {error.name}); goes on without it")
        return []
    except ValueError:
        warn_once(f"cnnexp: {SWITCH.name}={SWITCH.get_raw()}: must be true or false; goes on without it")
        return []
    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    for monitor in monitors:
        _measure(monitor)  # the next time they tell of the time since now
    return monitors


def _measure(monitor: "BaseMetricsMonitor") -> dict[str, float]:
    monitor.collect_metrics()
    measured: dict[str, float] = monitor.aggregate_metrics()
    monitor.clear_metrics()
    return measured


class Tracker(RunReader, RunWriter):
    """Records one run at a time, and reads runs back. Trackers share no state, so several may be in use.

    An outage of the store costs no metric where `start_run` is given a journal.

    Args:
        uri: `sqlite:///FILE`, `http(s)://HOST`, or a database server as `postgresql://USER:PASSWORD@HOST/NAME`.
        experiment: the MLflow experiment.
        artifact_root: folder or URI for the artifacts of a new experiment; an http server chooses its own.

    Raises:
        UserError: MLflow has no store of this kind.
    """

    def __init__(self, uri: str, experiment: str, artifact_root: str) -> None:
        super().__init__()
        self.uri = resolve_uri(uri)
        self.experiment = experiment
        self.artifact_root = artifact_uri(artifact_root)
        self._client: MlflowClient | None = None
        self._experiment_id = ""  # not known yet
        self._monitors: list[BaseMetricsMonitor] = []

    def prepare(self) -> None:
        """Make the store and the experiment where they are missing; safe from many processes at once.

        Raises:
            UserError: the store cannot be opened, or the experiment was deleted.
        """
        if self._experiment_id:
            return
        file = sqlite_file(self.uri)
        with self._naming_uri("write to"):
            if file is not None:
                create_sqlite(file, self.artifact_root)
            found = self.find_experiment()
            if file is not None:
                if move := mend(file, self.artifact_root):
                    warn(f"cnnexp: the store was moved: what it named below {move.old} is named below {move.new} now")
                self.move = None
            self._experiment_id = str(found.experiment_id) if found else self._create_experiment()

    def client(self) -> "MlflowClient":
        """MLflow's client on the store, connected.

        Raises:
            UserError: there is no store, or it cannot be opened.
        """
        if self._client is None:
            self.look()
            with self._naming_uri("read"):
                quiet_mlflow()
                from mlflow import MlflowClient

                client = MlflowClient(self.uri, registry_uri=self.uri)
                client.get_experiment_by_name(self.experiment)
                self._client = client
        return self._client

    def _naming_uri(self, doing: str) -> AbstractContextManager[None]:
        return naming_uri(self.uri, self.experiment, doing)

    def look(self) -> None:
        """See that there is a store to read, without a change and without MLflow.

        Raises:
            UserError: there is none, it cannot be read, or its file has the tables of another MLflow, which would
                change them as soon as it opens it.
        """
        with self._naming_uri("read"):
            check_store(self.uri)
            file = sqlite_file(self.uri)
            found = schema_revision(file) if file else None
            if found is not None and found != _revision_of_tables():
                raise UserError(
                    f"tracking.uri={self.uri}: is of another version of MLflow; keep a copy of the file, and make it "
                    f"one of this version: mlflow db upgrade {self.uri}"
                )

    def _repository(self, place: str) -> "ArtifactRepository":
        """MLflow's access to a place of artifacts that the store names, wherever it is now."""
        self.client()
        artifacts.check_chosen(self.uri, place, self.artifact_root)
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(self._resolve(place), self.uri, self.uri)

    def _check_artifacts(self) -> None:
        """Refuse to open a run whose files could not be recorded at its end.

        Raises:
            UserError: what is missing.
        """
        place = str(self.client().get_experiment(self._experiment_id).artifact_location)
        key = f"tracking.experiment={self.experiment}: keeps its files in {place}"
        artifacts.check_chosen(self.uri, place, self.artifact_root)
        artifacts.check_place(key, self._resolve(place))
        try:
            self._repository(place)
        except Exception as error:  # of MLflow, which knows no such place, or of the package that it uses
            raise UserError(f"{key}: {reason(error)}") from error

    def _create_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        location = None if self.uri.startswith("http") else self.artifact_root
        if location:  # an experiment keeps it for ever
            artifacts.check_place(f"tracking.artifact_root={redact(location)}", location)
        try:
            return str(self.client().create_experiment(self.experiment, location, experiment_tags()))
        except MlflowException:
            if made_by_another := self.find_experiment():
                return str(made_by_another.experiment_id)
            raise

    def start_run(
        self,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        parent_run_id: str | None = None,
        journal: Path | None = None,
    ) -> str:
        """Open a run, to which everything is recorded until the next is opened.

        Args:
            params: cannot be changed later; a value of more than 6000 characters is shortened, with its hash.
            tags: can be changed; shortened from 8000 characters on. `notes.NOTE_TAG` is shown above the figures.
            parent_run_id: the run under which MLflow's UI nests this one.
            journal: a file that keeps what the store does not take for a while; see `journal.replay`. Without it
                an outage is an error.

        Returns:
            The run id.
        """
        self.prepare()
        client, own = self.client(), run_tags(tags, parent_run_id)
        with self._naming_uri("write to"):
            self._check_artifacts()
            run_id = str(client.create_run(self._experiment_id, tags=own, run_name=name).info.run_id)
        if journal is not None:
            clear(self, journal)
        self._open(run_id, journal, set())
        self._monitors = system_monitors()
        try:
            self._log_params(run_id, params)
        except BaseException as error:
            self.end_run("FAILED" if isinstance(error, Exception) else "KILLED", error=str(error))
            raise
        return run_id

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        entries = [Param(key, value) for key, value in storable(params).items()]
        for start in range(0, len(entries), PARAMS_PER_BATCH):
            self.client().log_batch(run_id, params=entries[start : start + PARAMS_PER_BATCH])

    def resume_run(self, run_id: str, journal: Path | None = None, params: Mapping[str, str] | None = None) -> None:
        """Open a run again. A figure that it has of a step is not recorded a second time.

        Args:
            journal: as of `start_run`; what it keeps is sent first.
            params: those it was to have, where it may have been killed before it had all of them.

        Raises:
            UserError: there is no such run.
        """
        self.prepare()
        if journal is not None and journal.exists():
            replay(self, journal)
        client, found = self.client(), self._find(run_id)
        with self._naming_uri("write to"):
            self._check_artifacts()
            client.update_run(found.run_id, status="RUNNING")
            if "error" in found.tags:
                client.delete_tag(found.run_id, "error")
        self._log_params(found.run_id, params or {})
        self._delete_models([model for model in self.logged_models(found.run_id) if not is_whole(model)])
        self._open(found.run_id, journal, logged_steps(client, found))
        self._monitors = system_monitors()

    def system_metrics(self) -> dict[str, float]:
        """How busy the machine was since the last call, as `system/...`; empty unless MLflow's own switch asks."""
        return {f"system/{name}": value for monitor in self._monitors for name, value in _measure(monitor).items()}

    def _send(self, run_id: str, record: Record) -> None:
        """Give the store one write of a run."""
        from mlflow.entities import Metric, RunTag

        client = self.client()
        match record["kind"]:
            case "metrics":
                client.log_batch(run_id, metrics=[Metric(*figure) for figure in record["figures"]])
            case "tags":
                client.log_batch(run_id, tags=[RunTag(key, value) for key, value in record["tags"].items()])
            case "artifact":
                self._send_artifact(run_id, Path(record["path"]), record["folder"])
            case "text":
                folder, _, name = record["name"].rpartition("/")
                with self._scratch() as scratch:
                    (scratch / name).write_text(record["text"], encoding="utf-8")
                    self._send_artifact(run_id, scratch / name, folder or None)
            case "inputs":
                _log_inputs(client, run_id, record["splits"])
            case "end":
                client.set_terminated(run_id, record["status"], record["time"])

    def _scratch(self) -> AbstractContextManager[Path]:
        """A folder for what is made to be sent: where the run is, or where the artifacts are, if that is here."""
        own = self._journal.file.parent if self._journal.file else local_folder(self.artifact_root)
        return scratch_folder(own or Path(tempfile.gettempdir()))

    def _send_artifact(self, run_id: str, path: Path, folder: str | None) -> None:
        place = str(self.client().get_run(run_id).info.artifact_uri)
        repository = self._repository(place)
        with self._naming_place(place):
            if path.is_dir():
                repository.log_artifacts(str(path), f"{folder}/{path.name}" if folder else path.name)
            else:
                repository.log_artifact(str(path), folder)

    @contextmanager
    def _naming_place(self, place: str) -> Iterator[None]:
        """A place elsewhere, as a bucket, shows only when it is written to whether there is one, and the right to it.

        Raises:
            RunError: it takes no file.
        """
        try:
            yield
        except Exception as error:  # of the package that MLflow uses for the place
            if local_folder(place) is not None or fault_of(error) is not None:
                raise
            where = f"tracking.experiment={self.experiment}: keeps its files in {redact(place)}"
            raise RunError(f"{where}, which takes none: {type(error).__name__}: {reason(error)}") from error

    def log_model(
        self,
        model: "keras.Model",
        example: np.ndarray,
        class_names: Sequence[str],
        decision: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the model as `model`: `mlflow.pyfunc.load_model("runs:/RUN/model")`, `mlflow models serve`.

        Among all models it is called after its run. MLflow finds `runs:/RUN/model` by that name, or among the run's
        files; where these are files of this machine, the model's stand there too, as links that take no room.
        Elsewhere they would be sent twice, and the name is `model`.

        What is stored is a `.keras` file, without the optimizer's state, and text; nothing is pickled.

        Args:
            model: takes raw images (N, H, W, C) in 0..255, puts out probabilities (N, 1) or (N, classes).
            example: (1, H, W, C) uint8 RGB.
            class_names: in the order of the outputs; kept in the model's metadata.
            decision: see `cnnexp.metrics.decision.Decision.described`; kept there, too, where there is one.
        """
        if self.lost:
            return
        try:
            self._log_model(
                model, example, {"class_names": list(class_names)} | ({"decision": dict(decision)} if decision else {})
            )
        except Exception as error:
            if not self._journal.lose(self._current, error):
                raise

    def _log_model(self, model: "keras.Model", example: np.ndarray, metadata: dict[str, Any]) -> None:
        import keras
        from mlflow import keras as flavor
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema, TensorSpec

        client, run_id, retry = self.client(), self._current, self._journal.retry
        images = Schema([TensorSpec(np.dtype(np.uint8), (-1, *example.shape[1:]))])
        probabilities = Schema([TensorSpec(np.dtype(np.float32), (-1, model.output_shape[-1]))])
        run = retry(client.get_run, run_id)
        folder_of_run = None if self.uri.startswith("http") else local_folder(self._resolve(run.info.artifact_uri))
        entry = retry(
            client.create_logged_model,
            self._experiment_id,
            name=model_name(run.info.run_name, run_id) if folder_of_run else MODEL,
            source_run_id=run_id,
            params=run.data.params,
            tags={key: run.data.tags[key] for key in MODEL_TAGS if key in run.data.tags},
        )
        try:
            retry(client.log_outputs, run_id, [LoggedModelOutput(entry.model_id, step=0)])
            with self._scratch() as folder, _pins_taken_as_installed():
                flavor.save_model(
                    keras.Model(model.inputs, model.outputs, name=model.name),  # not compiled: no optimizer
                    str(folder),  # exists, which mlflow.keras expects where there is an input example
                    mlflow_model=Model(
                        entry.artifact_location, run_id, model_uuid=entry.model_id, model_id=entry.model_id
                    ),
                    signature=ModelSignature(images, probabilities),
                    input_example=example,
                    pip_requirements=pins("tensorflow", "keras", "numpy"),
                    metadata=metadata,
                )
                with self._naming_place(entry.artifact_location):
                    retry(self._repository(entry.artifact_location).log_artifacts, str(folder))
            if folder_of_run:
                _link_model(local_folder(entry.artifact_location), folder_of_run)
        except BaseException as error:
            if not is_outage(error):
                with suppress(Exception):  # the error says more
                    client.finalize_logged_model(entry.model_id, "FAILED")
            raise
        retry(client.finalize_logged_model, entry.model_id, "READY")
        retry(self._log_model_metrics, run, entry)
        earlier = [model for model in retry(self.logged_models, run_id) if model.model_id != entry.model_id]
        retry(self._delete_models, earlier)  # of a process that was killed before its run was done

    def _delete_models(self, models: "Sequence[LoggedModel]") -> None:
        """By MLflow a run's model is any of those with its name: no other one than the whole one may be there."""
        for model in models:
            self.client().delete_logged_model(model.model_id)

    def _log_model_metrics(self, run: "Run", model: "LoggedModel") -> None:
        """Let the final figures of a run be those of its model, too, on the data that they are of."""
        from mlflow.entities import Metric

        inputs = run.inputs.dataset_inputs if run.inputs else []
        data = {tag.value: entry.dataset for entry in inputs for tag in entry.tags}
        figures = []
        for name in run.data.metrics:
            split = MODEL_FIGURES.get(name.partition("/")[0])
            if split is not None:
                last, known = self.client().get_metric_history(run.info.run_id, name)[-1], data.get(split)
                of = {"dataset_name": known.name, "dataset_digest": known.digest} if known else {}
                point = Metric(name, last.value, last.timestamp, last.step, model_id=model.model_id, **of)
                figures.append(point)
        self.client().log_batch(run.info.run_id, metrics=figures)

    def download(self, run_id: str, artifact_path: str, folder: Path | str) -> Path:
        """Fetch an artifact, or a folder of them as `model`, to `folder/artifact_path`, and return that path.

        Raises:
            UserError: the run has no such artifact, or the name leads out of `folder`.
        """
        self.client()
        from mlflow.exceptions import MlflowException

        check_inside(artifact_path)
        with atomic_move(Path(folder), artifact_path) as temporary:
            try:
                place, name, path = self.place(run_id, artifact_path)
                (temporary / name).mkdir(exist_ok=True)
                self._repository(place).download_artifacts(path, str(temporary / name))
            except (MlflowException, OSError) as error:
                raise UserError(f"{artifact_path}: no such artifact of run {run_id}") from error
        return Path(folder) / artifact_path

    def register(self, run_id: str, name: str) -> Registered:
        """Make the model of a run the next version of the registered model `name`; see `registry.register`.

        Raises:
            UserError: the run recorded no model, or the registry refuses it.
        """
        run = self.find_run(run_id)
        return register(self.client(), run, self.find_logged_model(run.run_id), name)

    def has_model(self, run_id: str) -> bool:
        """Whether the run recorded its model, and whole."""
        return self.find_logged_model(run_id) is not None
