"""Work on many images in a few threads: OpenCV and file reading let the other threads run meanwhile."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from threading import current_thread

import numpy as np

NAME = "images"


@lru_cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work as long as the process lives: to start them for each batch would cost more."""
    return ThreadPoolExecutor(threads, thread_name_prefix=NAME)


def in_parts(threads: int, count: int, work: Callable[[slice], None]) -> None:
    """Let each of `threads` do its part of `count` items; `work` gets a slice of their positions.

    Called by one of these threads, for what is a part already, it does the work at once.

    Raises:
        Exception: what `work` raised, for the first part that failed.
    """
    parts = min(threads, count)
    if parts <= 1 or current_thread().name.startswith(NAME):
        work(slice(0, count))
        return
    bounds = np.linspace(0, count, parts + 1).astype(int).tolist()
    for _ in _pool(threads).map(work, (slice(start, stop) for start, stop in pairwise(bounds))):
        pass
