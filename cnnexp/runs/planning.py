"""What a line would run, and what is there of it; nothing is run."""

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, OmegaConf

from cnnexp.config import Config, validated
from cnnexp.config.composition import CommandLineJobs, compose_config, job_subdirs, order_jobs, plan_jobs
from cnnexp.config.hydra_driver import check_launcher, hydra_context, own_files, own_overrides
from cnnexp.console import progress, redact, say
from cnnexp.errors import UserError
from cnnexp.formats import bare_key
from cnnexp.process import import_tensorflow
from cnnexp.runs.folder import RunFolder, SweepFolder, find_sweeps
from cnnexp.runs.job import naming_files
from cnnexp.runs.recorded_config import adopt, find_unfinished, hash_today
from cnnexp.runs.reuse import Wanted, find_equal, is_kept, is_whole
from cnnexp.runs.search import check_search, is_search, repeats_itself
from cnnexp.runs.settings import chosen_by, report_of, trained_by
from cnnexp.runs.tracker import open_tracker
from cnnexp.tracking.protocols import RunStore
from cnnexp.tracking.record import config_hash

if TYPE_CHECKING:
    from cnnexp.data.dataset import Dataset
    from cnnexp.models.build import Network


def check_line(overrides: list[str], multirun: bool, config_dir: str | None, config_name: str) -> CommandLineJobs:
    """Compose and check every job of the line, so that a mistake shows before the first one starts.

    Returns:
        The jobs, with the config of the first of them.
    """
    with hydra_context(config_dir):
        plan = plan_jobs(overrides, multirun, config_name)
        plan.config_dir = config_dir
        jobs = plan.jobs
        if plan.multirun:
            check_launcher(plan.shared)
            jobs = check_search(plan) if is_search(plan.shared.hydra) else jobs
        for job in progress(list(reversed(jobs)), "checking jobs"):
            composed = compose_config(job, name=config_name) if plan.multirun else plan.composed
            assert composed is not None
            validated(composed)
            plan.composed = composed if plan.jobs else plan.composed
        if plan.multirun:
            plan.subdirs = job_subdirs(plan)
    return plan


def unfinished_folder(plan: CommandLineJobs) -> Path | None:
    """The folder of the sweep, or with `trainer.resume=true` of the run, that this line goes on with; None: a new one.

    The jobs of a sweep that goes on come in the order in which they came then.

    Raises:
        UserError: it is at work, or `hydra.sweep.dir` holds another sweep.
    """
    assert plan.composed is not None
    if plan.multirun:
        sweep = _unfinished_sweep(plan)
        if sweep and plan.jobs:
            _order_as_then(plan, sweep.shared_overrides)
        return sweep.path if sweep else None
    if any(override.startswith("hydra.run.dir=") for override in plan.overrides):
        return None
    if not validated(plan.composed).trainer.resume:
        return None
    runs = Path(plan.composed.paths.runs)
    folder = find_unfinished(runs, _hash(plan.composed))
    if folder is None:
        say(f"trainer.resume=true: no unfinished run of this config in {runs}; a new one begins")
        return None
    if folder.is_held:
        raise UserError(f"trainer.resume=true: the run in {folder} is still in training; wait for its end, or stop it")
    return folder.path


