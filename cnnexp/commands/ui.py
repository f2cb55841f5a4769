"""`cnnexp ui`: MLflow's own UI on the right store."""

import argparse
import os
import socket
import subprocess
import time
import urllib.request

from cnnexp.commands.arguments import CommandParser, add_config_dir, split_overrides
from cnnexp.config.composition import load_config
from cnnexp.console import redact, say, stdout
from cnnexp.errors import UserError
from cnnexp.process import guarded
from cnnexp.runs.tracker import open_tracker
from cnnexp.tracking.stores import is_missing, sqlite_file

SERVER = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its job runners, of ten processes, serve nothing shown here
    "PYTHONWARNINGS": "ignore",  # it warns of what its own packages are to change
}
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
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_config_dir(own)
    folder, options = own.parse_known_args(options)
    known, _ = parser().parse_known_args(options)
    config = load_config(overrides, folder.config_dir)
    if config.tracking.uri is None:
        raise UserError("tracking.uri=null: there is no store to show; leave tracking=mlflow")
    tracker = open_tracker(config.tracking)
    if config.tracking.uri.startswith(("http://", "https://")):
        say("runs are recorded by a server, which has its own UI:")
        _say_links(tracker.view_links(redact(config.tracking.uri).rstrip("/")))
        return 0
    host, port = known.host, _port(known.port)
    address = f"http://{host}:{port}"
    _check_free(host, port)
    say(f"waits for MLflow's server on {address}, which takes some seconds to start (Ctrl-C ends it)")
    file = sqlite_file(tracker.uri)
    links = None
    if file and not is_missing(file):
        tracker.look()
    else:
        links = tracker.view_links(address)  # which makes the store
    command, settings = guarded([*tracker.ui_command(), *options]), {**SERVER, **os.environ}
    server = subprocess.Popen(command, stdin=subprocess.PIPE, env=settings, start_new_session=True)
    assert server.stdin
    try:
        _say_links(links or tracker.view_links(address))  # while it starts
        _say_when_it_answers(server, address)
        return server.wait()
    finally:
        server.stdin.close()  # which ends it
        server.wait()


def _port(given: str) -> int:
    if not (given.isdecimal() and 0 < int(given) < 65536):
        raise UserError(f"--port {given}: must be a number from 1 to 65535")
    return int(given)


def _check_free(host: str, port: int) -> None:
    """Refuse a port that is taken, before MLflow's server tries for it.

    Raises:
        UserError: it is taken, or there is no such host here.
    """
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        remedy = f"choose another port: cnnexp ui --port {port + 1 if port < 65535 else port - 1}"
        reason = str(error.strerror or error).partition(" (")[0]  # Python says the address once more
        raise UserError(f"--port {port}: {host}:{port} cannot be served ({reason}); {remedy}") from error


def _say_when_it_answers(server: subprocess.Popen[bytes], address: str) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while server.poll() is None:
        try:
            direct.open(f"{address}/health", timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            say(f"MLflow's UI answers: {address}")
            return


def _say_links(links: dict[str, str]) -> None:
    """Not whole by `say`: it would hide the values behind `?`, here the name of a view, and break long lines."""
    for name, url in links.items():
        address, mark, view = url.partition("/#/")
        stdout().print(f"  {name:<11} {redact(address)}{mark}{view}", markup=False, soft_wrap=True)
