"""What every process of ours does first, whether a command or a job of a sweep: quiet libraries, then TensorFlow."""

import os
import signal
import sys
import warnings
from importlib import import_module
from types import FrameType
from typing import Any

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
    _let_warnings_be_warnings()
    _find_home()


def _let_warnings_be_warnings() -> None:
    """`PYTHONWARNINGS=error` is for the tests of one's own code; libraries warn of what works."""
    if any(option.startswith("error") for option in sys.warnoptions):
        warnings.filters[:] = [kept for kept in warnings.filters if kept[0] != "error"]  # type: ignore[index]
        warnings.simplefilter("ignore", DeprecationWarning, append=True)  # and what was kept counts from here on
        os.environ.pop("PYTHONWARNINGS", None)


def _find_home() -> None:
    """Where the system knows neither HOME nor the user, as in a container: a folder and a name in their place."""
    if os.path.expanduser("~") != "~":
        return
    import tempfile

    home = os.path.join(tempfile.gettempdir(), f"cnnexp-home-{os.getuid()}")
    try:
        os.mkdir(home, 0o700)
    except FileExistsError:
        if os.path.islink(home) or os.stat(home).st_uid != os.getuid():  # somebody else says what is read there
            home = tempfile.mkdtemp(prefix="cnnexp-home-")
    os.environ["HOME"] = home
    os.environ.setdefault("USER", f"uid-{os.getuid()}")


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
            _import_as_delivered()
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _import_as_delivered() -> None:
    """Import TensorFlow and Keras without the settings file and the variables of Keras: the config decides alone.

    Both read `keras.json` (floatx, epsilon, image_data_format, backend) while they are imported, and Keras makes it.
    """
    import tempfile

    home = os.environ.get("KERAS_HOME")
    with tempfile.TemporaryDirectory() as empty:
        for name in [name for name in os.environ if name.startswith("KERAS_")]:  # of epochs and steps, too
            del os.environ[name]
        os.environ.update(KERAS_HOME=empty, KERAS_BACKEND="tensorflow")
        import_module("tensorflow")
        import_module("keras")
    del os.environ["KERAS_HOME"]
    folder = home or os.path.join(os.path.expanduser("~"), ".keras")
    if home:
        os.environ["KERAS_HOME"] = home  # for the processes of a sweep
    settings: Any = import_module("keras.src.backend.config")
    settings._KERAS_DIR = folder  # where weights that were downloaded lie
