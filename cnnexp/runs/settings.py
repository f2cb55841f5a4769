"""What tells runs apart, and one from a plain run: their overrides as keys with values."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from cnnexp.config import Config
from cnnexp.config.training import TrainerConfig
from cnnexp.formats import number
from cnnexp.tracking.record import flatten

Report = Literal["progression", "grid"]

# what says where and how, or what is averaged over
UNTOLD = ("seed", "hydra", "paths", "tracking", "sweep", "trainer.resume")
NONE = "-"  # of a run that does not have the key
SAMPLED = ("balanced_sampling",)  # keys of `trainer`
JUDGED = ("monitor", "epoch_metrics", "keep_best", "figures")


def split_line(text: str) -> list[str]:
    """The overrides in the tag `overrides`, where they stand with blanks between them and maybe in them."""
    found: list[str] = []
    for word in text.split(" "):
        if found and not (re.match(r"[+~]*[\w./@-]+=|~[\w./@-]+$", word) and _is_override(found[-1])):
            found[-1] += f" {word}"
        else:
            found.append(word)
    return [override for override in found if override]


def _is_override(text: str) -> bool:
    try:
        return bool(OverridesParser.create().parse_overrides([text]))
    except HydraException:
        return False


def told(line: Iterable[str]) -> dict[str, str]:
    """What a line says of what is computed, but for the seed: by its key each value, `plain`."""
    found = {}
    for override in line:
        key, _, value = override.lstrip("+~").partition("=")
        if not any(key == name or key.startswith((f"{name}.", f"{name}/", f"{name}@")) for name in UNTOLD):
            found[key] = NONE if override.startswith("~") else plain(value)
    return found


def plain(value: str) -> str:
    """A value without its quotes; a number in its shortest form, so that `1e-3` and `0.001` are one."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    found = number(value, float)
    return value if found is None else f"{found:.12g}"


def varying(lines: Sequence[Sequence[str]], configs: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Of each run its values of the keys in which the runs differ; empty where they differ in nothing but the seed.

    Args:
        lines: the overrides of the runs. A key that one of them says has in the others the value of their config.
        configs: what is recorded of their configs, flattened. Where lines tell nothing apart, these do: of a group
            whose `name` differs by that alone.
    """
    said = [told(line) for line in lines]
    keys = dict.fromkeys(key for line in said for key in line)
    values = [
        {key: line.get(key) or _recorded(config, key) for key in keys}
        for line, config in zip(said, configs, strict=True)
    ]
    found = _differing(values)
    return found if found and found[0] else _differing([_by_names(config, configs) for config in configs])


def _recorded(config: Mapping[str, str], key: str) -> str:
    return plain(config.get(key, config.get(f"{key}.name", NONE)))


def _differing(values: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    keys = dict.fromkeys(key for line in values for key in line)
    differing = [key for key in keys if len({line.get(key, NONE) for line in values}) > 1]
    return [{key: line.get(key, NONE) for key in differing} for line in values]


def _by_names(config: Mapping[str, str], configs: Sequence[Mapping[str, str]]) -> dict[str, str]:
    named = {key.removesuffix(".name") for key in config if key.endswith(".name")}
    other = {group for group in named if len({config.get(f"{group}.name") for config in configs}) > 1}
    shown = {group: config[f"{group}.name"] for group in other}
    for key, value in told(f"{key}={value}" for key, value in config.items()).items():
        if key.rpartition(".")[0] not in other and not any(key.startswith(f"{group}.") for group in other):
            shown[key] = value
    return {key: value for key, value in shown.items() if "_target_" not in key}


def report_of(keys: Iterable[str], wanted: str) -> Report:
    """Whether a sweep is shown as a progression or as a grid.

    Args:
        keys: those that have several values.
        wanted: `sweep.report`; auto: a list of experiments, maybe each with several seeds, is a progression.
    """
    if wanted == "auto":
        return "progression" if "experiment" in keys and set(keys) <= {"experiment", "seed"} else "grid"
    return "progression" if wanted == "progression" else "grid"


def trained_by(config: Config) -> list[str]:
    """What a run makes small, as overrides: the keys of the loss and of sampling that have not their defaults."""
    plain_loss = replace(type(config.loss)(), label_smoothing=0.0)  # its default is that of another key
    return [*_set("loss", config.loss, plain_loss), *_set_of_trainer(config, SAMPLED)]


def chosen_by(config: Config) -> list[str]:
    """What a run chooses its epoch and its answers by, likewise: figures, the monitored one, the decision."""
    return [*_set_of_trainer(config, JUDGED), *_set("decision", config.decision, type(config.decision)())]


def _set_of_trainer(config: Config, names: Sequence[str]) -> list[str]:
    return _set(
        "trainer", *({name: getattr(node, name) for name in names} for node in (config.trainer, TrainerConfig()))
    )


def _set(group: str, node: Any, plain_node: Any) -> list[str]:
    """The keys whose values are not those of the plain node; an option of the group by its name, without its target."""
    values, before = (flatten(each if isinstance(each, dict) else asdict(each)) for each in (node, plain_node))
    found = {key: value for key, value in values.items() if before.get(key) != value}
    if found.get("_target_", "").startswith("cnnexp."):
        del found["_target_"]
    named = [f"{group}={found.pop('name')}"] if "name" in found else []
    return [*named, *(f"{group}.{key}={value}" for key, value in found.items())]
