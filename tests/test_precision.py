"""Mixed precision: what computes in 16 bits and what does not, what a training comes to, and where it is refused."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_trainer import GEOMETRIC, built, cache, data, losses, network, phase, run

from cnnexp.models.build import Network, build_model, layers_with
from cnnexp.models.cnn import convnet
from cnnexp.models.heads import flatten_dense
from cnnexp.training import runtime
from cnnexp.training.features import cut_model, features_key
from cnnexp.training.runtime import check_precision, prepare_tensorflow

pytestmark = pytest.mark.trains

Run = Callable[..., tuple[int, str, str]]
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3)).astype(np.float32)


def half(policy: str = "mixed_float16", dropout: float = 0) -> keras.Model:
    """The network of test_trainer.py, computing in 16 bits."""
    prepare_tensorflow(0, deterministic=False)
    keras.config.set_dtype_policy(policy)
    try:
        return built(dropout, 2)
    finally:
        keras.config.set_dtype_policy("float32")


def small(dtype_policy: str | None) -> Network:
    prepare_tensorflow(0, deterministic=False)
    body, head = lambda image: convnet(image, [4]), lambda features, classes: flatten_dense(features, classes, units=8)
    with layers_with(dtype_policy):
        return build_model((12, 12, 3), 2, body, head, "small")


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_all_but_the_first_and_last_layers_compute_in_it(policy: str) -> None:
    model = small(policy).model
    computed = {layer.name: layer.compute_dtype for layer in model.layers if layer.weights}
    inner = {name: dtype for name, dtype in computed.items() if name != "predictions"}
    assert set(inner.values()) == {policy.removeprefix("mixed_")} and len(inner) == 2
    assert model.get_layer("preprocess_rescale").compute_dtype == computed["predictions"] == model.output.dtype
    assert model.output.dtype == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"  # and no other network's


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_its_probabilities_are_near_those_of_full_precision_and_not_the_same(policy: str) -> None:
    full, given = (small(name).model.predict(IMAGES, verbose=0) for name in ("float32", policy))
    assert 0 < np.abs(full - given).max() < 0.02


def test_features_of_another_precision_are_another_cache_entry() -> None:
    keys = set()
    for policy in ("float32", "mixed_bfloat16"):
        model = small(policy).model
        for layer in model.layers:
            layer.trainable = layer.name == "predictions"
        cut = cut_model(model)
        assert cut is not None
        keys.add(features_key(cut, "digest", 12, "float32"))
    assert len(keys) == 2


# ------------------------------------------------------------------------------------------------ training


def averaged(model: keras.Model, epochs: int = 3, rate: float = 0.01) -> list[Any]:
    return [phase(model, 1, epochs, rate=rate, ema_momentum=0.5, layer_factors={"conv3/kernel": 0.5})]


def test_float16_trains_with_a_scaled_loss_to_near_the_same() -> None:
    results = []
    for model in (half(), network(dropout=0)):
        results.append(run(model, averaged(model), data(GEOMETRIC)))
    found, wanted = results
    assert losses(found) != losses(wanted)
    np.testing.assert_allclose(losses(found), losses(wanted), rtol=0.02)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=0.02)


def test_gradients_too_small_for_float16_train_where_the_loss_is_scaled() -> None:
    """Below 6e-8, the smallest number of float16."""
    images = data().train.images.take(np.arange(4)).astype(np.float32)

    def tiny(labels: Any, probabilities: Any) -> Any:
        return keras.ops.mean(probabilities) * 1e-8

    changed = []
    for scale_loss in (True, False):
        model = half()
        before = model.get_layer("conv2").kernel.numpy()
        optimizer = phase(model).optimizer.build(1, 1, scale_loss=scale_loss)
        model.compile(optimizer=optimizer, loss=tiny, auto_scale_loss=False)
        model.fit(images, np.zeros((4, 1)), batch_size=4, epochs=1, verbose=0)
        changed.append((model.get_layer("conv2").kernel.numpy() != before).any())
    assert changed == [True, False]


def test_a_resumed_training_in_float16_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.npz"

    def stop(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    model = half(dropout=0.5)
    with pytest.raises(KeyboardInterrupt):
        run(model, averaged(model), data(GEOMETRIC), on_epoch=stop, checkpoint=checkpoint)
    model = half(dropout=0.5)
    resumed = run(model, averaged(model), data(GEOMETRIC), resume=True, checkpoint=checkpoint)
    model = half(dropout=0.5)
    unbroken = run(model, averaged(model), data(GEOMETRIC))
    assert losses(resumed) == losses(unbroken)
    np.testing.assert_array_equal(resumed.probabilities, unbroken.probabilities)


def test_cached_features_train_as_images_do(tmp_path: Path) -> None:
    found = []
    for kept in (cache(tmp_path), None):
        model = half("mixed_bfloat16")
        found.append(run(model, [phase(model, 2)], cache=kept))
    np.testing.assert_allclose(losses(found[0]), losses(found[1]), rtol=0.01)


@pytest.mark.long
def test_a_run_in_mixed_precision_is_recorded_explained_and_reproduced(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_processor_flags", lambda: {"amx_bf16"})
    given = ["train", "experiment=demo/finetuned", "dataset=synthetic", "debug=smoke", f"paths.data={drawn_root}"]
    given += ["dataset.image_size=48", "tracking.explain=false"]
    found = []
    for policy in ("float32", "mixed_bfloat16"):  # only the model of the second is read
        kept = f"tracking.log_model={str(policy != 'float32').lower()}"
        code, _, err = cnnexp(*given, f"trainer.dtype_policy={policy}", kept)
        assert code == 0 and not err.strip(), err
        newest = max((tmp_path / "outputs" / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime)
        with (newest / "predictions.csv").open() as file:
            found.append([float(row["p_dog"]) for row in csv.DictReader(file)])
    assert found[0] != found[1]
    photo = next(drawn_root.rglob("*.jpg"))
    for command in (["explain", "latest", str(photo)], ["reproduce", "latest"]):
        code, _, err = cnnexp(*command)
        assert code == 0, err


# ------------------------------------------------------------------------------------------- the processor


def test_float16_is_refused_without_a_gpu(cnnexp: Run) -> None:
    code, _, err = cnnexp("train", "experiment=baseline", "dataset=synthetic", "trainer.dtype_policy=mixed_float16")
    assert code == 2 and len(err.strip().splitlines()) == 1
    assert "trainer.dtype_policy=mixed_float16" in err and "mixed_bfloat16" in err
    check_precision("float32")


@pytest.mark.parametrize(
    ("features", "warned"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16\n", False),
        ("Features\t: fp asimd bf16\n", False),
        ("flags\t: avx2\n", True),
        (None, True),  # not Linux
    ],
)
def test_bfloat16_is_doubted_on_a_processor_without_it(
    features: str | None,
    warned: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(runtime, "CPUINFO", tmp_path / "cpuinfo")
    if features:
        (tmp_path / "cpuinfo").write_text(features)
    check_precision("mixed_bfloat16")
    check_precision("mixed_bfloat16")  # as the next job of a sweep does
    assert capfd.readouterr().err.count("has no bfloat16") == warned


@pytest.mark.parametrize(
    ("policy", "capability", "warned"),
    [
        ("mixed_float16", (6, 1), True),
        ("mixed_float16", (7, 0), False),
        ("mixed_bfloat16", (7, 5), True),
        ("mixed_bfloat16", (8, 0), False),
    ],
)
def test_a_gpu_too_old_for_it_is_named(
    policy: str,
    capability: tuple[int, int],
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    details = {"device_name": "Graphics 1", "compute_capability": capability}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    check_precision(policy)
    assert ("Graphics 1 gains no speed" in capfd.readouterr().err) == warned