def _unfinished_sweep(plan: CommandLineJobs) -> SweepFolder | None:
    """The sweep that was begun with this line: in `hydra.sweep.dir` if it is there, or the newest one in `paths.runs`.

    What a sweeper chooses as it goes gets a new folder, if it would choose otherwise the next time.
    """
    assert plan.composed is not None
    place, key = SweepFolder(Path(plan.shared.hydra.sweep.dir)), f"hydra.sweep.dir={plan.shared.hydra.sweep.dir}"
    repeats, resumes = bool(plan.jobs) or repeats_itself(plan.composed), bool(plan.composed.sweep.resume)
    other = "give another folder, or leave it out"
    found: SweepFolder | None = None
    if place.parent_run_id is not None:
        if not place.was_begun_with(recorded_line(plan), recorded_swept(plan)):
            raise UserError(f"{key}: holds the sweep of another line, {shlex.join(place.shared_overrides)}; {other}")
        if not resumes:
            raise UserError(f"{key}: holds this sweep already, which sweep.resume=false is not to go on with; {other}")
        if not repeats:
            raise UserError(f"{key}: holds this search already, which has no hydra.sweeper.sampler.seed; {other}")
        if not _has_parent(plan, place):
            raise UserError(f"{key}: holds a sweep whose run {place.parent_run_id} is no longer in the store; {other}")
        found = place
    elif resumes and repeats and not any(override.startswith("hydra.sweep.dir=") for override in plan.overrides):
        sweeps = find_sweeps(Path(plan.composed.paths.runs))
        line, swept = recorded_line(plan), recorded_swept(plan)
        found = next((sweep for sweep in sweeps if sweep.was_begun_with(line, swept)), None)
        if found and not _has_parent(plan, found):
            found = None  # it was deleted; finished jobs of it that were not are taken
    if found and found.is_held:
        raise UserError(f"{found}: this sweep is running; wait for its end, or give sweep.resume=false")
    return found


def _has_parent(plan: CommandLineJobs, sweep: SweepFolder) -> bool:
    """Whether the parent run of a sweep is still in the store."""
    tracking: Any = OmegaConf.to_object(plan.shared.tracking)
    return is_kept(open_tracker(tracking), str(sweep.parent_run_id))


def recorded_line(plan: CommandLineJobs) -> list[str]:
    """The overrides as they are recorded: without passwords, and without Hydra's own."""
    return [redact(override) for override in own_overrides(plan.overrides)]


def recorded_swept(plan: CommandLineJobs) -> list[str]:
    """`plan.swept` without passwords."""
    return [redact(override) for override in plan.swept]


def kind(plan: CommandLineJobs) -> Literal["progression", "grid", "search"]:
    """What a sweep is, by its keys and by `sweep.report`."""
    if is_search(plan.shared.hydra):
        return "search"
    return report_of({bare_key(override) for override in plan.swept}, str(plan.shared.sweep.report))


def _order_as_then(plan: CommandLineJobs, then: list[str]) -> None:
    """Bring the overrides, and so the jobs, into the order that they had when the sweep began."""
    places = {override: place for place, override in enumerate(then)}
    ordered = sorted(plan.overrides, key=lambda override: places.get(redact(override), len(places)))
    if ordered != plan.overrides:
        with hydra_context(plan.config_dir):
            order_jobs(plan, ordered)
            plan.subdirs = job_subdirs(plan)


def job_folder(plan: CommandLineJobs, sweep: Path, number: int) -> RunFolder:
    """The folder of a job of a sweep: where it was begun, or where it will be."""
    return SweepFolder(sweep).jobs().get(number, RunFolder(sweep / plan.subdirs[number]))


def adopt_jobs(plan: CommandLineJobs, folder: Path) -> None:
    """Before the jobs of a sweep run in `folder`, for what is there of them: see `recorded_config.adopt`.

    Args:
        plan: from `check_line`.
        folder: of the sweep; held by this process, or by none.
    """
    places = [job_folder(plan, folder, number) for number in range(len(plan.jobs))]
    if any(place.is_recorded for place in places):
        for place, composed in zip(places, _compose(plan), strict=True):
            adopt(place, _hash(composed))


def prepare_run_folder(plan: CommandLineJobs, folder: RunFolder) -> None:
    """Before a single run begins in a folder, which is held: what is there is of this run, or nothing of ours.

    Raises:
        UserError: the folder holds a sweep, another run, or this one and it is finished.
    """
    assert plan.composed is not None
    key, wanted = f"hydra.run.dir={folder}", _hash(plan.composed)
    if SweepFolder(folder.path).manifest is not None:
        raise UserError(f"{key}: holds a sweep; give another folder, or leave it out")
    if not folder.is_recorded:
        return
    run = f"run {folder.manifest.run_id}" if folder.manifest and folder.manifest.run_id else "a run"
    if folder.status == "FINISHED":
        raise UserError(f"{key}: holds {run}, which is finished; give another folder, or leave it out")
    if hash_today(folder, wanted) != wanted:
        raise UserError(f"{key}: holds {run} of another config, which is not finished; give another folder")
    adopt(folder, wanted)


