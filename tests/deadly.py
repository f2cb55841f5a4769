"""A data set that kills the process which asks for it while a file says so, as memory that runs out would."""

import os
import signal
from pathlib import Path
from typing import Any

from cnnexp.data.dataset import Dataset
from cnnexp.data.sources import synthetic


def pictures(path: str, deadly_file: str, **more: Any) -> Dataset:
    """A few drawn pictures in `path`, for those who survive."""
    if Path(deadly_file).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return synthetic(path=path, train=8, validation=4, test=4, size=32, seed=0)
