"""Imports TensorFlow without its notes on CUDA and oneDNN, which it writes before its own log level counts."""

import os
import sys
import tempfile
from importlib import import_module

from cnnexp.console import stdout


def import_tensorflow() -> None:
    """Import TensorFlow and Keras with the standard error held back; it is shown if the import fails."""
    if "keras" in sys.modules:
        return
    import_module("cnnexp.data.opencv")  # sets OpenCV up, which Keras imports as well
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held, stdout().status("starting TensorFlow"):
        os.dup2(held.fileno(), 2)
        try:
            import_module("tensorflow")
            import_module("keras")
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
