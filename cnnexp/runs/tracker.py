"""The store that a config names."""

import os

from cnnexp.config.training import TrackingConfig
from cnnexp.console import redact, say, warn_once
from cnnexp.tracking.mlflow import Tracker
from cnnexp.tracking.null import NullTracker
from cnnexp.tracking.protocols import RunStore, RunTracker


def open_tracker(tracking: TrackingConfig) -> RunTracker:
    """A tracker on `tracking.uri`, or the null tracker; nothing is opened or written yet."""
    if tracking.uri is None:
        return NullTracker()
    _say_what_is_overridden(tracking)
    return Tracker(tracking.uri, tracking.experiment, tracking.artifact_root)


def _say_what_is_overridden(tracking: TrackingConfig) -> None:
    """MLflow's own variables choose nothing here; whoever has set them to something else is told."""
    for variable, key in (("MLFLOW_TRACKING_URI", "uri"), ("MLFLOW_EXPERIMENT_NAME", "experiment")):
        given, used = os.environ.get(variable), getattr(tracking, key)
        if given and given != used:
            warn_once(
                f"cnnexp: {variable}={redact(given)} is overridden by tracking.{key}={redact(used)}; "
                f'tracking.{key}="${variable}" uses it'
            )
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        warn_once(
            f"cnnexp: MLFLOW_RUN_ID={run_id} is overridden: each run has an id of its own; trainer.resume=true goes on "
            "with one"
        )


def register_model(tracker: RunStore, run_id: str, name: str) -> str:
    """Register the model of a run as a new version of `name`, say so, and return `models:/NAME/VERSION`.

    Raises:
        UserError: the run recorded no model, or the registry refuses it.
    """
    entry = tracker.register(run_id, name)
    say(f"registered {entry.name} version {entry.version}: {entry.uri} (run {run_id})")
    say(entry.best)
    return entry.uri
