"""`cnnexp doctor`: closes runs whose process died, sends what could not be recorded, and mends store and cache."""

from cnnexp.commands.arguments import CommandParser
from cnnexp.config.composition import load_config
from cnnexp.console import table, warn
from cnnexp.errors import UserError
from cnnexp.runs.repair import examine

TEXT = """\
Looks after what runs leave when their process is killed or their store goes away:

  store       can it be opened, is its file sound
  places      of a store that was renamed, copied or mounted elsewhere: they are named as of here
  artifacts   finished runs whose recorded files cannot be reached (a word only)
  runs        RUNNING, though their process died: they are closed as KILLED
  journals    figures that could not be sent to the store: they are sent now
  unfinished  what was stopped, and the line that goes on with it
  features    damaged or half-written entries of the feature cache are removed
  leftovers   of data sets that were being drawn, and of files that were being written, are removed

What is alive is left alone. Ends with 0 if all is well or was mended, with 1 if not."""


def parser() -> CommandParser:
    """The arguments of `cnnexp doctor`."""
    where = "as paths.root=FOLDER, where the runs lie elsewhere"
    made = CommandParser("doctor", TEXT, {"[OVERRIDES]": where}, ["--check", "paths.root=FOLDER"])
    made.add_argument("--check", action="store_true", help="changes nothing")
    return made


def run(arguments: list[str]) -> int:
    """Look at each thing, mend it, show what was found."""
    given = parser().parse(arguments)
    if given.names:
        raise UserError(f"{given.names[0]}: cnnexp doctor takes only --check and overrides, as paths.root=FOLDER")
    findings = list(examine(load_config(given.overrides, given.config_dir), given.check))
    rows = [[finding.what, finding.found, finding.done] for finding in findings]
    table("", ["what", "found", "done"], rows, left=3)
    lines = [finding.line for finding in findings if finding.line]
    if lines:
        print("What was stopped goes on with", *lines, sep="\n  ")  # whole, however narrow the terminal is
    wrong = [finding.wrong for finding in findings if finding.wrong]
    for text in wrong:
        warn(f"cnnexp: {text}")
    return 1 if wrong else 0
