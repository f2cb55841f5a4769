"""Trains a tracked run again, says what is different here (packages, code, data), and compares the figures."""

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from cnnexp.config import Config
from cnnexp.console import redact, say, table, warn
from cnnexp.drawing import drawing_process
from cnnexp.errors import UserError
from cnnexp.metrics.names import image_count
from cnnexp.process import import_tensorflow
from cnnexp.report.predictions import PREDICTIONS, Predictions, read_predictions
from cnnexp.runs.code import show_changes
from cnnexp.runs.folder import reproduction_folder
from cnnexp.runs.job import FLAGS, Job, load_dataset
from cnnexp.runs.recorded_config import (
    Asked,
    check_targets,
    find_original,
    is_sweep,
    read_config,
    read_overrides,
    read_text,
    replaced,
    restore_config,
    typed_record,
    variations,
)
from cnnexp.tracking.notes import NOTE_TAG
from cnnexp.tracking.protocols import RunStore
from cnnexp.tracking.record import (
    PACKAGES,
    REUSED_FROM,
    config_hash,
    cores,
    environment_tags,
    processor,
    requirements_text,
)

if TYPE_CHECKING:
    from cnnexp.data.dataset import Dataset
    from cnnexp.tracking.info import RunInfo


PIN = re.compile(r"([A-Za-z0-9][\w.\-]*)==([\w.!+\-]+)", re.ASCII)
MOST_NAMED = 8  # packages, images
LINKS = {False: ("reproduces", "reproduced_by"), True: ("variation_of", "varied_by")}  # tags; True: a variation

IGNORED = re.compile(  # not what a run computes
    r"(^|/)time[/_]|^images_per_s$|^(x/agreement|agreement|memory|system|evaluate)/"
)
EXPLAINED = 1e-5  # largest difference of figures of heat maps
Histories = Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Recorded:
    """A finished run, its config as it was recorded, and as it is trained again here: composed, and typed.

    `overrides` are those that it was started with, and those of now.
    """

    run: "RunInfo"
    values: dict[str, Any]
    composed: DictConfig
    config: Config
    overrides: list[str]


def reproduce(tracker: RunStore, name: str, asked: Asked, tolerance: float) -> bool:
    """Train a finished run again, or each of a sweep, into a new run, say what is different, and link the two.

    What was stopped goes on where the same is asked for again.

    Args:
        tracker: on the store.
        name: of the run or sweep.
        asked: where things are here; with other overrides it is a variation, of which no figure is wrong.
        tolerance: the largest difference of a figure that counts as none.

    Returns:
        Whether it is a variation, or the data is the same, and every figure.

    Raises:
        UserError: no such run, or none that is finished; its config is refused.
    """
    named = find_original(tracker, name)
    varied = variations(asked.overrides)
    jobs = [_restore(tracker, run, asked) for run in _finished(tracker, named, name)]
    import_tensorflow()
    for job in jobs:
        check_targets(job.run.run_id, job.values, asked.allowed)
    line = ["reproduce", named.run_id, *asked.line]
    agreeing = 0
    with reproduction_folder(Path(jobs[0].config.paths.runs), line) as folder:
        for number, job in enumerate(jobs):
            place = folder / str(number) if is_sweep(named) else folder
            agreeing += _train_and_compare(tracker, job, place, tolerance, varied)
    if is_sweep(named):
        done = "were varied" if varied else f"are reproduced with the same figures: {agreeing} of {len(jobs)}"
        say(f"sweep {named.run_id}: {len(jobs)} jobs {done}")
    return bool(varied) or agreeing == len(jobs)


