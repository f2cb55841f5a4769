"""What outlives a run for the next one on the same network: the network itself, and what was made from its graph.

Building a pretrained network and tracing its steps take longer than training a head on cached features. So the jobs of
a sweep that have the same graph share one network, which gets for each the weights that a fresh one would have.
"""

import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import keras
import numpy as np

from cnnexp.models.build import Network
from cnnexp.models.keras_graph import seed_of, with_sublayers

T = TypeVar("T")
MOST_DRAWS = 10_000  # of seeds while a network is built; the largest of keras.applications has a thousand

_made: WeakKeyDictionary[keras.Model, dict[Hashable, Any]] = WeakKeyDictionary()
_kept: dict[str, "FreshNetwork"] = {}  # one at most


def once_for(model: keras.Model, key: Hashable, make: Callable[[], T]) -> T:
    """What `make` gives, made once while `model` lives; `key` tells it from what else is made for the model."""
    made = _made.setdefault(model, {})
    if key not in made:
        made[key] = make()
    return made[key]


def trainable_flags(model: keras.Model) -> tuple[bool, ...]:
    """Which layers are trained, those inside of layers included."""
    return tuple(layer.trainable for layer in with_sublayers(model))


def kept_network(key: str, build: Callable[[], Network]) -> Network:
    """The network of an earlier call with the same key, as a fresh build would be now; or what `build` gives.

    Python's random state, from which Keras draws the seeds of initializers and dropout, is afterwards that of a fresh
    build. The network of the last call alone is kept, and only where it is known how each of its seeds is used.

    Args:
        key: says everything that `build` depends on, but for the random state.
        build: builds the network.
    """
    if key in _kept:
        _kept[key].renew()
        return _kept[key].network
    _kept.clear()
    before = random.getstate()
    network = build()
    fresh = FreshNetwork.of(network, _draws(before))
    if fresh:
        _kept[key] = fresh
    return network


def forget_network() -> None:
    """Keep no network any longer."""
    _kept.clear()


def _draws(before: Any) -> list[int] | None:
    """The seeds that Keras has drawn from Python's random state since it was `before`; None where that cannot be told.

    `keras.random.SeedGenerator` and the random initializers draw `random.randint(1, 1e9)` each.
    """
    replay, after = random.Random(), random.getstate()
    found: list[int] = []
    replay.setstate(before)
    while replay.getstate() != after:
        if len(found) == MOST_DRAWS:
            return None
        found.append(_draw(replay))
    return found


def _draw(source: Any) -> int:
    return int(source.randint(1, int(1e9)))


@dataclass
class FreshNetwork:
    """A network and what makes it as it was when it was built, or as it would be built with other seeds.

    draws:      how many seeds a build draws.
    seeds:      initializers and generators of random numbers, each with the number of its draw.
    drawn:      variables that an initializer filled.
    loaded:     all other variables, with their values.
    """

    network: Network
    draws: int
    seeds: list[tuple[Any, int]] = field(default_factory=list)
    drawn: list[tuple[keras.Variable, Any]] = field(default_factory=list)
    loaded: list[tuple[keras.Variable, np.ndarray]] = field(default_factory=list)

    @classmethod
    def of(cls, network: Network, draws: list[int] | None) -> "FreshNetwork | None":
        """From a network that was just built; None where a draw was for something else than its layers."""
        if draws is None or len(set(draws)) != len(draws):
            return None
        fresh, filled = cls(network, len(draws)), set()
        for layer in with_sublayers(network.model):
            for part in vars(layer).values():
                seed = seed_of(part)
                if seed not in draws:
                    continue
                fresh.seeds.append((part, draws.index(seed)))
                if isinstance(part, keras.initializers.Initializer):
                    fresh.drawn += [(v, part) for v in layer.variables if _filled_by(v, part)]
                else:
                    filled.add(id(part.state))
        filled |= {id(variable) for variable, _ in fresh.drawn}
        fresh.loaded = [(v, np.array(v.numpy())) for v in network.model.variables if id(v) not in filled]
        complete = {number for _, number in fresh.seeds} == set(range(len(draws)))
        return fresh if complete else None

    def renew(self) -> None:
        """Draw new seeds, and give every variable the value that it has in a network that is built with them."""
        draws = [_draw(random) for _ in range(self.draws)]
        for part, number in self.seeds:
            if isinstance(part, keras.random.SeedGenerator):
                part.state.assign(np.array([draws[number], 0], part.state.dtype))
            else:
                part.seed = draws[number]
        for variable, initializer in self.drawn:
            variable.assign(initializer(variable.shape, dtype=variable.dtype))
        for variable, value in self.loaded:
            if not np.array_equal(variable.numpy(), value):
                variable.assign(value)


def _filled_by(variable: keras.Variable, initializer: Any) -> bool:
    value = initializer(variable.shape, dtype=variable.dtype)
    return bool(np.array_equal(keras.ops.convert_to_numpy(value), variable.numpy()))
