"""A tracking server of one's own: MLflow over HTTP on a PostgreSQL database, which is stopped and started."""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cnnexp.tracking.mlflow import Tracker

PASSWORD = "s3cret-of-mine"
Run = Callable[..., tuple[int, str, str]]


def find_programs() -> Path | None:
    """The folder of `initdb`: on the PATH, or where Debian puts it."""
    places = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return places[-1] if places else None


PROGRAMS = find_programs()
AS_USER = "postgres" if hasattr(os, "geteuid") and os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
DRIVER = importlib.util.find_spec("psycopg") is not None  # which SQLAlchemy 2.1 takes for postgresql://
pytestmark = [
    pytest.mark.trains,
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAMS is None, reason="no PostgreSQL (initdb) found"),
    pytest.mark.skipif(not DRIVER, reason="no psycopg: pip install 'cnnexp[postgresql]'"),
]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass
class Database:
    """A PostgreSQL cluster on the loopback interface, with a password."""

    folder: Path
    port: int

    @property
    def uri(self) -> str:
        return f"postgresql://mlflow:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def call(self, program: str, *arguments: str) -> None:
        assert PROGRAMS is not None
        command = [str(PROGRAMS / program), *arguments]
        done = subprocess.run(
            command, user=AS_USER, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def create(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if AS_USER:
            for path in (self.folder, secret):
                shutil.chown(path, AS_USER)
        login = ["--username", "mlflow", "--auth", "scram-sha-256", "--pwfile", str(secret)]
        self.call("initdb", "--pgdata", "data", *login, "--encoding", "UTF8", "--no-sync")

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder} -F"
        self.call("pg_ctl", "start", "-D", "data", "-w", "-l", "log", "-o", options)

    def stop(self) -> None:
        self.call("pg_ctl", "stop", "-D", "data", "-m", "fast")


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="pg-") as folder:  # short, for the socket, and open to AS_USER
        database = Database(Path(folder), free_port())
        database.create()
        database.start()
        try:
            yield database
        finally:
            subprocess.run(
                [str(PROGRAMS / "pg_ctl"), "stop", "-D", "data", "-m", "immediate"],  # type: ignore[operator]
                user=AS_USER, cwd=folder, capture_output=True,
            )  # fmt: skip


@pytest.fixture(scope="module")
def server(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database.uri, "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # starts sooner
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail((folder / "log").read_text())
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.parametrize("direct", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_database_that_is_restarted_costs_nothing(
    database: Database, server: str, direct: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    address, journal = (database.uri, server)[not direct], tmp_path / "unsent.jsonl"
    tracker = Tracker(address, f"restarted {direct}", str(tmp_path / "artifacts"))
    parent = tracker.start_run("parent", {}, {"sweep": "parent"})
    run_id = tracker.start_run("variant", {"seed": "1"}, {}, parent, journal=journal)
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 1000)
    tracker.log_metrics({"loss": 0.0}, 0)
    database.stop()
    try:
        began = time.monotonic()
        for step in (1, 2, 3):
            tracker.log_metrics({"loss": float(step), "lr": 0.1}, step)
        tracker.log_artifact(tmp_path / "a.bin")
        tracker.log_text("text", "notes/b.txt")
        tracker.set_tags({"key": "value"})
        assert time.monotonic() - began < 15
        assert len(journal.read_text().splitlines()) >= 5  # the server may write artifacts without its database
    finally:
        database.start()
    tracker.log_metrics({"loss": 4.0}, 4)
    tracker.end_run("FINISHED")

    (run,) = tracker.children(parent)
    assert (run.run_id, run.status, run.tags["key"], run.params) == (run_id, "FINISHED", "value", {"seed": "1"})
    history = tracker.client().get_metric_history(run_id, "loss")
    assert sorted((figure.step, figure.value) for figure in history) == [(step, float(step)) for step in range(5)]
    assert len(tracker.client().get_metric_history(run_id, "lr")) == 3
    assert tracker.find_run(run_id[:12]).metrics == {"loss": 4.0, "lr": 0.1}
    assert tracker.download(run_id, "a.bin", tmp_path / "got").read_bytes() == (tmp_path / "a.bin").read_bytes()
    assert tracker.download(run_id, "notes/b.txt", tmp_path / "got").read_text() == "text"
    assert not journal.exists()
    printed = "".join(capfd.readouterr())
    assert printed.count("cnnexp: the tracking store does not answer") == 1 and str(journal) in printed
    assert len(printed.splitlines()) == 1 and PASSWORD not in printed


def test_train_and_predict(server: str, cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    address = server.replace("://", f"://me:{PASSWORD}@")
    uri = f"tracking.uri={address}"
    code, out, err = cnnexp("train", "debug=smoke", "dataset.image_size=48", f"paths.data={drawn_root}", uri)
    assert code == 0, err
    printed = out + err
    tracker = Tracker(address, "cnnexp", "unused")
    run = tracker.find_run("latest")
    assert run.status == "FINISHED" and {"test/acc", "train/loss", "x/time/total_s"} <= set(run.metrics)
    history = tracker.client().get_metric_history(run.run_id, "train/loss")
    assert [figure.step for figure in history] == [1, 2]
    names = {item.path for item in tracker.client().list_artifacts(run.run_id)}
    assert {"config.yaml", "summary.txt", "predictions.csv", "curves.png"} <= names
    assert run.params["tracking.uri"] == server.replace("://", "://me:***@")
    assert not [value for value in [*run.params.values(), *run.tags.values()] if PASSWORD in value]

    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    files = [file for file in folder.rglob("*") if file.is_file() and file.parent.name != ".hydra"]
    assert "unsent.jsonl" not in {file.name for file in files}
    assert not [file.name for file in files if PASSWORD.encode() in file.read_bytes()]

    image = next(file for file in sorted(drawn_root.rglob("*.jpg")) if "mask" not in str(file))
    code, out, err = cnnexp("predict", run.run_id, str(image), uri)
    assert code == 0, err
    assert re.search(r"0\.\d+|1\.0", out)
    assert PASSWORD not in printed + out + err
