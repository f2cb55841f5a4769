"""`cnnexp plan`: the jobs that a line of `cnnexp train` would run, and what is there of them; nothing is run."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from cnnexp.commands.arguments import take_flag
from cnnexp.config import Config, typed
from cnnexp.config.composition import Plan, compose_config
from cnnexp.console import progress, say, table
from cnnexp.errors import UserError
from cnnexp.process import import_tensorflow
from cnnexp.runs.folder import CHECKPOINT, find_unfinished, is_held, read_state, status
from cnnexp.tracking.record import config_hash

if TYPE_CHECKING:
    from cnnexp.data.dataset import Dataset
    from cnnexp.models.build import Network

HELP = """usage: cnnexp plan [-m] [OVERRIDES] [--json]

The jobs that `cnnexp train` with the same arguments would run: what sets each apart, whether it is done or where it
would go on, whether the features that it needs are in the cache, and its parameters. Nothing is run or written.

  cnnexp plan -m experiment=frozen,finetuned seed=0,1,2
  cnnexp plan sweep=progression --json
"""


@dataclass(frozen=True)
class Job:
    """One line of the plan.

    `state` is new, done, failed, running, `goes on after epoch N`, or `as job N`; `features` are cached, to compute,
    not used, or unknown where data or weights are not here yet.
    """

    number: int
    overrides: list[str]
    state: str
    features: str
    trainable_parameters: int
    total_parameters: int


@dataclass
class Builder:
    """Data sets and networks of the jobs, each made once."""

    datasets: dict[str, "Dataset | None"] = field(default_factory=dict)
    networks: dict[str, "Network"] = field(default_factory=dict)

    def dataset(self, config: Config) -> "Dataset | None":
        """The data set, or None where it does not lie ready."""
        from cnnexp.runs.job import load_dataset

        key = repr(config.dataset)
        if key not in self.datasets:
            self.datasets[key] = load_dataset(config) if lies_ready(config) else None
        return self.datasets[key]

    def network(self, config: Config, channels: int, classes: int, weights: str | None) -> "Network":
        """The network, with the given weights of the backbone."""
        from cnnexp.runs.build import build_network

        parts = [config.backbone, config.head, config.dataset.image_size, channels, classes, weights]
        key = repr(parts)
        if key not in self.networks:
            chosen = config.backbone.weights
            config.backbone.weights = weights
            self.networks[key] = build_network(config, channels, classes)
            config.backbone.weights = chosen
        return self.networks[key]


def run(arguments: list[str]) -> int:
    """Compose every job, look at what is there, and show it."""
    as_json, arguments = take_flag(arguments, "--json")
    from cnnexp.commands.arguments import parse
    from cnnexp.commands.train import check_line, unfinished_folder

    parsed = parse(arguments)
    name = parsed.config_name or "config"
    plan = check_line(parsed.overrides, bool(parsed.multirun), parsed.config_dir, name)
    if not plan.jobs:
        raise UserError("cnnexp plan: this sweeper chooses its jobs as it goes; there is no plan beforehand")
    folder = unfinished_folder(plan, parsed.overrides) if plan.multirun else None
    composed = _compose(plan, parsed.config_dir, name)
    import_tensorflow()
    builder, jobs = Builder(), []
    seen: dict[str, int] = {}
    for number, (overrides, node) in enumerate(progress(list(zip(plan.jobs, composed, strict=True)), "planning")):
        own = [override for override in overrides if not all(override in other for other in plan.jobs)]
        first = seen.setdefault(_hash(node), number)
        twin = f"as job {first}" if first != number else None
        place = (folder / str(number) if folder else None) if plan.multirun else _single(node)
        jobs.append(_job(number, own or overrides, node, place, builder, twin))
    _show(jobs, as_json)
    return 0


def _compose(plan: Plan, config_dir: str | None, name: str) -> list[DictConfig]:
    from cnnexp.config.composition import hydra_context

    with hydra_context(config_dir):
        return [compose_config(job, name=name) for job in plan.jobs] if plan.multirun else [_only(plan)]


def _only(plan: Plan) -> DictConfig:
    assert plan.composed is not None
    return plan.composed


def _hash(composed: DictConfig) -> str:
    resolved: Any = OmegaConf.to_container(composed, resolve=True)
    return config_hash(resolved)


def _single(composed: DictConfig) -> Path | None:
    """The folder that a single run would go on in."""
    config = typed(composed)
    return find_unfinished(Path(config.paths.runs), _hash(composed)) if config.trainer.resume else None


def _job(
    number: int, overrides: list[str], composed: DictConfig, place: Path | None, builder: Builder, twin: str | None
) -> Job:
    from cnnexp.models.counts import totals

    config = typed(composed)
    dataset = builder.dataset(config)
    shape = (dataset.channels, len(dataset.class_names)) if dataset else _known(config)
    network = builder.network(config, *shape, weights=None)
    features = _features(config, dataset, builder)
    for phase in _phases(config, network):
        phase.freeze()
    counts = totals(network)
    state = twin or _state(place, _hash(composed), dataset)
    return Job(number, overrides, state, features, counts.trainable, counts.total)


def _known(config: Config) -> tuple[int, int]:
    from cnnexp.commands.summary import KNOWN

    if type(config.dataset) not in KNOWN:
        raise UserError(f"dataset={config.dataset.name}: its images are not here, so that nothing is known of it")
    return KNOWN[type(config.dataset)]


def _phases(config: Config, network: "Network") -> list[Any]:
    from cnnexp.runs.build import phases

    return phases(config, network)


def _state(place: Path | None, job_hash: str, dataset: "Dataset | None") -> str:
    """What is in a job's folder."""
    state = read_state(place) if place else None
    if place is None or state is None or state.config_hash != job_hash:
        return "new"
    if dataset is not None and state.data_digest != dataset.digest:
        return "new, the images have changed"
    if is_held(place):
        return "running"
    if status(place) == "FINISHED":
        return "done"
    from cnnexp.training.checkpoint import read_checkpoint

    stored = read_checkpoint(place / CHECKPOINT)
    epoch = len(stored[0].history) if stored else 0
    return f"{'failed, ' if status(place) == 'FAILED' else ''}goes on after epoch {epoch}"


