"""The tracker that a config names."""

from cnnexp.config import Config
from cnnexp.tracking.mlflow import NullTracker, Tracker


def open_tracker(config: Config) -> Tracker | NullTracker:
    """A tracker on `tracking.uri`, or the null tracker; nothing is opened or written yet."""
    if config.tracking.uri is None:
        return NullTracker()
    return Tracker(config.tracking.uri, config.tracking.experiment, config.tracking.artifact_root)
