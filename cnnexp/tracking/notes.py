"""What a run is called in MLflow's UI, and what the UI says about it."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnexp.formats import override_group

NOTE_TAG = "mlflow.note.content"  # Markdown, shown above the figures of a run, or the runs of an experiment
LONGEST_NAME = 100  # characters
VARIANTS = ("experiment=", "name=")
UNSAID = ("experiment", "sweep", "paths", "tracking", "hydra", "dataset.path", "dataset.source")


# -------------------------------------------------------------------------------------------------- names


def run_name(variant: str, overrides: Sequence[str], shared: Sequence[str] = ()) -> str:
    """The variant, and the overrides that tell the run from others, as `frozen backbone=resnet50 seed=1`.

    Where the jobs of a sweep are all of one variant, what differs comes first: `seed=1 (frozen)`.

    Args:
        variant: the config's `name`.
        overrides: of the run.
        shared: the line of the sweep that the run is a job of; what stands there says nothing about the job.
    """
    own = own_overrides(overrides, shared)
    told = [o for o in own if not _is_key(o, UNSAID)]
    one_variant = shared and not any(o.startswith(VARIANTS) for o in own)
    return _cut(f"{' '.join(told)} ({variant})" if one_variant and told else " ".join([variant, *told]))


def sweep_name(line: Sequence[str], of_file: Sequence[str] = ()) -> str:
    """The experiment, the sweep file's name and the keys that have several values, as `progression, seed`.

    Args:
        line: the overrides of the sweep.
        of_file: the overrides with several values that do not stand in the line; `sweep` is the name where none has.
    """
    experiments = [o.split("=", 1)[1] for o in line if o.startswith("experiment=") and not _has_several(o)]
    files = [o.split("=", 1)[1] for o in line if o.startswith("sweep=")]
    keys = [key for o in of_file if (key := override_group(o)) != "experiment" or not files]
    keys += [override_group(o) for o in line if _has_several(o)]
    name = ", ".join(dict.fromkeys([*files, *keys])) or "sweep"
    return _cut(": ".join([*experiments, name]))


def own_overrides(overrides: Sequence[str], line: Sequence[str]) -> list[str]:
    """Those of a job to whose key the line of its sweep does not give one value; Hydra may spell that otherwise."""
    shared = {override_group(o) for o in line if not _has_several(o)}
    return [o for o in overrides if override_group(o) not in shared]


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def _is_key(override: str, keys: Sequence[str]) -> bool:
    key = re.split(r"[=@/]", override.lstrip("+~"))[0]
    return any(key == unsaid or key.startswith(f"{unsaid}.") for unsaid in keys)


def _has_several(override: str) -> bool:
    """Whether there is a comma outside of brackets and quotes, or one of Hydra's functions that give several values."""
    value = override.partition("=")[2]
    if re.match(r"(choice|range|interval|glob|shuffle|sort|tag)\(", value):
        return True
    plain = re.sub(r"'[^']*'|\"[^\"]*\"", "", value)
    while (without := re.sub(r"\[[^][]*\]|\{[^}{]*\}|\([^)(]*\)", "", plain)) != plain:
        plain = without
    return "," in plain


# --------------------------------------------------------------------------------------------------- tags


def describing_tags(config: Mapping[str, Any]) -> dict[str, str]:
    """`variant`, `seed`, and the name of what was chosen in each group: columns of the UI, and filters.

    Args:
        config: the resolved config.
    """
    groups = ("dataset", "augmentation", "backbone", "head", "optimizer")
    chosen = {group: str(config[group]["name"]) for group in groups if "name" in config.get(group, {})}
    return {"variant": str(config["name"]), "seed": str(config["seed"]), **chosen}


# -------------------------------------------------------------------------------------------------- notes


def run_note(
    config: Mapping[str, Any],
    overrides: Sequence[str],
    folder: Path | str,
    accuracies: tuple[float, float] | None = None,
    interval: tuple[float, float] | None = None,
) -> str:
    """Markdown: what a run is, its result once there is one, the line that repeats it, its folder.

    Args:
        config: the resolved config.
        overrides: of the run.
        folder: of the run.
        accuracies: on the test images, and on the validation images.
        interval: 95 % interval of the test accuracy.
    """
    tags = describing_tags(config)
    weights = config["backbone"].get("weights")
    start = f"with weights {weights}" if weights else "from scratch"
    said = [
        f"**{tags['variant']}** on `{tags.get('dataset', '?')}`: {tags.get('backbone', '?')} {start}, "
        f"augmentation {tags.get('augmentation', 'none')}, {tags.get('optimizer', '?')}, seed {tags['seed']}."
    ]
    if accuracies is not None:
        surely = f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
        said.append(f"Test accuracy **{accuracies[0]:.4f}**{surely}, validation accuracy {accuracies[1]:.4f}.")
    alone = ["hydra.mode=RUN"] if any(o.startswith("sweep=") for o in overrides) else []  # not the whole sweep again
    return "\n\n".join([*said, command_line([*overrides, *alone]), f"Files in `{folder}`"])


def sweep_note(line: Sequence[str], folder: Path | str, rows: Sequence[tuple[str, str, Sequence[str]]] = ()) -> str:
    """Markdown: the line of a sweep, and a table of its runs in their order.

    Args:
        line: the overrides of the sweep.
        folder: of the sweep.
        rows: name, address in the UI or "", and the figures below `FIGURES`.
    """
    table = [" | ".join(["", "run", *FIGURES, ""]).strip(), "|---|" + "---:|" * len(FIGURES)]
    for name, link, figures in rows:
        shown = name.replace("|", "\\|")
        table.append(" | ".join(["", f"[{shown}]({link})" if link else shown, *figures, ""]).strip())
    return "\n\n".join(["\n".join(table) if rows else "Running.", command_line(line, "-m"), f"Files in `{folder}`"])


FIGURES = ("test acc", "95 % interval", "val acc", "trained parameters", "seconds")


def command_line(overrides: Sequence[str], *flags: str) -> str:
    """A code block with the command."""
    return f"```\n{shlex.join(['cnnexp', 'train', *flags, *overrides])}\n```"
