"""MNIST in a file: Keras' mnist.npz."""

import io
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np

from cnnexp.errors import UserError
from cnnexp.files import FileRefusedError, read_file

MOST_BYTES = 2**30  # of the file, and of what is in it; MNIST has 55 million
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def read_mnist(path: Path) -> tuple[np.ndarray, ...]:
    """The arrays of Keras' mnist.npz: x (N, 28, 28) uint8 and y (N,) int64 to train, then to test.

    Raises:
        UserError: the file is missing, or another.
    """
    try:
        content = io.BytesIO(read_file(path, MOST_BYTES))
        if sum(member.file_size for member in ZipFile(content).infolist()) > MOST_BYTES:
            raise ValueError(f"it holds more than {MOST_BYTES:,} bytes")
        content.seek(0)
        with np.load(content) as file:
            x_train, y_train, x_test, y_test = (file[key] for key in ARRAYS)
        for x, y in ((x_train, y_train), (x_test, y_test)):
            if x.shape != (len(y), 28, 28) or x.dtype != np.uint8 or np.unique(y).tolist() != list(range(10)):
                raise ValueError(f"x {x.shape} {x.dtype}, y {y.shape}, not (N, 28, 28) uint8, (N,) 0-9")
    except FileRefusedError as error:
        raise UserError(f"dataset.path={path}: {error.strerror}; give Keras' mnist.npz") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, NotImplementedError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        raise UserError(
            f"dataset.path={path}: is not Keras' mnist.npz with {', '.join(ARRAYS)}: {reason}; give "
            "that file, or dataset.path=null to download it"
        ) from error
    return x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64)