def folder_override(what: Literal["run", "sweep"], folder: Path) -> str:
    """What tells Hydra to use a folder."""
    quoted = str(folder.resolve()).replace("\\", "\\\\").replace("'", "\\'")
    return f"hydra.{what}.dir='{quoted}'"


def channels_and_classes(config: Config, dataset: "Dataset | None") -> tuple[int, int]:
    """Of the images: what the data set says, or without it what is known of it by its kind.

    Raises:
        UserError: nothing is known of this kind.
    """
    if dataset is not None:
        return dataset.channels, len(dataset.class_names)
    known = config.dataset.channels_and_classes
    if known is None:
        raise UserError(f"dataset={config.dataset.name}: its images are not here, so that nothing is known of it")
    return known


def knows(config: Config) -> bool:
    """Whether channels and classes of the data set are known without reading it."""
    return config.dataset.channels_and_classes is not None


@dataclass(frozen=True)
class PlannedJob:
    """One line of the plan.

    `state` is new, done, failed, running, `goes on after epoch N`, `as job N`, or `taken from run ID`, a finished one;
    `features` are cached, to compute, not used, or unknown where data or weights are not here yet. `trained_by` and
    `chosen_by` are what is not as in a plain run, as overrides: of loss and sampling; of epoch and answers.
    """

    number: int
    overrides: list[str]
    state: str
    features: str
    trainable_parameters: int
    total_parameters: int
    trained_by: list[str]
    chosen_by: list[str]


@dataclass
class Builder:
    """Data sets and networks of the jobs, each made once."""

    datasets: dict[str, "Dataset | None"] = field(default_factory=dict)
    networks: dict[str, "Network"] = field(default_factory=dict)

    def dataset(self, config: Config) -> "Dataset | None":
        """The data set, or None where it does not lie ready."""
        from cnnexp.data.sources import lies_ready
        from cnnexp.runs.job import load_dataset

        key = repr(config.dataset)
        if key not in self.datasets:
            self.datasets[key] = load_dataset(config) if lies_ready(config.dataset) else None
        return self.datasets[key]

    def network(self, config: Config, shape: tuple[int, int], weights: bool = False) -> "Network":
        """The network for images of `shape`, channels and classes, with or without the backbone's weights."""
        from cnnexp.runs.build import build_network, build_without_weights

        parts = [config.backbone, config.head, config.dataset.image_size, shape, config.trainer.dtype_policy, weights]
        key = repr(parts)
        if key not in self.networks:
            self.networks[key] = (build_network if weights else build_without_weights)(config, *shape)
        return self.networks[key]


def planned_jobs(plan: CommandLineJobs) -> list[PlannedJob]:
    """Compose every job of a line, and look at what is there of it.

    Args:
        plan: from `check_line`, with jobs.
    """
    folder = unfinished_folder(plan) if plan.multirun else None
    composed = _compose(plan)
    import_tensorflow()
    builder, jobs = Builder(), []
    seen: dict[str, int] = {}
    for number, (given, node) in enumerate(progress(list(zip(plan.jobs, composed, strict=True)), "planning")):
        own = [override for override in given if not all(override in other for other in plan.jobs)]
        first = seen.setdefault(_hash(node), number)
        place = (job_folder(plan, folder, number) if folder else None) if plan.multirun else _single(node)
        with naming_files(lambda given=given: _own_files(plan, given)):  # type: ignore[misc]
            job = _job(number, own or given, node, place, builder)
        if plan.multirun and job.state == "new":
            job = replace(job, state=_taken(plan, node, builder) or job.state)
        jobs.append(job if first == number else replace(job, state=f"as job {first}"))
    return jobs


def _compose(plan: CommandLineJobs) -> list[DictConfig]:
    if not plan.multirun:
        assert plan.composed is not None
        return [plan.composed]
    with hydra_context(plan.config_dir):
        return [compose_config(job, name=plan.name) for job in plan.jobs]


