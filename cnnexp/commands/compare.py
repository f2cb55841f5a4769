"""`cnnexp compare`: what each run reached, how surely, and what each step gained and cost."""

from pathlib import Path

from cnnexp.commands.arguments import JSON, RUN, CommandParser
from cnnexp.config.composition import load_config
from cnnexp.console import say, warn
from cnnexp.errors import UserError
from cnnexp.runs.tracker import open_tracker
from cnnexp.tracking.info import RunInfo
from cnnexp.tracking.protocols import RunStore
from cnnexp.tracking.record import redact

TEXT = """\
Table, chart and page of a sweep (the newest if nothing is named) or of the named runs, in their order: test accuracy
with its 95 % interval (Wilson), mean and spread over seeds, the gain of each step with McNemar's exact test, its cost,
and the photos that it fixed and broke. Those of a sweep are recorded in its parent run, too."""


def parser() -> CommandParser:
    """The arguments of `cnnexp compare`."""
    where = "as tracking.uri=URI or paths.root=FOLDER, where the runs lie elsewhere"
    examples = ["latest 4f1c paths.root=FOLDER", "--sweep 90ab12 --json"]
    made = CommandParser("compare", TEXT, {"[RUN...]": RUN, "[OVERRIDES]": where}, examples)
    made.add_argument("--sweep", help="the run id of a sweep's parent run, or a unique prefix")
    made.add_argument("--json", action="store_true", help=JSON)
    return made


def run(arguments: list[str]) -> int:
    """Read the runs, compare, show, write, record."""
    given = parser().parse(arguments)
    sweep, names = given.sweep, given.names
    if sweep and names:
        raise UserError("cnnexp compare: give run ids or --sweep, not both")
    config = load_config(given.overrides)
    tracker = open_tracker(config.tracking)
    from cnnexp.report.compare import summarise
    from cnnexp.report.tables import to_json
    from cnnexp.runs.comparison import distinguish, show_comparison, write_report
    from cnnexp.runs.result import read_result

    parent = None if names else tracker.find_run(sweep) if sweep else _newest_sweep(tracker)
    infos = tracker.children(parent.run_id) if parent else [tracker.find_run(name) for name in names]
    infos = list({info.run_id: info for info in infos}.values())  # two names may lead to one run
    if not infos:
        raise UserError(f"--sweep {sweep}: this run has no children; name runs instead")
    name = parent.run_id if parent else "_".join(info.run_id[:8] for info in infos)[:80]
    folder = Path(config.paths.root) / "compare" / name
    results = [read_result(tracker, info, order, folder) for order, info in enumerate(infos)]
    comparison = summarise(distinguish(results, [info.tags.get("overrides", "").split() for info in infos]))
    if given.json:
        print(to_json(comparison))
        return 0
    show_comparison(comparison)
    for file in write_report(folder, comparison, (f"{parent.name}: " if parent else "") + f"{len(infos)} runs"):
        say(str(file))
        if parent:
            _record(tracker, parent.run_id, file)
    return 0


def _record(tracker: RunStore, run_id: str, file: Path) -> None:
    """Put a file beside the artifacts that a sweep recorded at its end, in place of an older one."""
    try:
        tracker.add_artifact(run_id, file)
    except Exception as error:  # of MLflow or the network: whoever may only read has the files all the same
        reason = redact(str(error) or type(error).__name__).splitlines()[0]
        warn(f"cnnexp: {file.name} was not recorded in run {run_id}: {reason}")


def _newest_sweep(tracker: RunStore) -> RunInfo:
    sweeps = tracker.sweeps(1)
    if not sweeps:
        raise UserError("cnnexp compare: the store has no sweep yet; run `cnnexp train sweep=demo`, or name runs")
    return sweeps[0]
