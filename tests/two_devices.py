"""Run by test_devices.py in a process of its own, whose CPU appears as two devices.

Prints, as JSON, what trainings of one device and of two came to, in 64 bits: there, sums in another order change the
last of 16 digits, and even RMSprop, which divides small gradients by themselves, cannot make much of it.
"""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from test_trainer import GEOMETRIC, SETTINGS, built, cache, data, phase, run

from cnnexp.training.devices import Strategy, chosen_strategy
from cnnexp.training.runtime import configure_devices, prepare_tensorflow
from cnnexp.training.trainer import FitResult

DECAY = {"conv1/kernel": 0.25, "conv3/kernel": 0.5}
AVERAGED = {"factory": keras.optimizers.AdamW, "weight_decay": 0.1, "ema_momentum": 0.5, "layer_factors": DECAY}


def trained(strategy: Strategy | None, folder: Path, case: dict[str, Any]) -> FitResult:
    """The small network of test_trainer.py without dropout, two epochs."""
    given, plan = dict(case), {"factory": keras.optimizers.RMSprop} | case.get("plan", {})
    classes = given.pop("classes", 2)
    prepare_tensorflow(0, deterministic=False)
    with strategy.scope() if strategy else nullcontext():
        model = built(0, classes)
    model = keras.Model(model.inputs[0], model.outputs[0], name="small")
    given |= {"config": replace(SETTINGS, **given.pop("settings", {})), "strategy": strategy}
    frozen, stop = given.pop("frozen", 0), given.pop("stop", False)
    given.pop("plan", None)
    if given.pop("cached", False):
        given["cache"] = cache(folder)
    given["given"] = data(given.pop("augmentation", None), classes)
    if stop:
        given["checkpoint"] = folder / f"{strategy is None}.npz"
        try:
            run(model, [phase(model, frozen, 2, **plan)], on_epoch=stop_after_first, **given)
        except KeyboardInterrupt:
            given["resume"] = True
    return run(model, [phase(model, frozen, 2, **plan)], **given)


def stop_after_first(epoch: int, metrics: dict[str, float]) -> None:
    if epoch == 1:
        raise KeyboardInterrupt


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "not_divisible": {"settings": {"batch_size": 3}},  # batches of 3, 3, 3 and 1
    "averaged": {"plan": AVERAGED},
    "classes": {"classes": 3, "augmentation": GEOMETRIC},
    "cached": {"frozen": 2, "cached": True, "settings": {"flip_averaging": True}},
    "resumed": {"plan": AVERAGED, "stop": True},
}


def main(folder: Path) -> None:
    configure_devices(virtual_cpus=2)
    keras.config.set_floatx("float64")
    strategy = chosen_strategy("mirrored")
    assert strategy is not None and strategy.num_replicas_in_sync == 2 and chosen_strategy("auto") is None
    found = {}
    for name, case in CASES.items():
        results = [trained(devices, folder, case) for devices in (None, strategy)]
        found[name] = [
            {
                "figures": {
                    key: [epoch[key] for epoch in result.history] for key in ("train/loss", "train/acc", "val/loss")
                },
                "weights": [float(np.abs(weight).sum()) for weight in result.model.get_weights()],
                "test": result.probabilities.ravel().tolist(),
            }
            for result in results
        ]
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
