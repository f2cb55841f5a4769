"""`cnnexp compare`: what each run reached, how surely, and what each step gained and cost."""

from pathlib import Path
from textwrap import fill

from cnnexp.commands.arguments import JSON, RUN, CommandParser
from cnnexp.config.composition import load_config
from cnnexp.console import redact, say, warn
from cnnexp.errors import UserError, first_line
from cnnexp.files import writable
from cnnexp.metrics.names import FIGURE_NAMES, own_figures
from cnnexp.report.columns import order_in_words
from cnnexp.runs.tracker import open_tracker
from cnnexp.tracking.info import RunInfo
from cnnexp.tracking.protocols import RunStore

TEXT = fill(
    "Table, chart and page of a sweep (the newest if nothing is named) or of the named runs. A list of experiments is "
    "a progression: test figure with its 95 % interval, mean and spread over seeds, the gain of each step with a "
    "paired test over the images and all seeds, its cost, and the photos that it fixed and broke. Everything else, "
    "and runs that are named, is a grid: a column for each key in which runs differ, the points ranked by the "
    "validation figure trainer.monitor, what the best is worth after having been chosen, and what each key does. "
    "sweep.report=progression or grid shows the one as the other. Runs on different images are not ranked. A narrow "
    f"terminal gets fewer columns: {order_in_words()}. A sweep's are recorded in its parent run, too.",
    120,
    break_on_hyphens=False,
)


def parser() -> CommandParser:
    """The arguments of `cnnexp compare`."""
    where = "as tracking.uri=URI or paths.root=FOLDER, where the runs lie elsewhere"
    examples = ["latest 4f1c paths.root=FOLDER --pairs", "--sweep 90ab12 --metric f1_macro --against baseline"]
    made = CommandParser("compare", TEXT, {"[RUN...]": RUN, "[OVERRIDES]": where}, examples)
    made.add_argument("--sweep", help="the run id of a sweep's parent run, or a unique prefix")
    made.add_argument(
        "--metric", help=f"{', '.join(FIGURE_NAMES)}, or your own; default: what all runs monitor, else acc"
    )
    made.add_argument("--against", help="compare each variant with this one: its name, or a run id's beginning")
    made.add_argument("--pairs", action="store_true", help="compare each pair of variants, too")
    made.add_argument("--wide", action="store_true", help="all columns, on a narrow terminal too")
    made.add_argument("--csv", action="store_true", help="only CSV on standard output, every figure unrounded")
    made.add_argument("--json", action="store_true", help=JSON)
    return made


def run(arguments: list[str]) -> int:
    """Read the runs, compare, show, write, record."""
    given = parser().parse(arguments)
    sweep, names = given.sweep, given.names
    if sweep and names:
        raise UserError("cnnexp compare: give run ids or --sweep, not both")
    if given.wide + given.csv + given.json > 1:
        raise UserError("cnnexp compare: give one of --wide, --csv and --json")
    metric = "log_loss" if given.metric == "loss" else given.metric
    config = load_config(given.overrides, given.config_dir)
    tracker = open_tracker(config.tracking)
    from cnnexp.report.compare import Wanted
    from cnnexp.report.tables import to_csv, to_json
    from cnnexp.runs.comparison import Asked, compare_runs, facts_of_runs, show_comparison, write_report

    asked = Asked(config.sweep.report, Wanted(metric, given.against, given.pairs))
    parent = None if names else tracker.find_run(sweep) if sweep else _newest_sweep(tracker)
    infos = tracker.children(parent.run_id) if parent else [tracker.find_run(name) for name in names]
    infos = list({info.run_id: info for info in infos}.values())  # two names may lead to one run
    if not infos:
        raise UserError(f"--sweep {sweep}: this run has no children; name runs instead")
    known = [*FIGURE_NAMES, *sorted({name for info in infos for name in own_figures(info.metrics)})]
    if metric is not None and metric not in known:
        raise UserError(f"--metric {metric}: no such figure; it is one of {', '.join(known)}")
    name = parent.run_id if parent else "_".join(info.run_id[:8] for info in infos)[:80]
    folder = writable(Path(config.paths.root) / "compare") / name
    comparison = compare_runs(tracker, infos, parent, asked, folder)
    if given.json or given.csv:
        print(to_json(comparison) if given.json else to_csv(comparison, given.pairs), end="\n" if given.json else "")
        return 0
    show_comparison(comparison, given.wide, metric is not None)
    title = (f"{parent.name}: " if parent else "") + f"{len(infos)} runs"
    for file in write_report(folder, comparison, title, facts_of_runs(infos, parent)):
        say(str(file))
        if parent:
            _record(tracker, parent.run_id, file)
    return 0


def _record(tracker: RunStore, run_id: str, file: Path) -> None:
    """Put a file beside the artifacts that a sweep recorded at its end, in place of an older one."""
    try:
        tracker.add_artifact(run_id, file)
    except Exception as error:  # of MLflow or the network: whoever may only read has the files all the same
        warn(f"cnnexp: {file.name} was not recorded in run {run_id}: {redact(first_line(error))}")


def _newest_sweep(tracker: RunStore) -> RunInfo:
    sweeps = tracker.sweeps(1)
    if not sweeps:
        raise UserError(
            "cnnexp compare: the store has no sweep yet; `cnnexp train -m seed=0,1,2 ...` makes one; or name runs, as "
            "`cnnexp compare latest`"
        )
    return sweeps[0]
