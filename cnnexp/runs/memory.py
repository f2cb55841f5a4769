"""Whether a network and its batches can be in the memory of this machine: looked at before anything is allocated."""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from omegaconf import OmegaConf

from cnnexp.config import Config
from cnnexp.errors import UserError

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container
FLOAT = 4  # bytes
COPIES = 2  # of each weight while it is trained: itself and its gradient, whatever the optimizer keeps
SUSPICIOUS = 1_000_000_000  # a layer's size times the pixels of an image; of the networks here at most 1 % of it


def check_batch(config: Config, channels: int) -> None:
    """Refuse a batch of which the images alone are more than this machine holds.

    Raises:
        UserError: it is so.
    """
    trainer, size = config.trainer, config.dataset.image_size
    # without `steps_per_epoch`, no batch is larger than the data
    needed = trainer.batch_size * size * size * channels * FLOAT
    if trainer.steps_per_epoch is not None and needed > machine_memory():
        raise UserError(
            f"trainer.batch_size={trainer.batch_size}: its images take {_gib(needed)}, and this machine has "
            f"{_gib(machine_memory())}; lower it"
        )


def check_network(config: Config, build: Callable[[], keras.Model]) -> None:
    """Refuse a network whose weights and gradients are more than this machine holds; without allocating them.

    Args:
        config: its largest number is named.
        build: builds the network with random weights. Called only where a number is so large that it could be so.

    Raises:
        UserError: it is so.
    """
    key, number = max(_numbers(config), key=lambda found: found[1], default=("", 0))
    if number * config.dataset.image_size**2 < SUSPICIOUS:
        return
    drawn = random.getstate()
    try:
        with tf.Graph().as_default():  # in which variables have shapes, and no values
            count = sum(prod(weight.shape) for weight in build().weights)
    except Exception:  # of a part of the user's own, which needs values: the building itself says more
        return
    finally:
        random.setstate(drawn)  # from which Keras draws the seeds of weights
    needed = COPIES * count * FLOAT
    if needed > machine_memory():
        raise UserError(
            f"{key}={number}: the network has {count:,} parameters, which take {_gib(needed)} with their gradients, "
            f"and this machine has {_gib(machine_memory())}; lower it, or dataset.image_size"
        )


def machine_memory() -> int:
    """Bytes of memory and swap of this machine, or of its container; a very large number where the system says none."""
    found = 2**62
    with suppress(OSError, ValueError, IndexError):
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        found = 1024 * sum(int(lines[name].split()[0]) for name in ("MemTotal", "SwapTotal") if name in lines)
    for limit in LIMITS:
        with suppress(OSError, ValueError):  # "max": none
            found = min(found, int(Path(limit).read_text()))
    return found


def _numbers(config: Config) -> Iterator[tuple[str, int]]:
    """The whole numbers of head and backbone, with their keys."""
    for group in ("head", "backbone"):
        values: Any = OmegaConf.to_container(OmegaConf.structured(getattr(config, group)))
        for key, value in values.items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, int) and not isinstance(one, bool):
                    yield f"{group}.{key}", one


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
