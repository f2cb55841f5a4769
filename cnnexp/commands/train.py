"""`cnnexp train`: Hydra's command line in front of the trainer."""

import textwrap
from pathlib import Path

from omegaconf import OmegaConf

from cnnexp.commands.arguments import parse_hydra
from cnnexp.config.hydra_driver import answer, conf_dir, group_options, groups, hydra_context, run_single
from cnnexp.drawing import drawing_process
from cnnexp.files import read_file
from cnnexp.formats import MOST_BYTES
from cnnexp.runs.folder import RunFolder
from cnnexp.runs.paths import check_paths
from cnnexp.runs.planning import check_line, folder_override, prepare_run_folder, unfinished_folder
from cnnexp.runs.sweep import run_sweep
from cnnexp.runs.tasks import train_single

HELP = """\
usage: cnnexp train [-m] [OVERRIDES]

  cnnexp train experiment=baseline trainer.epochs=5     one run
  cnnexp train -m experiment=baseline,frozen seed=0,1   four runs: a sweep
  cnnexp train --cfg job experiment=frozen              shows the configuration, and runs nothing

experiment=
{experiments}

sweep=
{sweeps}

groups, as dataset=folder; keys of each, as dataset.path=FOLDER, are shown by `cnnexp guide keys dataset`
{groups}

Files of your own are added with --config-dir FOLDER. --hydra-help lists Hydra's flags; `cnnexp guide` has more.
"""
WITH_LINES = ("experiment", "sweep")  # groups whose options are shown with what they are


def run(arguments: list[str]) -> int:
    """Check every job's configuration, then let Hydra run them.

    Returns:
        0, or 1 if a job of a sweep failed.

    Raises:
        UserError: a mistake in the line or in the input of a single run.
    """
    parsed = parse_hydra(arguments)
    overrides, config_dir, name = parsed.overrides, parsed.config_dir, parsed.config_name or "config"
    question = [*(argument for argument in arguments if argument not in overrides), *overrides]
    if parsed.help:
        print(help_text(config_dir), end="")
        return 0
    if parsed.hydra_help or parsed.shell_completion:
        answer(question)
        return 0
    plan = check_line(overrides, bool(parsed.multirun), config_dir, name)
    if parsed.cfg or parsed.info:
        answer(question)
        return 0
    check_paths(OmegaConf.to_object(plan.shared.paths))  # type: ignore[arg-type]
    folder = unfinished_folder(plan)
    if plan.multirun:
        return 0 if run_sweep(plan, folder) else 1
    place = RunFolder((folder or Path(plan.shared.hydra.run.dir)).resolve())
    with place.reserved(), drawing_process():
        prepare_run_folder(plan, place)
        run_single(train_single, [*overrides, folder_override("run", place.path)], config_dir, name)
    return 0


def help_text(config_dir: str | None) -> str:
    """What `cnnexp train --help` shows: examples, experiments and sweeps with a line each, the options of all groups.

    Raises:
        UserError: no such folder.
    """
    described, shown = {}, []
    with hydra_context(config_dir):
        for group in groups():
            names = group_options(group)
            if group in WITH_LINES:
                named = [name for name in names if "/" not in name]
                described[group] = "\n".join(f"  {name:<20} {first_line(group, name, config_dir)}" for name in named)
            else:
                shown.append(textwrap.fill(f"  {group:<15}{' '.join(names)}", 100, subsequent_indent=" " * 17))
    return HELP.format(experiments=described["experiment"], sweeps=described["sweep"], groups="\n".join(shown))


def first_line(group: str, name: str, config_dir: str | None) -> str:
    """The first comment of an option's file that says what it is; "" where there is none."""
    folders = [*([Path(config_dir)] if config_dir else []), conf_dir()]
    file = next((found for folder in folders if (found := folder / group / f"{name}.yaml").is_file()), None)
    comments = read_file(file, MOST_BYTES).decode("utf-8-sig", "replace").splitlines() if file else []
    told = (line.removeprefix("#").strip() for line in comments if line.startswith("#"))
    return next((line for line in told if not line.startswith("@")), "")
