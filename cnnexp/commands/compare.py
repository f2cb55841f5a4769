"""`cnnexp compare`: what each run reached, how surely, and what each step gained and cost."""

from pathlib import Path
from typing import Any

from cnnexp.commands.arguments import split_overrides, take_option
from cnnexp.commands.stores import open_tracker
from cnnexp.composition import load_config
from cnnexp.console import say
from cnnexp.errors import UserError

HELP = """usage: cnnexp compare [RUN...] [--sweep SWEEP] [OVERRIDES]

Table, chart and page of a sweep (the newest if nothing is named) or of the named runs, in their order: test accuracy
with its 95 % interval (Wilson), mean and spread over seeds, the gain of each step with McNemar's exact test, its cost.

  RUN           an MLflow run id, a unique prefix of one, or `latest`
  --sweep S     the run id of a sweep's parent run, or a unique prefix
  OVERRIDES     as tracking.uri=URI or paths.root=FOLDER, where the runs lie elsewhere
"""


def run(arguments: list[str]) -> int:
    """Read the runs, compare, show, write."""
    sweep, arguments = take_option(arguments, "--sweep")
    names, overrides = split_overrides(arguments)
    if sweep and names:
        raise UserError("cnnexp compare: give run ids or --sweep, not both")
    config = load_config(overrides)
    tracker = open_tracker(config)
    from cnnexp.commands.reporting import distinguish, show_comparison, write_report
    from cnnexp.report.compare import summarise

    folder = Path(config.paths.root) / "compare"
    if names:
        infos = [tracker.find_run(name) for name in names]
        folder, title = folder / "_".join(info.run_id[:8] for info in infos)[:80], f"{len(infos)} runs"
    else:
        parent = tracker.find_run(sweep) if sweep else _newest_sweep(tracker)
        infos = tracker.children(parent.run_id)
        folder, title = folder / parent.run_id, f"{parent.name}: {len(infos)} runs"
    if not infos:
        raise UserError(f"--sweep {sweep}: this run has no children; name runs instead")
    results = [_result(tracker, info, order, folder) for order, info in enumerate(infos)]
    comparison = summarise(distinguish(results, [info.tags.get("overrides", "").split() for info in infos]))
    show_comparison(comparison)
    for file in write_report(folder, comparison, title):
        say(str(file))
    return 0


def _newest_sweep(tracker: Any) -> Any:
    sweeps = tracker.sweeps(1)
    if not sweeps:
        raise UserError("cnnexp compare: the store has no sweep yet; run `cnnexp train sweep=demo`, or name runs")
    return sweeps[0]


def _result(tracker: Any, info: Any, order: int, folder: Path) -> Any:
    from cnnexp.report.compare import Result

    metrics, reference = info.metrics, info.params.get("reference_accuracy", "null")
    predictions = None
    if info.status == "FINISHED":
        predictions = tracker.download(info.run_id, "predictions.csv", folder / "predictions" / info.run_id)
    return Result(
        run_id=info.run_id,
        name=info.params.get("name", info.name),
        seed=int(info.params.get("seed", 0)),
        status=info.status,
        test_accuracy=metrics.get("test/acc"),
        test_total=int(metrics["count/test_images"]) if "count/test_images" in metrics else None,
        val_accuracy=metrics.get("val/acc"),
        train_seconds=metrics.get("time/total_s"),
        epochs=int(info.params["trainer.epochs"]) if "trainer.epochs" in info.params else None,
        total_parameters=_count(metrics, "count/parameters"),
        trainable_parameters=_count(metrics, "count/trainable_parameters"),
        reference_accuracy=None if reference == "null" else float(reference),
        predictions_path=predictions,
        order=order,
    )


def _count(metrics: dict[str, float], name: str) -> int | None:
    return int(metrics[name]) if name in metrics else None