def _finished(tracker: RunStore, named: "RunInfo", name: str) -> list["RunInfo"]:
    """The run, or the finished ones of a sweep; of those that a sweep took over, the originals."""
    if not is_sweep(named):
        if named.status != "FINISHED":
            raise UserError(
                f"{name}: run {named.run_id} is {named.status}; only what a finished run came to can be reproduced; "
                "`cnnexp doctor` has the line that goes on with it"
            )
        return [named]
    children = tracker.children(named.run_id)
    finished = [run for run in children if run.status == "FINISHED"]
    if not finished:
        raise UserError(
            f"{name}: sweep {named.run_id}: none of its jobs is finished, so there are no figures to compare"
        )
    if others := [run.run_id for run in children if run.status != "FINISHED"]:
        warn(f"cnnexp: sweep {named.run_id}: left out, since not finished: {_some(others)}")
    return [tracker.get_run(run.tags.get(REUSED_FROM) or run.run_id) for run in finished]


def _restore(tracker: RunStore, run: "RunInfo", asked: Asked) -> Recorded:
    values = read_config(tracker, run.run_id)
    composed = restore_config(run.run_id, values, asked.overrides, asked.config_dir)
    kept = {tag: run.tags[tag] for tag in FLAGS if tag in run.tags}
    if asked.config_dir:
        kept["config_dir"] = asked.config_dir
    link, _ = LINKS[bool(variations(asked.overrides))]
    composed.tracking.tags = {**kept, **composed.tracking.tags, link: run.run_id}
    if composed.tracking.explain == "auto":  # what it decided then
        composed.tracking.explain = _was_explained(tracker, run)
    config = typed_record(run.run_id, composed)
    return Recorded(run, values, composed, config, replaced(read_overrides(tracker, run.run_id), asked.overrides))


def _was_explained(tracker: RunStore, run: "RunInfo") -> bool:
    names = (*run.metrics, *tracker.artifacts(run.run_id, "explain"))
    return any(name.startswith("explain/") for name in names)


def _train_and_compare(tracker: RunStore, old: Recorded, folder: Path, tolerance: float, varied: list[str]) -> bool:
    """Run the job in a folder of its own, or take it from there; returns whether data and figures are the same."""
    dataset = load_dataset(old.config)
    same_data = _say_what_differs(tracker, old, dataset, varied)
    new_id = _train(Job.from_hydra(old.composed, folder, old.overrides), dataset.digest)
    same = same_figures(tracker, old.run.run_id, new_id, tolerance) and same_data
    _link(tracker, old.run.run_id, new_id, same, varied)
    if not same_data and not varied:
        warn("cnnexp: the data is not that of the run, so this is no reproduction of it")
    return same


def _train(job: Job, data_digest: str) -> str:
    """The id of the new run."""
    from cnnexp.runs.run import run_job

    with job.folder.lock(), drawing_process():
        made = job.folder.manifest
        same = made and (made.config_hash, made.data_digest) == (config_hash(job.resolved), data_digest)
        if made and same and job.folder.status == "FINISHED":
            say(f"is trained already, run {made.run_id}")
            return made.run_id
        run_job(job)
    return job.folder.read_result().run_id


def show_packages(tags: Mapping[str, str], requirements: str) -> None:
    """Print a table of the packages that compute and have another version here, and a line about the others.

    Args:
        tags: of the run.
        requirements: its requirements.txt.
    """
    here = environment_tags()
    names = ("python", *PACKAGES)
    changed = [(name, tags.get(name, "-"), here.get(name, "-")) for name in names if tags.get(name) != here.get(name)]
    then, now = read_pins(requirements), read_pins(requirements_text())
    known = {alias for aliases in PACKAGES.values() for alias in aliases}
    others = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name) and name not in known)
    if changed:
        table("packages that differ", ["package", "then", "here"], changed)
    else:
        say(f"packages: the same versions of {', '.join(names)}")
    if others:
        say(f"other packages: {len(others)} of {len(then.keys() | now.keys())} differ: {_some(others)}")


def show_machine(tags: Mapping[str, str], threads: int | None) -> None:
    """Print a line about the processor, and one about its cores where they decide the last digits.

    Args:
        tags: of the run; those of an old one may tell nothing.
        threads: `trainer.threads`.
    """
    then, now = tags.get("processor", "not recorded"), processor()
    say(f"processor: the same, {now}" if then == now else f"processor: then {then}, here {now}")
    if threads is None and tags.get("cores") not in (None, str(cores())):
        wanted = tags["cores"]
        say(f"cores: then {wanted}, here {cores()}: last digits will differ; trainer.threads={wanted} mends that")


