"""Explains runs that are finished: what their heat maps show, recorded as if the run had drawn them."""

import shutil
from collections.abc import Collection
from pathlib import Path

from cnnexp.config import Config
from cnnexp.console import redact, say, shorten, warn
from cnnexp.errors import UserError
from cnnexp.files import may_write, scratch_folder, writable
from cnnexp.formats import read_yaml
from cnnexp.process import import_tensorflow
from cnnexp.runs.folder import ERRORS, HEAT_MAPS, RunFolder
from cnnexp.runs.recorded_config import Asked, as_recorded, check_targets, read_config, restore_config, typed_record
from cnnexp.tracking.info import RunInfo
from cnnexp.tracking.protocols import RunStore


def explain_job(tracker: RunStore, folder: RunFolder) -> None:
    """Explain the finished run of a job's folder, unless it is, or is not to be. What goes wrong is said, and no end.

    The run, which may have been done by another process, is read from the store, or where there is none from `folder`.
    """
    manifest = folder.manifest
    assert manifest is not None
    try:
        values = read_yaml(folder.config)
        config = typed_record(manifest.run_id, as_recorded(manifest.run_id, values))
        if config.tracking.explain != "auto" or (folder.path / HEAT_MAPS).is_file():
            return
        say(f"explaining the best job, run {manifest.run_id}")
        run = tracker.find_run(manifest.run_id) if tracker.uri else None
        explain_run(tracker, config, run, folder)
    except UserError as error:
        warn(f"cnnexp: the best job is not explained: {error}")
    except Exception as error:  # the jobs are done, and nothing of them may be lost for a picture
        warn(f"cnnexp: the best job is not explained: {type(error).__name__}: {redact(str(error))}")


def explain_recorded(tracker: RunStore, run: RunInfo, asked: Asked) -> list[Path]:
    """Explain a run of the store on its own test images; see `explain_run`.

    Args:
        tracker: on the store.
        run: a finished run.
        asked: where things are here.

    Raises:
        UserError: the data is not that of the run, or the run recorded no model.
    """
    values = read_config(tracker, run.run_id)
    if isinstance(values.get("backbone"), dict):
        values["backbone"]["weights"] = None  # they are in the model
    config = typed_record(run.run_id, restore_config(run.run_id, values, asked.overrides, asked.config_dir))
    import_tensorflow()
    check_targets(run.run_id, {"dataset": values.get("dataset")}, asked.allowed)
    folder = RunFolder(Path(run.tags.get("run_dir", "")))
    manifest = folder.manifest if run.tags.get("run_dir") else None
    if manifest is None or manifest.run_id != run.run_id or not may_write(folder.path):
        folder = RunFolder(writable(Path(config.paths.root) / "explain") / run.run_id)
    return explain_run(tracker, config, run, folder, asked.allowed)


def explain_run(
    tracker: RunStore, config: Config, run: RunInfo | None, folder: RunFolder, allowed: Collection[str] = ()
) -> list[Path]:
    """Draw why the worst mistakes of a run were made, measure its heat maps, and record both.

    Args:
        tracker: where `run` is.
        config: of the run.
        run: None: it is recorded nowhere but in `folder`.
        folder: the pictures are drawn into it; it may hold the network, where the store has none.
        allowed: layers and functions of the network that the user vouches for.

    Returns:
        The pictures.

    Raises:
        UserError: the images are not those that the run was tested on, or there is no model.
    """
    import_tensorflow()
    import keras

    from cnnexp.explain.localisation import localisation_metrics
    from cnnexp.models.build import trained_network
    from cnnexp.report.predictions import read_predictions
    from cnnexp.runs.artifacts import LONGEST_TITLE, Answers, draw_mistakes
    from cnnexp.runs.build import split_images
    from cnnexp.runs.job import load_dataset
    from cnnexp.runs.recorded_model import load_recorded
    from cnnexp.training.runtime import prepare_tensorflow

    prepare_tensorflow(config.seed, config.trainer.deterministic)
    dataset = load_dataset(config)
    predictions = read_predictions(_predictions(tracker, run, folder))
    if tuple(dataset.test.ids) != predictions.ids:
        raise UserError(f"dataset={dataset.name}: its test images are not those of the run; say where these are")
    if folder.network.is_file():
        network = keras.saving.load_model(folder.network, compile=False, safe_mode=True)
    elif run is not None:
        network = trained_network(load_recorded(config, run.run_id, allowed).model)
    else:
        raise UserError(f"{folder}: has no model, and none is recorded")
    images = split_images(config, dataset.test, config.dataset.image_size, dataset.channels)
    title = shorten(run.name if run is not None else f"{config.name}, {folder.path.name}", LONGEST_TITLE)
    draw_mistakes(folder.path, title, Answers(predictions, images, network))
    scores = localisation_metrics(network, dataset, images)
    written = [folder.path / name for name in (ERRORS, HEAT_MAPS) if (folder.path / name).is_file()]
    if run is not None:
        _record(tracker, run, folder.path, written, scores)
    return written


def _predictions(tracker: RunStore, run: RunInfo | None, folder: RunFolder) -> Path:
    """The run's answers: in its folder, or fetched from the store."""
    file = folder.predictions
    if run is not None and not file.is_file():
        folder.path.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder.path) as scratch:
            shutil.move(tracker.download(run.run_id, file.name, scratch), file)
    return file


def _record(tracker: RunStore, run: RunInfo, folder: Path, files: list[Path], scores: dict[str, float]) -> None:
    """Add pictures and figures to a finished run; a figure that it has already stays."""
    try:
        for file in files:
            below = file.parent.relative_to(folder)
            tracker.add_artifact(run.run_id, file, None if below == Path() else str(below))
        tracker.add_metrics(run.run_id, {name: value for name, value in scores.items() if name not in run.metrics})
    except UserError as error:  # whoever may only read has the files all the same
        warn(f"cnnexp: the pictures were not recorded in run {run.run_id}: {error}")
