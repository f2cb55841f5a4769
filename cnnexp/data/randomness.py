"""The random numbers of a training: each a function of the seed, of what they are for, and of a place in the course.

A run can therefore stop and go on anywhere, and no part of it disturbs the numbers of another.
"""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What random numbers are for. The values decide them: they never change."""

    AUGMENTATION = 0  # of an image, at (pass, index of the image)
    ORDER = 1  # of the images, at (pass,)
    MIXUP = 2  # of a batch, at (epoch, step)


def stream(purpose: Purpose, seed: int, first: int, second: int = 0) -> np.random.Generator:
    """The numbers for one purpose at one place.

    Args:
        purpose: what they are for; says what `first` and `second` are.
        seed: below 2**32.
        first: below 2**32, like `second`.
        second: 0 where the purpose has one number for its place.
    """
    return np.random.default_rng((seed, first, second, int(purpose)))