def _features(config: Config, dataset: "Dataset | None", builder: Builder) -> str:
    """Whether all that the first phase needs of the cache is there."""
    from cnnexp.runs.build import feature_cache, training_data
    from cnnexp.training.features import cut_model
    from cnnexp.training.inputs import feature_keys

    cache = feature_cache(config)
    if cache is None:
        return "not used"
    shape = (dataset.channels, len(dataset.class_names)) if dataset else _known(config)
    network = builder.network(config, *shape, weights=None)
    _phases(config, network)[0].freeze()
    if cut_model(network.model) is None:
        return "not used"
    if dataset is None or not weights_lie_ready(config):
        return "unknown"
    network = builder.network(config, *shape, weights=config.backbone.weights)
    _phases(config, network)[0].freeze()
    cut = cut_model(network.model)
    assert cut is not None
    keys = feature_keys(cut, training_data(config, dataset), cache)
    return "cached" if all(cache.store.has(key) for key in keys) else "to compute"


def lies_ready(config: Config) -> bool:
    """Whether the data set can be read without drawing, preparing or downloading anything."""
    from cnnexp.config import DigitsConfig, SyntheticConfig
    from cnnexp.data.drawing.synthetic import drawing, is_drawn

    node = config.dataset
    if isinstance(node, SyntheticConfig):
        splits = (node.train, node.validation, node.test)
        root, counts = drawing(str(node.path), splits, node.size, node.seed, node.limit, node.decoys)
        return is_drawn(root, *counts)
    if isinstance(node, DigitsConfig):
        return True
    path = getattr(node, "path", None)
    return path is not None and Path(path).expanduser().exists()


def weights_lie_ready(config: Config) -> bool:
    """Whether the backbone's weights are in a file, in a package, or random."""
    weights = config.backbone.weights
    return weights != "imagenet" or str(config.backbone.name).startswith("efficientnet_lite")


def _show(jobs: list[Job], as_json: bool) -> None:
    if as_json:
        say(json.dumps([asdict(job) for job in jobs], indent=2))
        return
    rows = [
        [
            str(job.number),
            " ".join(job.overrides),
            job.state,
            job.features,
            f"{job.trainable_parameters:,}",
            f"{job.total_parameters:,}",
        ]
        for job in jobs
    ]
    table("", ["job", "overrides", "state", "features", "trained", "parameters"], rows, left=4)
