"""`cnnexp ui`: MLflow's own UI on the right store."""

import subprocess

from cnnexp.commands.arguments import CommandParser, split_overrides
from cnnexp.config.composition import load_config
from cnnexp.console import say
from cnnexp.errors import UserError
from cnnexp.runs.tracker import open_tracker
from cnnexp.tracking.record import redact

TEXT = """\
Opens MLflow's UI on the store that the config names, and prints the addresses of its views: the newest sweeps, the
best runs first, their curves. Further options are those of `mlflow ui`."""


def parser() -> CommandParser:
    """The arguments of `cnnexp ui`, but for the options of `mlflow ui` that only MLflow reads."""
    words = {"[OVERRIDES]": "as tracking.uri=URI or paths.root=FOLDER, where the runs lie elsewhere"}
    made = CommandParser("ui", TEXT, words, ["--port 5001", "paths.root=FOLDER --workers 2"])
    made.add_argument("--host", default="127.0.0.1", help="where the server answers; %(default)s if not given")
    made.add_argument("--port", "-p", default="5000", help="%(default)s if not given")
    return made


def run(arguments: list[str]) -> int:
    """Start MLflow's server and stay until it ends."""
    options, overrides = split_overrides(arguments)  # the options of MLflow keep their order
    known, _ = parser().parse_known_args(options)
    config = load_config(overrides)
    if config.tracking.uri is None:
        raise UserError("tracking.uri=null: there is no store to show; leave tracking=mlflow")
    tracker = open_tracker(config.tracking)
    if config.tracking.uri.startswith(("http://", "https://")):
        say("runs are recorded by a server, which has its own UI:")
        _say_links(tracker.view_links(redact(config.tracking.uri).rstrip("/")))
        return 0
    say("MLflow's UI (Ctrl-C ends it):")
    _say_links(tracker.view_links(f"http://{known.host}:{known.port}"))
    return subprocess.call([*tracker.ui_command(), *options])


def _say_links(links: dict[str, str]) -> None:
    for name, url in links.items():
        say(f"  {name:<11} {url}")
