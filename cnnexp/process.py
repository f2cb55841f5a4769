"""What every process of ours does first, whether a command or a job of a sweep."""

import os
import signal
from types import FrameType


def quiet_libraries() -> None:
    """Keep notes on CUDA, oneDNN, telemetry and git off the console; what the user has set stays."""
    quiet = {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)


def begin_ray_worker() -> None:
    """In a process of a Ray cluster: go to the folder of the command, from which relative paths count."""
    quiet_libraries()
    os.chdir(os.environ["CNNEXP_FOLDER"])


def interrupt(number: int, frame: FrameType | None) -> None:
    """What a SIGTERM does: the same as control-C."""
    raise KeyboardInterrupt(signal.Signals(number).name)
