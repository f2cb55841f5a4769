"""`cnnexp ui`: MLflow's own UI on the right store."""

import subprocess

from cnnexp.commands.stores import open_tracker
from cnnexp.composition import load_config
from cnnexp.console import say
from cnnexp.errors import UserError

HELP = """usage: cnnexp ui [OVERRIDES] [OPTIONS OF mlflow ui]

Opens MLflow's UI on the store that the config names. `cnnexp ui --port 5001` chooses the port.
"""


def run(arguments: list[str]) -> int:
    """Start MLflow's server and stay until it ends."""
    overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
    options = [a for a in arguments if a not in overrides]
    config = load_config(overrides)
    if config.tracking.uri is None:
        raise UserError("tracking.uri=null: there is no store to show; leave tracking=mlflow")
    if config.tracking.uri.startswith(("http://", "https://")):
        say(f"runs are recorded by a server; open {config.tracking.uri} in a browser")
        return 0
    tracker = open_tracker(config)
    tracker.prepare()
    say("MLflow's UI at http://127.0.0.1:5000 (Ctrl-C ends it)" if not options else "MLflow's UI (Ctrl-C ends it)")
    return subprocess.call([*tracker.ui_command(), *options])