def read_pins(requirements: str) -> dict[str, str]:
    """The versions of `name==version` lines by the names in small letters; other lines are left out."""
    matches = (PIN.fullmatch(line.strip()) for line in requirements.splitlines())
    return {match[1].lower(): match[2] for match in matches if match}


def show_code(tags: Mapping[str, str]) -> None:
    """Print a line about the git commit."""
    then, now = _code(tags), _code(environment_tags())
    same = "git_commit" in tags and then == now and tags.get("git_dirty") == "false"
    say(f"code: the same commit, {then}" if same else f"code: then {then}, here {now}")


def _code(tags: Mapping[str, str]) -> str:
    if "git_commit" not in tags:
        return "no git commit"
    return tags["git_commit"][:12] + (" with changes that are not committed" if tags.get("git_dirty") == "true" else "")


def show_data(tags: Mapping[str, str], metrics: Mapping[str, float], tested: Predictions, dataset: "Dataset") -> bool:
    """Print a line about the data, and return whether it is the same, to the last byte.

    Args:
        tags: of the run: `data_digest`.
        metrics: of the run: how many images each split had.
        tested: its answers, for the names and classes of the test images.
        dataset: as it lies here.
    """
    then = tags.get("data_digest", "")
    if then == dataset.digest:
        say(f"data: the same, {dataset.name} {dataset.digest[:12]}")
        return True
    found = _changes(metrics, tested, dataset)
    why = "; ".join(found) or "counts, classes and test images have the same names, so the content of files changed"
    say(f"data: differs: {dataset.name} {dataset.digest[:12]}, was {then[:12] or 'not recorded'}: {why}")
    return False


def _changes(metrics: Mapping[str, float], tested: Predictions, dataset: "Dataset") -> list[str]:
    found = []
    if tested.class_names != dataset.class_names:
        found.append(f"classes {_some(dataset.class_names)}, were {_some(tested.class_names)}")
    for split in dataset.splits:
        then, now = metrics.get(image_count(split.name)), len(split.ids)
        if then is not None and then != now:
            found.append(f"{now:,} {split.name} images, were {then:,.0f}")
    gone, new = set(tested.ids) - set(dataset.test.ids), set(dataset.test.ids) - set(tested.ids)
    if gone or new:
        found.append(f"test images: {len(gone)} are no longer there, {len(new)} are new: {_some(sorted(gone | new))}")
    return found


def _some(names: object) -> str:
    listed = [str(name) for name in names]  # type: ignore[attr-defined]
    return ", ".join(listed[:MOST_NAMED]) + (", ..." if len(listed) > MOST_NAMED else "")


@dataclass(frozen=True)
class MetricDifference:
    """One metric of two runs; `difference` is the largest over its steps, infinite where one run has no such step."""

    name: str
    old: float | None  # last value
    new: float | None
    difference: float
    steps: int

    def differs(self, tolerance: float) -> bool:
        """Whether it is further off than `tolerance`; what describes heat maps may be so by their rounding, whatever
        version of cnnexp drew them."""
        return self.difference > (max(tolerance, EXPLAINED) if self.name.startswith("explain/") else tolerance)


