"""`cnnexp doctor`: closes runs whose process died, sends what could not be recorded, and mends store and cache."""

from cnnexp.commands.arguments import split_overrides, take_flag
from cnnexp.config.composition import load_config
from cnnexp.console import table, warn
from cnnexp.errors import UserError
from cnnexp.runs.repair import examine

HELP = """usage: cnnexp doctor [--check] [OVERRIDES]

Looks after what runs leave when their process is killed or their store goes away:

  store      can it be opened, is its file sound
  places     of a store that was renamed, copied or mounted elsewhere: they are named as of here
  artifacts  finished runs whose recorded files cannot be reached (a word only)
  runs       RUNNING, though their process died: they are closed as KILLED
  journals   figures that could not be sent to the store: they are sent now
  unfinished runs that `cnnexp train ... trainer.resume=true` goes on with (a word only)
  features   damaged or half-written entries of the feature cache are removed
  leftovers  of data sets that were being drawn, and of files that were being written, are removed

What is alive is left alone. --check changes nothing. Ends with 0 if all is well or was mended, with 1 if not.
"""


def run(arguments: list[str]) -> int:
    """Look at each thing, mend it, show what was found."""
    check, arguments = take_flag(arguments, "--check")
    names, overrides = split_overrides(arguments)
    if names:
        raise UserError(f"{names[0]}: cnnexp doctor takes only --check and overrides, as paths.root=FOLDER")
    config = load_config(overrides)
    findings = list(examine(config, check))
    rows = [[finding.what, finding.found, finding.done] for finding in findings]
    table("", ["what", "found", "done"], rows, left=3)
    wrong = [finding.wrong for finding in findings if finding.wrong]
    for text in wrong:
        warn(f"cnnexp: {text}")
    return 1 if wrong else 0