def _own_files(plan: CommandLineJobs, given: list[str]) -> dict[str, Path]:
    """The files of the user's own that a job is composed from, by their names there."""
    with hydra_context(plan.config_dir):
        settings: Any = compose_config(given, with_hydra=True, name=plan.name).hydra
    return own_files(settings)


def _hash(composed: DictConfig) -> str:
    resolved: Any = OmegaConf.to_container(composed, resolve=True)
    return config_hash(resolved)


def _single(composed: DictConfig) -> RunFolder | None:
    """The folder that a single run would go on in."""
    config = validated(composed)
    return find_unfinished(Path(config.paths.runs), _hash(composed)) if config.trainer.resume else None


def _job(
    number: int, overrides: list[str], composed: DictConfig, place: RunFolder | None, builder: Builder
) -> PlannedJob:
    from cnnexp.models.counts import totals
    from cnnexp.runs.build import apply, check_fits, check_parts, freeze_policies
    from cnnexp.runs.memory import check_batch

    config = validated(composed)
    check_parts(config)
    dataset = builder.dataset(config)
    shape = channels_and_classes(config, dataset)
    check_batch(config, shape[0])
    if dataset is not None:
        check_fits(config, dataset)
    network = builder.network(config, shape)
    features = _features(config, dataset, builder)
    apply(freeze_policies(config)[-1], network)
    counts = totals(network)
    state = _state(place, _hash(composed), dataset, open_tracker(config.tracking))
    chosen = trained_by(config), chosen_by(config)
    return PlannedJob(number, overrides, state, features, counts.trainable, counts.total, *chosen)


def _taken(plan: CommandLineJobs, composed: DictConfig, builder: Builder) -> str | None:
    """Which finished job of another sweep would be taken for a new one."""
    config = validated(composed)
    dataset, tracking = builder.dataset(config), config.tracking
    if dataset is None:
        return None
    explained = bool(tracking.explain) and (tracking.explain != "auto" or kind(plan) == "progression")
    wanted = Wanted(config, _hash(composed), explained, lambda: dataset.digest)
    found = find_equal(open_tracker(tracking), wanted)
    return f"taken from run {found.manifest.run_id}" if found and found.manifest else None


def _state(place: RunFolder | None, job_hash: str, dataset: "Dataset | None", tracker: RunStore) -> str:
    """What is in a job's folder."""
    manifest = place.manifest if place else None
    if place is None or manifest is None or hash_today(place, job_hash) != job_hash:
        return "new"
    if dataset is not None and manifest.data_digest != dataset.digest:
        return "new, the images have changed"
    if place.is_held:
        return "running"
    if place.status == "FINISHED":
        return "done" if is_whole(tracker, place) else "new"
    from cnnexp.training.checkpoint import read_checkpoint

    stored = read_checkpoint(place.checkpoint)
    epoch = len(stored[0].history) if stored else 0
    return f"{'failed, ' if place.status == 'FAILED' else ''}goes on after epoch {epoch}"


def _features(config: Config, dataset: "Dataset | None", builder: Builder) -> str:
    """Whether all that the first phase needs of the cache is there."""
    from cnnexp.runs.build import apply, feature_store, freeze_policies, training_data
    from cnnexp.training.features import cut_model
    from cnnexp.training.inputs import Training, feature_keys

    store = feature_store(config)
    if store is None:
        return "not used"
    shape, first = channels_and_classes(config, dataset), freeze_policies(config)[0]
    network = builder.network(config, shape)
    apply(first, network)
    if cut_model(network.model) is None:
        return "not used"
    if dataset is None or not weights_lie_ready(config):
        return "unknown"
    network = builder.network(config, shape, weights=True)
    apply(first, network)
    cut = cut_model(network.model)
    assert cut is not None
    training = Training(network.model, training_data(config, dataset), config.trainer, config.seed, store)
    return "cached" if all(store.has(key) for key in feature_keys(cut, training)) else "to compute"


def weights_lie_ready(config: Config) -> bool:
    """Whether the backbone's weights are in a file, in a package, or random."""
    weights = config.backbone.weights
    return weights != "imagenet" or str(config.backbone.name).startswith("efficientnet_lite")