def read_histories(tracker: RunStore, run_id: str, names: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every point of the metrics that say what a run computed, in the order of the steps."""
    return {name: tracker.history(run_id, name) for name in names if not IGNORED.search(name)}


def compare_figures(old: Histories, new: Histories) -> list[MetricDifference]:
    """Every metric that the old run has; what only the new one has, a newer version of cnnexp added."""
    figures = []
    for name, before in old.items():
        first, second = dict(before), dict(new.get(name, ()))
        differences = [_difference(first.get(step), second.get(step)) for step in first.keys() | second.keys()]
        last = [values[max(values)] if values else None for values in (first, second)]
        figures.append(MetricDifference(name, last[0], last[1], max(differences, default=0.0), len(first)))
    return figures


def _difference(old: float | None, new: float | None) -> float:
    if old is None or new is None or math.isnan(old) != math.isnan(new):
        return math.inf
    return 0.0 if math.isnan(old) or old == new else abs(new - old)


def show_figures(figures: Sequence[MetricDifference], tolerance: float) -> None:
    """Print a row for each metric; of a curve its last values and the largest difference over the epochs."""
    rows = []
    for figure in sorted(figures, key=lambda figure: (figure.steps > 1, figure.name)):
        epochs = f" (in {figure.steps} epochs)" if figure.steps > 1 else ""
        mark = "differs" if figure.differs(tolerance) else ""
        rows.append([figure.name + epochs, *map(_text, (figure.old, figure.new)), f"{figure.difference:.3g}", mark])
    table("", ["metric", "old", "new", "difference", ""], rows)
    wrong = sum(figure.differs(tolerance) for figure in figures)
    largest = max((figure.difference for figure in figures), default=0.0)
    within = "exactly" if tolerance == 0 else f"within {tolerance:g}"
    said = f"{wrong} of {len(figures)} differ" if wrong else f"all {len(figures)} agree {within}"
    say(f"figures: {said}; largest difference {largest:.3g}")


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.9g}"


def _say_what_differs(tracker: RunStore, old: Recorded, dataset: "Dataset", varied: list[str]) -> bool:
    """Print what is different here, and return whether the data is the same."""
    run, config = old.run, old.config
    say(f"run {run.run_id}: {run.name}, of {run.start_time:%Y-%m-%d %H:%M} UTC")
    if varied:
        say(f"varied: {redact(' '.join(varied))}; the figures may well differ")
    if config_hash(old.values) != run.tags.get("config_hash"):
        warn("cnnexp: config.yaml is not the one that the run names in its tag config_hash: it was changed afterwards")
    if not config.trainer.deterministic:
        warn("cnnexp: trainer.deterministic=false: exact agreement cannot be expected; give a --tolerance")
    show_packages(run.tags, read_text(tracker, run.run_id, "requirements.txt"))
    show_code(run.tags)
    show_changes(tracker, run, old.values, Path(config.paths.cache))
    show_machine(run.tags, config.trainer.threads)
    for key in ("dataset.path", "dataset.source", "backbone.weights"):
        group, name = key.split(".")
        if value := getattr(getattr(config, group), name, None):
            say(f"{key}: {redact(value)}")
    with tempfile.TemporaryDirectory() as folder:
        tested = read_predictions(tracker.download(run.run_id, PREDICTIONS, folder))
    return show_data(run.tags, run.metrics, tested, dataset)


def same_figures(tracker: RunStore, old_id: str, new_id: str, tolerance: float) -> bool:
    """Print the table, and return whether all figures agree."""
    old, new = (read_histories(tracker, run_id, [*tracker.get_run(run_id).metrics]) for run_id in (old_id, new_id))
    figures = compare_figures(old, new)
    show_figures(figures, tolerance)
    return not any(figure.differs(tolerance) for figure in figures)


def _link(tracker: RunStore, old_id: str, new_id: str, agrees: bool, varied: list[str]) -> None:
    """Tags in both runs, and a line in the note of the new one."""
    link, back = LINKS[bool(varied)]
    said = "with the same figures" if agrees else "with other figures or other data"
    what, end = ("Reproduces", f" {said}.") if not varied else ("Varies", f": `{redact(' '.join(varied))}`.")
    line, note = f"{what} [{old_id}]({tracker.run_link(old_id)}){end}", tracker.get_run(new_id).tags.get(NOTE_TAG, "")
    tags = {NOTE_TAG: note if line in note else f"{note}\n\n{line}", link: old_id}
    if not varied:
        tags["reproduction"] = "agrees" if agrees else "differs"
    tracker.add_tags(new_id, tags)
    others = tracker.get_run(old_id).tags.get(back, "").split()
    tracker.add_tags(old_id, {back: " ".join(dict.fromkeys([*others, new_id]))})
    say(f"run {new_id} varies {old_id}" if varied else f"run {new_id} reproduces {old_id} {said}")
