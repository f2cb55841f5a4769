"""Seeds and determinism of TensorFlow, set when a run begins and not at import."""

import logging

import keras
import tensorflow as tf

from cnnexp.errors import UserError


def prepare_tensorflow(seed: int, deterministic: bool, threads: int | None = None) -> None:
    """Forget what an earlier run of this process left, and seed Python, NumPy and TensorFlow.

    Args:
        seed: decides initial weights and dropout; the data's order and augmentation are derived from it elsewhere.
        deterministic: refuse operations whose result may differ from run to run. Once it is on, TensorFlow keeps it
            on for the life of the process.
        threads: for one operation; None: one for each core that this process may use. Sums are cut into as many
            parts, so that the last digits of a result depend on it. It stays for the life of the process.

    Raises:
        UserError: TensorFlow runs in this process already, with another number of threads.
    """
    _use_threads(threads)
    tf.get_logger().setLevel(logging.ERROR)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def _use_threads(threads: int | None) -> None:
    threading = tf.config.threading
    if threading.get_intra_op_parallelism_threads() == (threads or 0):
        return
    try:
        threading.set_intra_op_parallelism_threads(threads or 0)
    except RuntimeError as error:
        now = threading.get_intra_op_parallelism_threads() or "null"
        raise UserError(
            f"trainer.threads={threads or 'null'}: this process computes with {now} already, and TensorFlow cannot "
            "change that; in a sweep, sweep.fresh_process=true gives each job a process of its own"
        ) from error
