"""Seeds and determinism of TensorFlow, set when a run begins and not at import."""

import logging

import keras
import tensorflow as tf


def prepare_tensorflow(seed: int, deterministic: bool) -> None:
    """Forget what an earlier run of this process left, and seed Python, NumPy and TensorFlow.

    Args:
        seed: decides initial weights and dropout; the data's order and augmentation are derived from it elsewhere.
        deterministic: refuse operations whose result may differ from run to run. Once it is on, TensorFlow keeps it
            on for the life of the process.
    """
    tf.get_logger().setLevel(logging.ERROR)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
