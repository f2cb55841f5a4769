"""MNIST in a file: Keras' mnist.npz."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from cnnexp.errors import UserError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def read_mnist(path: Path) -> tuple[np.ndarray, ...]:
    """The arrays of Keras' mnist.npz: x (N, 28, 28) uint8 and y (N,) int64 to train, then to test.

    Raises:
        UserError: the file is missing, or another.
    """
    try:
        with np.load(path) as file:
            x_train, y_train, x_test, y_test = (file[key] for key in ARRAYS)
        for x, y in ((x_train, y_train), (x_test, y_test)):
            if x.shape != (len(y), 28, 28) or x.dtype != np.uint8 or np.unique(y).tolist() != list(range(10)):
                raise ValueError(f"x {x.shape} {x.dtype}, y {y.shape}, not (N, 28, 28) uint8, (N,) 0-9")
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        raise UserError(
            f"dataset.path={path}: is not Keras' mnist.npz with {', '.join(ARRAYS)}: {reason}; give "
            "that file, or dataset.path=null to download it"
        ) from error
    return x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64)
