"""The store that a config names."""

from cnnexp.config.training import TrackingConfig
from cnnexp.console import say
from cnnexp.tracking.mlflow import Tracker
from cnnexp.tracking.null import NullTracker
from cnnexp.tracking.protocols import RunStore, RunTracker


def open_tracker(tracking: TrackingConfig) -> RunTracker:
    """A tracker on `tracking.uri`, or the null tracker; nothing is opened or written yet."""
    if tracking.uri is None:
        return NullTracker()
    return Tracker(tracking.uri, tracking.experiment, tracking.artifact_root)


def register_model(tracker: RunStore, run_id: str, name: str) -> str:
    """Register the model of a run as a new version of `name`, say so, and return `models:/NAME/VERSION`.

    Raises:
        UserError: the run recorded no model, or the registry refuses it.
    """
    entry = tracker.register(run_id, name)
    say(f"registered {entry.name} version {entry.version}: {entry.uri} (run {run_id})")
    say(entry.best)
    return entry.uri
