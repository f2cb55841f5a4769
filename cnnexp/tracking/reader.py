"""Reads runs back from a store, and adds to those that are closed."""

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from cnnexp.console import redact
from cnnexp.errors import RunError, UserError
from cnnexp.metrics.names import current, spellings
from cnnexp.tracking.faults import described, fault_of, reason
from cnnexp.tracking.info import RunInfo
from cnnexp.tracking.locations import Move, find_move
from cnnexp.tracking.record import REUSED_FROM, storable_name
from cnnexp.tracking.registry import SCHEME, run_of_version
from cnnexp.tracking.stores import sqlite_file
from cnnexp.tracking.views import missing_tags, swept_keys, view_links

PARENT_TAG = ("sweep", "parent")  # what marks the parent run of a sweep
RUNS_PER_PAGE = 100
MODEL = "model"  # what a run's model is called among its artifacts
NEWEST = 10  # sweeps whose keys are columns of the views


def is_whole(model: Any) -> bool:
    """Whether all of a `LoggedModel` was recorded."""
    return str(model.status) == "READY"


class RunReader(ABC):
    """Finds the runs of one experiment."""

    uri: str
    experiment: str
    artifact_root: str
    _experiment_id: str  # known once the store was prepared

    @abstractmethod
    def client(self) -> Any:
        """An `mlflow.MlflowClient` on the store."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the store and the experiment where they are missing."""

    def connect(self) -> None:
        """Open the store.

        Raises:
            UserError: it cannot be opened.
        """
        self.client()

    @cached_property
    def move(self) -> Move | None:
        """How the folder of the store was moved since places were noted in it. They are resolved when they are read;
        `prepare` mends them."""
        file = sqlite_file(self.uri)
        return find_move(file, self.artifact_root) if file and file.exists() else None

    def _resolve(self, place: str) -> str:
        """Where a place that the store names is now."""
        return self.move.resolve(place) if self.move else place

    @abstractmethod
    def _repository(self, place: str) -> Any:
        """MLflow's access to a place of artifacts that the store names, wherever it is now."""

    def _run_repository(self, run_id: str) -> Any:
        """`_repository` of a run's artifacts."""
        return self._repository(self.client().get_run(run_id).info.artifact_uri)

    def view_links(self, address: str) -> dict[str, str]:
        """URLs of the experiment's views by their names, on MLflow's UI at `address`; missing views are added."""
        self.prepare()
        experiment = self.find_experiment()
        swept = swept_keys(run.tags for run in self.sweeps(NEWEST))
        for key, value in missing_tags(experiment.tags, swept).items():
            self.client().set_experiment_tag(experiment.experiment_id, key, value)
        return view_links(address, experiment.experiment_id)

    def run_link(self, run_id: str) -> str:
        """The address of a run inside MLflow's UI, for notes."""
        self.prepare()
        return f"#/experiments/{self._experiment_id}/runs/{run_id}"

    def find_experiment(self) -> Any:
        """The experiment, or None before it is made.

        Raises:
            UserError: it was deleted.
        """
        found = self.client().get_experiment_by_name(self.experiment)
        if found and found.lifecycle_stage == "deleted":
            raise UserError(
                f"tracking.experiment={self.experiment}: was deleted; choose another name, or restore it: "
                f"mlflow experiments restore --experiment-id {found.experiment_id}"
            )
        return found

    def ui_command(self) -> list[str]:
        """The command that serves MLflow's UI on this store, to this machine only."""
        store = ["--backend-store-uri", self.uri, "--default-artifact-root", self.artifact_root]
        address = ["--host", "127.0.0.1", "--port", "5000", "--workers", "1"]
        return [sys.executable, "-m", "mlflow", "ui", *store, *address]

    def find_run(self, text: str) -> RunInfo:
        """The run that `text` means: a run id, a prefix that only one has, `latest`, or one of MLflow's addresses.

        `latest` is the run that finished last, parents of sweeps and reproductions left out. The addresses are
        `runs:/RUN` with or without a path, that of a run's page in the UI, and `models:/...`, see `run_of_version`;
        these runs may be of other experiments. A job of a sweep for which a finished run was taken leads to that run.

        Raises:
            UserError: there is none, or several.
        """
        found = self._find(text)
        origin = found.tags.get(REUSED_FROM)
        return self._find(origin) if origin else found

    def _find(self, text: str) -> RunInfo:
        if text.startswith(SCHEME):
            return self.get_run(run_of_version(self.client(), text))
        address = re.fullmatch(r"runs:/+([0-9a-f]{1,32})(?:/.*)?|\S*#/experiments/\d+/runs/([0-9a-f]{32})\S*", text)
        if address:
            return self._of_any_experiment(address[1] or address[2])
        if text == "latest":
            finished = self._search("attributes.status = 'FINISHED'", "attributes.end_time DESC")
            own = (run for run in finished if PARENT_TAG not in run.tags.items() and "reproduces" not in run.tags)
            found = list(islice(own, 1))
        elif re.fullmatch(r"[0-9a-f]{1,32}", text):
            found = list(islice(self._search(f"attributes.run_id LIKE '{text}%'"), 4))
        else:
            wanted = "give a run id, the beginning of one, `latest`, runs:/RUN or models:/NAME@best"
            raise UserError(f"{text}: not a run; {wanted}")
        if len(found) > 1:
            ids = ", ".join(run.run_id[: len(text) + 4] for run in found[:3])
            raise UserError(f"{text}: several runs begin like this ({ids}, ...); give more of the run id")
        if not found:
            place = f"tracking.experiment={self.experiment} of tracking.uri={redact(self.uri)}"
            raise UserError(f"{text}: no {'finished' if text == 'latest' else 'such'} run in {place}")
        return found[0]

    def _of_any_experiment(self, run_id: str) -> RunInfo:
        try:
            return self.get_run(run_id)
        except Exception:  # of MLflow: a prefix, or not there, or the store does not answer
            return self.find_run(run_id)

    def get_run(self, run_id: str) -> RunInfo:
        """The run with this id, of any experiment."""
        return RunInfo.from_mlflow(self.client().get_run(run_id), self._resolve)

    def find_logged_model(self, run_id: str) -> Any:
        """The `LoggedModel` that a run recorded, whole; of several the newest; None where there is none."""
        whole = [model for model in self.logged_models(run_id) if is_whole(model)]
        return max(whole, key=lambda model: model.creation_timestamp, default=None)

    def logged_models(self, run_id: str) -> list[Any]:
        """Every `LoggedModel` of a run that was not deleted, also what a kill left half recorded."""
        experiment_id = self.client().get_run(run_id).info.experiment_id
        return list(self._search_models(experiment_id, f"source_run_id = {_quoted(run_id)}"))

    def runs_without_whole_model(self) -> list[str]:
        """The ids of the runs that began to record a model, and of which no model is whole."""
        found: dict[str, bool] = {}
        experiment = self.find_experiment()
        for model in self._search_models(experiment.experiment_id, None) if experiment else ():
            found[model.source_run_id] = found.get(model.source_run_id, False) or is_whole(model)
        return [run_id for run_id, whole in found.items() if run_id and not whole]

    def _search_models(self, experiment_id: str, condition: str | None) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = self.client().search_logged_models([experiment_id], condition, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def place(self, run_id: str, path: str) -> tuple[str, str, str]:
        """Where an artifact lies by the store: a URI, the name of its model or "", and the path under the URI."""
        first, _, rest = path.partition("/")
        if first == MODEL and (model := self.find_logged_model(run_id)):  # MLflow 3 keeps models apart from the rest
            return model.artifact_location, first, rest
        return self.client().get_run(run_id).info.artifact_uri, "", path

    def find_runs(
        self, tags: Mapping[str, str] | None = None, status: str | None = None, limit: int | None = None
    ) -> list[RunInfo]:
        """The runs with all these tags and this status, the newest first, `limit` of them at most."""
        conditions = [f"tags.`{key}` = {_quoted(value)}" for key, value in (tags or {}).items()]
        if status is not None:
            conditions.append(f"attributes.status = {_quoted(status)}")
        return list(islice(self._search(" AND ".join(conditions)), limit))

    def history(self, run_id: str, name: str) -> list[tuple[int, float]]:
        """Step and value of every point of a figure, in the order of the steps; of several at a step the last."""
        for spelling in spellings(name):
            if points := self.client().get_metric_history(run_id, spelling):
                return sorted({point.step: point.value for point in points}.items())
        return []

    def artifacts(self, run_id: str, folder: str) -> list[str]:
        """The paths of the files in a folder of the run's artifacts."""
        return [file.path for file in self._run_repository(run_id).list_artifacts(folder)]

    def children(self, parent_run_id: str) -> list[RunInfo]:
        """The runs of a sweep in the order in which they were created."""
        return self.find_runs({"mlflow.parentRunId": parent_run_id})[::-1]

    def sweeps(self, limit: int) -> list[RunInfo]:
        """The parent runs of sweeps, the newest first."""
        return self.find_runs(dict([PARENT_TAG]), limit=limit)

    def add_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Add figures to a closed run; a character that MLflow does not take in a name becomes `_`.

        Raises:
            RunError: the store does not take them.
        """
        with self._adding(run_id):
            for name, value in metrics.items():
                self.client().log_metric(run_id, storable_name(name), value, step=0)

    def add_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Add tags to a closed run; one that is there already is replaced.

        Raises:
            RunError: the store does not take them.
        """
        with self._adding(run_id):
            for name, value in tags.items():
                self.client().set_tag(run_id, name, value)

    def add_artifact(self, run_id: str, path: Path | str, folder: str | None = None) -> None:
        """Add a file to a closed run.

        Raises:
            RunError: the store, or the place of its files, does not take it.
        """
        with self._adding(run_id):
            self.prepare()  # mends where it lies
            self._run_repository(run_id).log_artifact(str(path), folder)

    @contextmanager
    def _adding(self, run_id: str) -> Iterator[None]:
        """What is added is the end of some work, which is done: where it is refused, that is no mistake of the line."""
        try:
            yield
        except UserError as error:
            raise RunError(str(error)) from error
        except Exception as error:  # of MLflow, a database driver, the network, the file system
            if fault_of(error) is None:
                raise RunError(f"run {run_id}: takes nothing more in the store: {reason(error)}") from error
            raise RunError(described(error, self.uri, self.experiment, "write to")) from error

    def _search(self, condition: str, order: str = "attributes.start_time DESC") -> Iterator[RunInfo]:
        experiment = self.client().get_experiment_by_name(self.experiment)
        where = {"filter_string": condition, "order_by": [order], "max_results": RUNS_PER_PAGE}
        page = None
        while experiment and (page is None or page.token):
            after = page.token if page else None
            page = self.client().search_runs([experiment.experiment_id], page_token=after, **where)
            yield from (RunInfo.from_mlflow(run, self._resolve) for run in page)


def _quoted(value: str) -> str:
    mark = '"' if "'" in value else "'"
    if mark in value:
        raise UserError(f"{value}: a tag with both kinds of quotation marks cannot be searched for")
    return f"{mark}{value}{mark}"


def logged_steps(client: Any, run: RunInfo) -> set[tuple[str, int]]:
    """Name and step of each figure that a run has; `client` is an `mlflow.MlflowClient`."""
    names = [spelling for name in run.metrics for spelling in spellings(name)]
    figures = (figure for name in names for figure in client.get_metric_history(run.run_id, name))
    return {(current(figure.key), figure.step) for figure in figures}
