"""`cnnexp ui`: MLflow's own UI on the right store."""

import subprocess

from cnnexp.commands.arguments import take_option
from cnnexp.config.composition import load_config
from cnnexp.console import say
from cnnexp.errors import UserError
from cnnexp.runs.tracker import open_tracker
from cnnexp.tracking.record import redact

HELP = """usage: cnnexp ui [OVERRIDES] [OPTIONS OF mlflow ui]

Opens MLflow's UI on the store that the config names, and prints the addresses of its views: the newest sweeps, the
best runs first, their curves. `cnnexp ui --port 5001` chooses the port.
"""


def run(arguments: list[str]) -> int:
    """Start MLflow's server and stay until it ends."""
    overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
    options = [a for a in arguments if a not in overrides]
    config = load_config(overrides)
    if config.tracking.uri is None:
        raise UserError("tracking.uri=null: there is no store to show; leave tracking=mlflow")
    tracker = open_tracker(config.tracking)
    if config.tracking.uri.startswith(("http://", "https://")):
        say("runs are recorded by a server, which has its own UI:")
        _say_links(tracker.view_links(redact(config.tracking.uri).rstrip("/")))
        return 0
    say("MLflow's UI (Ctrl-C ends it):")
    _say_links(tracker.view_links(_address(options)))
    return subprocess.call([*tracker.ui_command(), *options])


def _address(options: list[str]) -> str:
    """Where the server will answer."""
    values = {"--host": "127.0.0.1", "--port": "5000"}
    for long, short in (("--host", "-h"), ("--port", "-p")):
        given = take_option(options, long)[0] or take_option(options, short)[0]
        values[long] = given or values[long]
    return f"http://{values['--host']}:{values['--port']}"


def _say_links(links: dict[str, str]) -> None:
    for name, url in links.items():
        say(f"  {name:<11} {url}")
