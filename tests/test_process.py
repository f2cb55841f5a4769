"""What the machine says has no effect on a training, or does not end it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cnnexp

AS_DELIVERED = """
from cnnexp.process import import_tensorflow, quiet_libraries
quiet_libraries()
import_tensorflow()
import keras
layer, home = keras.layers.Conv2D(1, 1), keras.src.backend.config.keras_home()
found = [keras.config.floatx(), keras.config.epsilon(), layer.data_format, layer.dtype_policy.name]
print([*found, keras.config.backend(), keras.config.max_epochs(), home])
"""
HOMELESS = """
import os, stat, warnings
from pathlib import Path
from unittest import mock
from cnnexp import process
with mock.patch("os.path.expanduser", lambda path: path):
    process.quiet_libraries()
warnings.warn("old", DeprecationWarning)
warnings.warn("odd", RuntimeWarning)
home = Path.home()
print(home.parent, oct(stat.S_IMODE(home.stat().st_mode)), bool(os.environ["USER"]), "PYTHONWARNINGS" in os.environ)
"""


THREADS = """
from cnnexp.process import quiet_libraries
quiet_libraries()
import numpy
from threadpoolctl import threadpool_info
print({library["num_threads"] for library in threadpool_info() if library["internal_api"] == "openblas"})
"""


def python(code: str, **environment: str) -> str:
    root = str(Path(cnnexp.__file__).parents[1])
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": root, "HOME": os.environ.get("HOME", "/"), **environment}
    return subprocess.run([sys.executable, "-c", code], env=known, text=True, stdout=-1, check=True).stdout.strip()


@pytest.mark.slow
def test_keras_own_settings_have_no_effect(tmp_path: Path) -> None:
    said = {"floatx": "float16", "epsilon": 1, "image_data_format": "channels_first", "backend": "torch"}
    (tmp_path / "keras.json").write_text(json.dumps(said))  # TensorFlow itself refuses an epsilon that is an integer
    found = python(AS_DELIVERED, KERAS_HOME=str(tmp_path), KERAS_BACKEND="jax", KERAS_MAX_EPOCHS="1")
    assert found == str(["float32", 1e-7, "channels_last", "float32", "tensorflow", None, str(tmp_path)])
    assert json.loads((tmp_path / "keras.json").read_text()) == said


OWN = """
import sys
{}
def data(**_):
    known = sys.modules.get("keras")
    print(sorted(set(sys.modules) & {{"keras", "tensorflow"}}), known and known.config.floatx())
    print("of one's own", file=sys.stderr)
    sys.exit(3)
"""
LOADED = "['keras', 'tensorflow'] float32"


@pytest.mark.parametrize(
    ("first", "found"),
    [
        pytest.param("import keras", LOADED, marks=pytest.mark.slow),
        pytest.param("from tensorflow.keras import layers\nimport keras", LOADED, marks=pytest.mark.slow),
        ("import importlib.util\nassert importlib.util.find_spec('keras') is not None", "[] None"),
    ],
    ids=["keras", "tensorflow", "neither"],
)
def test_a_module_of_ones_own_imports_tensorflow_as_we_do(tmp_path: Path, first: str, found: str) -> None:
    """Quiet, and without the settings of Keras; only where it imports it."""
    (tmp_path / "at_the_top.py").write_text(OWN.format(first))
    (tmp_path / "keras.json").write_text('{"floatx": "float16"}')
    given = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "OPENCV_", "KERAS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "cnnexp.cli", "prepare", "custom", "dataset._target_=at_the_top.data"],
        env=given | {"KERAS_HOME": str(tmp_path), "PYTHONPATH": f"{Path(cnnexp.__file__).parents[1]}:{tmp_path}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.strip()) == (3, found), done.stderr
    assert done.stderr == "of one's own\n"


def test_no_home_and_warnings_as_errors(tmp_path: Path) -> None:
    found = python(HOMELESS, TMPDIR=str(tmp_path), PYTHONWARNINGS="error")
    assert found == f"{tmp_path} 0o700 True False"


def test_numpy_takes_one_thread_unless_the_user_says_otherwise() -> None:
    assert python(THREADS) == "{1}"
    assert python(THREADS, OPENBLAS_NUM_THREADS="2") == f"{{{min(2, os.cpu_count() or 1)}}}"
