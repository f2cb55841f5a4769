"""`cnnexp train`: Hydra's command line in front of the trainer."""

from cnnexp.commands.arguments import parse
from cnnexp.config.hydra_driver import answer, run_single
from cnnexp.drawing import drawing_process
from cnnexp.runs.planning import adopt_jobs, check_line, folder_override, unfinished_folder
from cnnexp.runs.sweep import run_sweep
from cnnexp.runs.tasks import train_single


def run(arguments: list[str]) -> int:
    """Check every job's configuration, then let Hydra run them.

    Returns:
        0, or 1 if a job of a sweep failed.

    Raises:
        UserError: a mistake in the line or in the input of a single run.
    """
    parsed = parse(arguments)
    overrides, config_dir, name = parsed.overrides, parsed.config_dir, parsed.config_name or "config"
    question = [*(argument for argument in arguments if argument not in overrides), *overrides]
    if parsed.help or parsed.hydra_help or parsed.shell_completion:
        answer(question)
        return 0
    plan = check_line(overrides, bool(parsed.multirun), config_dir, name)
    if parsed.cfg or parsed.info:
        answer(question)
        return 0
    folder = unfinished_folder(plan)
    if plan.multirun:
        return 0 if run_sweep(plan, folder) else 1
    place: list[str] = []
    if folder is not None:
        adopt_jobs(plan, folder)
        place.append(folder_override("run", folder))
    with drawing_process():
        run_single(train_single, [*overrides, *place], config_dir, name)
    return 0
