"""The model registry: numbered versions of a named model, the best of which carries the alias `best`.

Which version is the best is decided by its monitored figure, `trainer.monitor`, never by the test images.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnnexp.console import redact
from cnnexp.errors import UserError, first_line
from cnnexp.formats import number
from cnnexp.metrics.names import FINAL_VAL_ACC, TEST_ACC, VAL_ACC, final, is_better, rises
from cnnexp.tracking.record import MAX_VALUE

if TYPE_CHECKING:
    from cnnexp.tracking.info import RunInfo

ALIAS = "best"
SCHEME = "models:/"
VERSIONS_TAG = "mlflow.modelVersions"  # of a logged model, by which MLflow's UI leads to its registered versions
MONITOR, MONITORED = "monitor", "monitored"  # of a version that was not chosen by its validation accuracy
KEPT_TAGS = ("overrides", "config_hash", "data_digest", "sweep_id", "git_commit")


@dataclass(frozen=True)
class Registered:
    """A new version of a registered model; `best` says which version has the alias now, and why."""

    name: str
    version: str
    best: str

    @property
    def uri(self) -> str:
        """What `mlflow.pyfunc.load_model` and `cnnexp predict` take."""
        return f"{SCHEME}{self.name}/{self.version}"


def best_run(runs: Iterable["RunInfo"], monitor: str) -> "RunInfo | None":
    """The finished run whose figure `monitor` is the best, the first of equals; None where there is none."""
    figures = [(run, run.metrics.get(final(monitor), math.nan)) for run in runs if run.status == "FINISHED"]
    finite = [(run, figure if rises(monitor) else -figure) for run, figure in figures if math.isfinite(figure)]
    return max(finite, key=lambda one: one[1], default=(None, 0.0))[0]


def register(client: Any, run: "RunInfo", model: Any, name: str) -> Registered:
    """Make a logged model the next version of `name`, and move the alias to it if it is better.

    Better means a better figure `trainer.monitor` on the same data set than the version that has the alias, which was
    chosen by the same figure.

    Args:
        client: an `mlflow.MlflowClient`.
        run: the run that recorded the model.
        model: its `LoggedModel`, or None.
        name: of the registered model, which is made where it is missing.

    Raises:
        UserError: there is no model, or the registry refuses it.
    """
    if model is None:
        raise UserError(f"tracking.register={name}: run {run.run_id} recorded no model")
    try:
        return _register(client, run, model, name)
    except Exception as error:  # of MLflow, the database, the network
        said = redact(first_line(error))
        raise UserError(f"tracking.register={name}: run {run.run_id}: {said}") from error


def _register(client: Any, run: "RunInfo", model: Any, name: str) -> Registered:
    _make(client, name)
    tags = {key: run.tags[key][:MAX_VALUE] for key in KEPT_TAGS if run.tags.get(key)} | {"run_name": run.name}
    for key, metric in (("val_acc", FINAL_VAL_ACC), ("test_acc", TEST_ACC)):
        if metric in run.metrics:
            tags[key] = repr(run.metrics[metric])
    monitor = run.params.get("trainer.monitor", VAL_ACC)
    if monitor != VAL_ACC:
        tags |= {MONITOR: monitor, MONITORED: repr(run.metrics.get(final(monitor), math.nan))}
    holder = _holder(client, name)
    version = client.create_model_version(
        name, model.artifact_location, run.run_id, tags, description=_description(run), model_id=model.model_id
    ).version
    listed = [*json.loads(model.tags.get(VERSIONS_TAG, "[]")), {"name": name, "version": str(version)}]
    client.set_logged_model_tags(model.model_id, {VERSIONS_TAG: json.dumps(listed)})
    moved, reason = _better(tags, holder)
    if moved:
        client.set_registered_model_alias(name, ALIAS, str(version))
    return Registered(name, str(version), f"{SCHEME}{name}@{ALIAS} {reason}")


def run_of_version(client: Any, text: str) -> str:
    """The run id behind `models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/NAME/latest` or `models:/MODEL_ID`.

    Raises:
        UserError: there is no such model, version or alias.
    """
    parts = re.fullmatch(re.escape(SCHEME) + r"([^/@]+)(?:/(\d+|latest)|@([\w-]+))?", text)
    if not parts or not (parts[2] or parts[3] or parts[1].startswith("m-")):
        raise UserError(f"{text}: not a model; write models:/NAME/VERSION or models:/NAME@{ALIAS}")
    name, version, alias = parts.groups()
    try:
        if alias:
            found = client.get_model_version_by_alias(name, alias)
        elif version == "latest":
            newest = max((int(made.version) for made in client.search_model_versions(f"name='{name}'")), default=0)
            found = client.get_model_version(name, str(newest))
        elif version:
            found = client.get_model_version(name, version)
        else:
            return str(client.get_logged_model(name).source_run_id)
    except Exception as error:  # of MLflow or the network
        raise UserError(f"{text}: no such model: {str(error).splitlines()[0]}") from error
    if not found.run_id:
        raise UserError(f"{text}: was registered without a run; register a run's model with tracking.register=NAME")
    return str(found.run_id)


def _make(client: Any, name: str) -> None:
    try:
        client.create_registered_model(name, description="Takes raw RGB images, puts out class probabilities.")
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise


def _holder(client: Any, name: str) -> Any:
    """The version that has the alias."""
    version = client.get_registered_model(name).aliases.get(ALIAS)
    return client.get_model_version(name, version) if version else None


def _better(tags: dict[str, str], holder: Any) -> tuple[bool, str]:
    """Whether the alias moves to the version with these tags, and in words where it is now."""
    monitor, figure = _told_figure(tags)
    if holder is None:
        return True, "is this version, the first"
    same, kept = _told_figure(holder.tags)
    stays = f"stays with version {holder.version}"
    if holder.tags.get("data_digest") != tags.get("data_digest"):
        return False, f"{stays}, which was validated on other data"
    if monitor != same:
        return False, f"{stays}, which was chosen by {same}"
    what = "validation accuracy" if monitor == VAL_ACC else monitor
    if is_better(monitor, figure, kept) or math.isnan(kept):
        return True, f"is this version: {what} {figure:.4f}, version {holder.version} had {kept:.4f}"
    return False, f"{stays}: {what} {kept:.4f}, this version has {figure:.4f}"


def _told_figure(tags: dict[str, str]) -> tuple[str, float]:
    """The name of the figure by which a version is compared, and its value."""
    monitor = tags.get(MONITOR, VAL_ACC)
    found = number(tags.get(MONITORED if MONITOR in tags else "val_acc"), float)
    return monitor, math.nan if found is None else found


def _description(run: "RunInfo") -> str:
    figures = [("Validation accuracy", FINAL_VAL_ACC), ("test accuracy", TEST_ACC)]
    known = [f"{words} {run.metrics[metric]:.4f}" for words, metric in figures if metric in run.metrics]
    return f"`{run.name}`, run {run.run_id}. " + ", ".join(known)
