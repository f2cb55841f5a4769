"""TensorFlow's devices, seeds and determinism, set when a run begins and not at import."""

import gc
import logging
from contextlib import suppress
from pathlib import Path

import keras
import tensorflow as tf

from cnnexp.console import warn_once
from cnnexp.errors import UserError

# of CUDA, from which on a GPU computes faster in it: Volta and Ampere (the mixed precision guide of Keras)
HALF_PRECISION_FROM = {"mixed_float16": (7, 0), "mixed_bfloat16": (8, 0)}
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}  # in Linux' list of a processor's features; the last one is ARM's
CPUINFO = Path("/proc/cpuinfo")


def configure_devices(threads: int | None = None, virtual_cpus: int | None = None) -> None:
    """Say what TensorFlow computes on, before it computes anything; it stays for the life of the process.

    The memory of GPUs is taken as it is needed, so that several jobs can share one.

    Args:
        threads: for one operation; None: one for each core that this process may use. Sums are cut into as many
            parts, so that the last digits of a result depend on it.
        virtual_cpus: devices that the CPU is to appear as; None: one.

    Raises:
        UserError: TensorFlow runs in this process already, with another number of threads or devices.
    """
    _use_threads(threads)
    for gpu in tf.config.list_physical_devices("GPU"):
        with suppress(RuntimeError):  # it is in use: set when this process began to use it
            tf.config.experimental.set_memory_growth(gpu, True)
    _split_cpu(virtual_cpus or 1)


def prepare_tensorflow(seed: int, deterministic: bool) -> None:
    """Forget what an earlier run of this process left, and seed Python, NumPy and TensorFlow.

    Args:
        seed: decides initial weights and dropout; the data's order and augmentation are derived from it elsewhere.
        deterministic: refuse operations whose result may differ from run to run. Once it is on, TensorFlow keeps it
            on for the life of the process.
    """
    tf.get_logger().setLevel(logging.ERROR)
    keras.backend.clear_session(free_memory=False)
    if gc.get_freeze_count():
        gc.collect()
    else:
        gc.freeze()  # what was imported so far stays: no collection need look through it
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def check_precision(dtype_policy: str) -> None:
    """Say where half precision makes a training no faster, and refuse it where it makes it useless.

    Raises:
        UserError: float16 without a GPU: processors compute it many times slower than float32.
    """
    needed = HALF_PRECISION_FROM.get(dtype_policy)
    if needed is None:
        return
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and dtype_policy == "mixed_float16":
        raise UserError(
            "trainer.dtype_policy=mixed_float16 is for GPUs, and there is none: a processor computes it many times "
            "slower than float32; use float32, or mixed_bfloat16 on a processor that has bfloat16"
        )
    if not gpus and not has_bfloat16():
        warn_once(
            f"trainer.dtype_policy={dtype_policy}: this processor has no bfloat16, and trains slower than with float32"
        )
    for gpu in gpus:
        details = tf.config.experimental.get_device_details(gpu)
        if details.get("compute_capability", needed) < needed:
            name, wanted = details.get("device_name", "the GPU"), ".".join(map(str, needed))
            warn_once(f"trainer.dtype_policy={dtype_policy}: {name} gains no speed below compute capability {wanted}")


def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16, as far as the system tells."""
    return bool(BFLOAT16_FLAGS & _processor_flags())


def _processor_flags() -> set[str]:
    try:
        return set(CPUINFO.read_text(encoding="ascii", errors="replace").split())
    except OSError:  # not Linux
        return set()


def _use_threads(threads: int | None) -> None:
    threading = tf.config.threading
    if threading.get_intra_op_parallelism_threads() == (threads or 0):
        return
    try:
        threading.set_intra_op_parallelism_threads(threads or 0)
    except RuntimeError as error:
        now = threading.get_intra_op_parallelism_threads() or "null"
        raise _too_late(f"trainer.threads={threads or 'null'}: this process computes with {now}") from error


def _split_cpu(virtual_cpus: int) -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    now = len(tf.config.get_logical_device_configuration(cpu) or [cpu])
    if now == virtual_cpus:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * virtual_cpus)
    except RuntimeError as error:
        raise _too_late(f"trainer.virtual_cpus={virtual_cpus}: this process computes on {now}") from error


def _too_late(what: str) -> UserError:
    return UserError(
        f"{what} already, and TensorFlow cannot change that; in a sweep, sweep.fresh_process=true gives each job a "
        "process of its own"
    )
