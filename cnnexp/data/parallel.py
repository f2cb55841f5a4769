"""Work on many images in a few threads: OpenCV and file reading let the other threads run meanwhile."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from threading import current_thread
from typing import TypeVar

import numpy as np

NAME = "images"
T = TypeVar("T")


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


def in_order(threads: int, calls: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of all calls in their order; each is made whole by one of `threads`, and some ahead of their turn.

    With one thread, each is made when it is asked for.

    Raises:
        Exception: what a call raised, when its turn comes; those behind it are given up.
    """
    if threads <= 1:
        yield from (call() for call in calls)
        return
    ahead: deque[Future[T]] = deque()
    try:
        for call in calls:
            ahead.append(_pool(threads).submit(call))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for future in ahead:
            future.cancel()
