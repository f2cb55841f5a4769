"""A sweep that Optuna steers: its study, and the charts at its end."""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cnnexp.config.composition import CommandLineJobs
from cnnexp.config.hydra_driver import first_jobs, own_overrides, refusals_of
from cnnexp.console import redact
from cnnexp.errors import UserError
from cnnexp.metrics.names import rises


@lru_cache(maxsize=1)
def memory() -> Any:
    """The `optuna.storages.InMemoryStorage` of this process's search; `hydra.sweeper.storage` names this.

    What outlives the process are the jobs: a search with a seed asks for the same ones again.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.storages.InMemoryStorage()


def forget() -> None:
    """Before a sweep: there is no search yet."""
    memory.cache_clear()


def study() -> Any:
    """The `optuna.Study` of this process's search; None where it runs none."""
    if not memory.cache_info().currsize:
        return None
    import optuna

    (summary,) = memory().get_all_study_summaries()
    return optuna.load_study(study_name=summary.study_name, storage=memory())


def is_search(settings: Any) -> bool:
    """Whether Optuna chooses the jobs, by the node `hydra` of a config."""
    return str(settings.sweeper._target_).endswith(".OptunaSweeper")


def search_overrides(composed: DictConfig, overrides: Sequence[str]) -> list[str]:
    """What a search needs and the plugin does not default to: its direction, that a failed job is no end, its storage.

    Raises:
        UserError: `hydra.sweeper.direction` is given, and not the better one of `trainer.monitor`.
    """
    monitor, sweeper = composed.trainer.monitor, composed.hydra.sweeper
    direction = "maximize" if rises(monitor) else "minimize"
    for override in overrides:
        if override.startswith("hydra.sweeper.direction=") and override != f"hydra.sweeper.direction={direction}":
            raise UserError(f"{override}: trainer.monitor={monitor} is better with {direction}; leave it out")
    added = [f"hydra.sweeper.direction={direction}"]
    if not any(override.startswith("hydra.sweeper.max_failure_rate=") for override in overrides):
        added.append(f"hydra.sweeper.max_failure_rate={sweeper.max_failure_rate or 1.0}")
    if sweeper.storage is None:
        added.append("hydra.sweeper.storage={_target_:cnnexp.runs.search.memory}")
    return added


def check_search(plan: CommandLineJobs) -> list[list[str]]:
    """The trials that a search begins with, inside `hydra_context`; nothing is opened.

    Raises:
        UserError: a key of the sweeper is wrong, or there is nothing to search.
    """
    sweeper = plan.shared.hydra.sweeper
    for key in ("n_trials", "n_jobs"):
        if sweeper[key] < 1:
            raise UserError(f"hydra.sweeper.{key}={sweeper[key]}: must be at least 1")
    if not 0 <= sweeper.max_failure_rate <= 1:
        raise UserError(f"hydra.sweeper.max_failure_rate={sweeper.max_failure_rate}: must be at least 0 and at most 1")
    search_overrides(plan.shared, plan.overrides)
    if not (plan.swept or sweeper.search_space or sweeper.custom_search_space):
        raise UserError("hydra/sweeper=optuna: nothing is to be searched; give KEY=interval(LOW,HIGH) or KEY=A,B")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return first_jobs(plan.shared, own_overrides(plan.overrides))


def check_storage(composed: DictConfig) -> None:
    """Open the user's own storage of studies, so that a wrong address shows before the sweep is opened.

    Raises:
        UserError: it cannot be opened.
    """
    import optuna

    if isinstance(storage := composed.hydra.sweeper.storage, str):
        with refusals_of(f"hydra.sweeper.storage={redact(storage)}"):
            optuna.storages.get_storage(storage)


def repeats_itself(composed: DictConfig) -> bool:
    """Whether the search asks for the same jobs when it is started again."""
    return OmegaConf.select(composed, "hydra.sweeper.sampler.seed") is not None


def draw_charts(folder: Path, monitor: str) -> list[Path]:
    """Write the charts of `study` into `folder`: how values and figure go together, and which values matter.

    The importance is the mean decrease in impurity of a random forest (Breiman 2001) that predicts the figure.

    Args:
        folder: of the sweep.
        monitor: the name of the figure that was searched for.

    Returns:
        The files; none where there is no search, or too few finished jobs to say anything.
    """
    found = study()
    if found is None:
        return []
    import optuna
    from optuna.importance import MeanDecreaseImpurityImportanceEvaluator, get_param_importances

    from cnnexp.report.search import Axis, draw_importance, draw_parallel_coordinates

    trials = found.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if len(trials) < 2:
        return []
    axes = [
        Axis(
            name,
            [trial.params[name] for trial in trials],
            bool(getattr(distribution, "log", "Log" in type(distribution).__name__)),
        )
        for name, distribution in trials[0].distributions.items()
    ]
    figures = [trial.value for trial in trials]
    files = [folder / "parallel_coordinates.png"]
    draw_parallel_coordinates(files[0], axes, figures, monitor, found.direction.name == "MAXIMIZE")
    if len(set(figures)) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "experimental"
            forest = MeanDecreaseImpurityImportanceEvaluator(seed=0)
        files.append(folder / "importance.png")
        draw_importance(files[1], get_param_importances(found, evaluator=forest), monitor, len(trials))
    return files
