"""What every process of ours does first, whether a command or a job of a sweep: quiet libraries, then TensorFlow."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

# What a decoder of images may allocate: half a GiB of 24-bit RGB. Pillow refuses the same number
# (twice its MAX_IMAGE_PIXELS).
MOST_PIXELS = 178_956_970
COMMAND = "CNNEXP_COMMAND"  # environment: the `identity` of the command that a launcher's process works for
LOOK_S = 0.5  # between two looks whether the command is still there
GRACE_S = 5.0  # for closing what a worker was at, when it is not


def quiet_libraries() -> None:
    """Keep notes on CUDA, oneDNN, telemetry and git off the console, and NumPy's products in one thread; what the user
    has set stays. From here on TensorFlow, Keras and OpenCV are imported as we do it, whoever imports them.

    Those of resamples are so small that threads of OpenBLAS wait for each other longer than they compute, most of all
    beside another command.
    """
    quiet = {
        "OPENBLAS_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    _let_warnings_be_warnings()
    _find_home()
    limit_opencv()
    _watch_imports()


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


def identity() -> str:
    """What tells this process from every other of this machine, also a later one with its number: `NUMBER-START`."""
    return f"{os.getpid()}-{_facts(os.getpid())[1]}"


def lives(process: str) -> bool:
    """Whether the process with this `identity` is still at work."""
    number, _, start = process.partition("-")
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        pass
    state, today = _facts(int(number))
    return state != "Z" and (not start or today in ("", start))


def _facts(number: int) -> tuple[str, str]:
    """State and start, in ticks since the machine's, of a process; "" where the system does not tell (proc(5))."""
    with suppress(OSError, IndexError):
        facts = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return facts[0], facts[19]
    return "", ""


def lead() -> None:
    """In a command: the processes that launchers start from here on are to end with it, see `begin_worker`."""
    os.environ[COMMAND] = identity()


def begin_worker() -> None:
    """In a process that works for a command: it ends when the command does, however that ends.

    What it was at is closed as after control-C, which SIGTERM means here from now on, too.
    """
    signal.signal(signal.SIGTERM, interrupt)
    command, parent = os.environ.get(COMMAND, ""), multiprocessing.parent_process()
    if not any(thread.name == COMMAND for thread in threading.enumerate()):
        threading.Thread(target=_end_with, args=(command, parent), name=COMMAND, daemon=True).start()


def is_orphan() -> bool:
    """Whether the command that this process works for is no more: what its own processes came to is no failure then."""
    command = os.environ.get(COMMAND)
    return bool(command) and not lives(str(command))


def _end_with(command: str, parent: multiprocessing.process.BaseProcess | None) -> None:
    while (not command or lives(command)) and _is_there(parent):
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(130)


def _is_there(parent: multiprocessing.process.BaseProcess | None) -> bool:
    try:
        return parent is None or parent.is_alive()
    except (TypeError, ValueError, OSError):  # joblib's processes cannot tell
        return True


def die_with_parent() -> None:
    """In a process that has nothing to close: the system ends it where its parent is no more (Linux, prctl(2)).

    What it forks is not ended so: see `begin_worker`.
    """
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if is_orphan():  # it was too late for the signal
        os._exit(1)


def guarded(command: list[str]) -> list[str]:
    """The line of a process that runs `command`, in a session of its own, and ends it and all that it started when its
    own standard input ends: hand it a pipe, and it does not outlive you, however you end."""
    return [sys.executable, "-m", "cnnexp.process", *command]


def _guard(command: list[str]) -> int:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), lambda number, frame: None)  # not SIG_IGN, which would be inherited
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_at_end_of_input, args=(server.pid,), daemon=True).start()
    code = server.wait()
    _end_group(server.pid)
    return code if code >= 0 else 128 - code


def _end_at_end_of_input(group: int) -> None:
    while os.read(0, 4096):  # and not `sys.stdin`, whose lock would be held at the end of the process
        pass
    _end_group(group)


def _end_group(group: int) -> None:
    """SIGTERM, and after GRACE_S seconds SIGKILL to what is left of a group of processes."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        until = time.monotonic() + GRACE_S
        while time.monotonic() < until:
            os.killpg(group, 0)  # raises when none is left
            time.sleep(0.1)
        os.killpg(group, signal.SIGKILL)


def interrupt(number: int, frame: FrameType | None) -> None:
    """What a SIGTERM does: the same as control-C."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def import_tensorflow() -> None:
    """Import TensorFlow and Keras, as `_as_delivered`."""
    if "keras" not in sys.modules:
        with _held_back(), _as_delivered():
            import_module("tensorflow")
            import_module("keras")


class _Watch:
    """Whoever imports TensorFlow or Keras first, as a module of the user's own at its top: it is done as by
    `import_tensorflow`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Of the two alone; many only ask whether they are there."""
        if fullname not in ("tensorflow", "keras"):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            loader, real = spec.loader, spec.loader.exec_module

            def execute(module: ModuleType) -> None:
                vars(loader).pop("exec_module")
                with _held_back(), _as_delivered():
                    if fullname == "keras":
                        import_module("tensorflow")
                    real(module)
                    import_module("keras")

            vars(loader)["exec_module"] = execute
        return spec


def _watch_imports() -> None:
    if not {"tensorflow", "keras"} & set(sys.modules) and not any(isinstance(one, _Watch) for one in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


@contextmanager
def _held_back() -> Iterator[None]:
    """The standard error is held back; it is shown if what is done in the meantime fails."""
    import tempfile  # with the console a tenth of a second, which `--help` need not wait for

    from cnnexp.console import stdout

    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held, stdout().status("starting TensorFlow"):
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def _as_delivered() -> Iterator[None]:
    """For the import of TensorFlow and Keras, without the settings file and the variables of Keras: the config decides
    alone.

    Both read `keras.json` (floatx, epsilon, image_data_format, backend) while they are imported, and Keras makes it.
    """
    import tempfile

    sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, _Watch)]
    limit_opencv()  # which Keras imports as well
    home = os.environ.get("KERAS_HOME")
    with tempfile.TemporaryDirectory() as empty:
        for name in [name for name in os.environ if name.startswith("KERAS_")]:  # of epochs and steps, too
            del os.environ[name]
        os.environ.update(KERAS_HOME=empty, KERAS_BACKEND="tensorflow")
        yield
    del os.environ["KERAS_HOME"]
    folder = home or os.path.join(os.path.expanduser("~"), ".keras")
    if home:
        os.environ["KERAS_HOME"] = home  # for the processes of a sweep
    settings: Any = import_module("keras.src.backend.config")
    settings._KERAS_DIR = folder  # where weights that were downloaded lie


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1:]))
