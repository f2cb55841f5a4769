"""What every process of ours does first, whether a command or a job of a sweep: quiet libraries, then TensorFlow."""

import os
import signal
import sys
from importlib import import_module
from types import FrameType

# What a decoder of images may allocate: half a GiB of 24-bit RGB. Pillow refuses the same number
# (twice its MAX_IMAGE_PIXELS).
MOST_PIXELS = 178_956_970


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


def limit_opencv() -> None:
    """Before OpenCV is imported, which reads these variables then: what it may allocate, and that it is quiet.

    A file of some kB may say that it has billions of pixels; OpenCV asks before it allocates. A file that cannot be
    decoded becomes an ImageError of ours; OpenCV's own lines about it would only repeat that.
    """
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MOST_PIXELS))
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # the function for it changed its name twice


def begin_ray_worker() -> None:
    """In a process of a Ray cluster: go to the folder of the command, from which relative paths count."""
    quiet_libraries()
    os.chdir(os.environ["CNNEXP_FOLDER"])


def interrupt(number: int, frame: FrameType | None) -> None:
    """What a SIGTERM does: the same as control-C."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def import_tensorflow() -> None:
    """Import TensorFlow and Keras with the standard error held back; it is shown if the import fails."""
    if "keras" in sys.modules:
        return
    import tempfile  # with the console a tenth of a second, which `--help` need not wait for

    from cnnexp.console import stdout

    limit_opencv()  # which Keras imports as well
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
