"""A recorded model outside of cnnexp: served over HTTP, as an MLflow function, and as a plain Keras file."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from cnnexp.tracking.mlflow import Tracker

pytestmark = [pytest.mark.trains, pytest.mark.long]
CLASSES = ("cat", "cow", "dog")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    from cnnexp.data.opencv import cv2

    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, (5, 40, 30, 3), dtype=np.uint8)
    for number, picture in enumerate(noise):
        assert cv2.imwrite(str(folder / f"{number}.png"), picture)
    return [str(folder / f"{number}.png") for number in range(5)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """A store with one run, whose model was never trained."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((24, 24, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(keras.layers.Rescaling(1 / 255)(image))
    output = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    root = tmp_path_factory.mktemp("serving")
    tracker = Tracker(f"sqlite:///{root}/mlflow.db", "cnnexp", str(root / "mlartifacts"))
    tracker.start_run("tiny", {}, {})
    tracker.log_model(keras.Model(image, output), np.zeros((1, 24, 24, 3), np.uint8), CLASSES)
    tracker.end_run("FINISHED")
    return tracker


def test_served_loaded_and_predicted_agree(
    store: Tracker,
    pictures: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import keras
    import mlflow.pyfunc

    from cnnexp.cli import main
    from cnnexp.data.images import read_square

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    run_id = store.find_run("latest").run_id
    assert main(["predict", run_id, *pictures, "--json", f"tracking.uri={store.uri}", f"paths.root={tmp_path}"]) == 0
    expected = [list(row["probabilities"].values()) for row in json.loads(capfd.readouterr().out)]
    images = np.stack([read_square(picture, 24) for picture in pictures])
    assert images.dtype == np.uint8
    loaded = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    np.testing.assert_allclose(loaded.predict(images), expected, atol=1e-5)
    file = store.download(run_id, "model", tmp_path) / "data" / "model.keras"
    plain = keras.saving.load_model(file)
    np.testing.assert_allclose(plain.predict(images, verbose=0), expected, atol=1e-5)
    served = _served(f"runs:/{run_id}/model", images, tmp_path / "log")
    np.testing.assert_allclose(served, expected, atol=1e-5)


def _served(model: str, images: np.ndarray, log: Path) -> list[list[float]]:
    """What `mlflow models serve`, started as the README says, answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = str(Path(sys.executable).parent)  # the server runs programs of the environment by their names
    command = [f"{folder}/mlflow", "models", "serve", "-m", model, "--env-manager", "local", "-p", str(port)]
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    with open(log, "wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    try:
        return _ask(f"http://127.0.0.1:{port}/invocations", images, server, log)
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=60)


def _ask(url: str, images: np.ndarray, server: subprocess.Popen[bytes], log: Path) -> list[list[float]]:
    body = json.dumps({"inputs": images.tolist()}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + 300
    while True:
        try:
            with direct.open(request, timeout=60) as answer:
                predictions: list[list[float]] = json.load(answer)["predictions"]
                return predictions
        except (ConnectionError, urllib.error.URLError):
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.5)
