"""What can be wrong with a store, done to real ones: said in one line each, and none is changed by a look."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cnnexp.errors import RunError, UserError
from cnnexp.runs.evaluation import log_evaluation
from cnnexp.runs.explanation import _record
from cnnexp.tracking import artifacts, stores
from cnnexp.tracking.faults import OUTAGES, Fault, described, fault_of
from cnnexp.tracking.mlflow import Tracker

Run = Callable[..., tuple[int, str, str]]


def tracker(root: Path, experiment: str = "cnnexp") -> Tracker:
    return Tracker(f"sqlite:///{root}/outputs/mlflow.db", experiment, f"{root}/outputs/mlartifacts")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A store with one run."""
    store = tracker(tmp_path)
    store.start_run("r", {}, {})
    store.end_run("FINISHED")
    return tmp_path / "outputs" / "mlflow.db"


@pytest.fixture
def held(file: Path) -> Iterator[sqlite3.Connection]:
    """The store, locked by another process for as long as the test takes."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield connection


# -------------------------------------------------------------------------------------------------- sorted


def raised(work: Callable[[], object]) -> BaseException:
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


def statement(file: Path, *lines: str, mode: str = "rw") -> None:
    with closing(sqlite3.connect(f"file:{file}?mode={mode}", uri=True, timeout=0, isolation_level=None)) as connection:
        for line in lines:
            connection.execute(line).fetchall()


def test_what_sqlite_raises_is_sorted(file: Path, tmp_path: Path) -> None:
    noise, empty = tmp_path / "noise", tmp_path / "empty"
    noise.write_bytes(b"\x01" * 8192)
    empty.touch()
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        locked = raised(lambda: statement(file, "SELECT * FROM runs"))
    pages = sqlite3.connect(file).execute("PRAGMA page_count").fetchone()[0]
    grow = ("CREATE TABLE more (content BLOB)", "INSERT INTO more VALUES (zeroblob(1000000))")
    found = {
        Fault.IN_USE: locked,
        Fault.DAMAGED: raised(lambda: statement(noise, "SELECT * FROM runs")),
        Fault.FOREIGN: raised(lambda: statement(empty, "SELECT * FROM runs")),
        Fault.NO_RIGHT: raised(lambda: statement(file, "DELETE FROM runs", mode="ro")),
        Fault.FULL: raised(lambda: statement(file, f"PRAGMA max_page_count={pages + 9}", *grow)),
        Fault.AWAY: raised(lambda: statement(tmp_path / "none", "SELECT 1", mode="ro")),
    }
    assert {fault: fault_of(error) for fault, error in found.items()} == {fault: fault for fault in found}
    assert {Fault.IN_USE, Fault.FULL, Fault.AWAY} == OUTAGES


def wrapped(cause: BaseException, code: str) -> BaseException:
    """As MLflow hands it on: from SQLAlchemy's, from the driver's."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos import databricks_pb2
    from sqlalchemy.exc import OperationalError

    try:
        try:
            raise OperationalError("SELECT", {}, cause) from cause
        except OperationalError as error:
            raise MlflowException("caught", getattr(databricks_pb2, code)) from error
    except MlflowException as error:
        return error


@pytest.mark.parametrize(
    ("code", "text", "fault"),
    [
        (sqlite3.SQLITE_BUSY, "database is locked", Fault.IN_USE),
        (sqlite3.SQLITE_READONLY | 4 << 8, "attempt to write a readonly database", Fault.REPLACED),
        (sqlite3.SQLITE_ERROR, "no such table: runs", Fault.FOREIGN),
        (sqlite3.SQLITE_ERROR, "too many SQL variables", Fault.AWAY),  # as MLflow says itself
    ],
)
def test_the_deepest_cause_knows_best(code: int, text: str, fault: Fault) -> None:
    cause = sqlite3.OperationalError(text)
    cause.sqlite_errorcode = code
    assert fault_of(wrapped(cause, "TEMPORARILY_UNAVAILABLE")) is fault


@pytest.mark.parametrize(
    ("state", "fault"), [("42501", Fault.NO_RIGHT), ("42P01", Fault.FOREIGN), ("53100", Fault.FULL)]
)
def test_what_postgresql_raises_is_sorted(state: str, fault: Fault) -> None:
    kind = type("ProgrammingError", (Exception,), {"__module__": "psycopg2.errors", "pgcode": state})
    assert fault_of(wrapped(kind("no"), "BAD_REQUEST")) is fault
    assert fault_of(ValueError("of the user's own")) is None


# -------------------------------------------------------------------------------------------------- a look


def test_doctor_says_that_a_store_is_locked(
    cnnexp: Run, held: sqlite3.Connection, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "LOOK_S", 0.1)
    code, out, err = cnnexp("doctor")
    assert code == 1 and "in use by another process (locked)" in out.replace("\n", " ")
    assert err.splitlines() == [
        f"cnnexp: tracking.uri=sqlite:///{file}: is in use by another process (locked); wait for its end, or stop it"
    ]


def test_reading_a_locked_store_waits_and_says_so(
    cnnexp: Run, held: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "PATIENCE_S", 0.1)
    code, _, err = cnnexp("compare")
    assert code == 2 and len(err.splitlines()) == 1 and "is in use by another process (locked)" in err
    held.execute("ROLLBACK")
    code, _, err = cnnexp("compare")
    assert "locked" not in err


def test_an_empty_file_is_not_there_yet(cnnexp: Run, tmp_path: Path) -> None:
    file = tmp_path / "outputs" / "mlflow.db"
    file.parent.mkdir()
    file.touch()
    code, out, err = cnnexp("doctor")
    assert (code, err) == (0, "") and "not there yet" in out
    code, _, err = cnnexp("compare")
    assert code == 2 and "nothing was recorded there yet" in err and len(err.splitlines()) == 1
    assert file.stat().st_size == 0 and [path.name for path in file.parent.iterdir()] == ["mlflow.db"]
    tracker(tmp_path).prepare()  # a run takes it for its store
    assert file.stat().st_size > 0


def test_the_database_of_another_program_stays_as_it_is(cnnexp: Run, tmp_path: Path) -> None:
    file = tmp_path / "outputs" / "mlflow.db"
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    before = file.read_bytes()
    for line in (["doctor"], ["compare"], ["train", "debug=smoke", "dataset=synthetic"]):
        code, _, err = cnnexp(*line)
        assert code == (1 if line == ["doctor"] else 2)
        assert len(err.splitlines()) == 1 and "is no store of MLflow, but the database of another program" in err
    assert file.read_bytes() == before


@pytest.mark.parametrize("lacking", ["", "DROP TABLE trace_tags"])
def test_a_store_of_another_mlflow_is_not_changed(cnnexp: Run, file: Path, lacking: str) -> None:
    """Where tables are lacking, MLflow would make them as soon as it opens the file."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0a8213491aaa'")
        connection.execute(lacking)
    before = file.read_bytes()
    for line in (["doctor", "--check"], ["ui"], ["train", "-m", "seed=0,1"]):
        code, _, err = cnnexp(*line)
        assert code == (1 if line[0] == "doctor" else 2)
        assert len(err.splitlines()) == 1 and f"mlflow db upgrade sqlite:///{file}" in err
    assert file.read_bytes() == before


def test_what_a_killed_process_left_in_a_file_is_taken_back(file: Path, tmp_path: Path) -> None:
    """A hot journal: a look that may only read could not open the file."""
    killed = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN IMMEDIATE');"
        "c.execute(\"UPDATE runs SET name = 'half', source_name = zeroblob(90000)\");"
        "c.execute('CREATE TABLE junk AS SELECT zeroblob(900000)'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", killed, str(file)], check=False)
    assert Path(f"{file}-journal").stat().st_size > 0
    assert [run.name for run in tracker(tmp_path).find_runs()] == ["r"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_file_without_the_right_to_use_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(tempfile.mkdtemp())  # the folders of pytest are closed to others
    shutil.copytree(file.parent, root / "outputs")
    file = root / "outputs" / "mlflow.db"
    for place in (root, file.parent, file):
        place.chmod(0o755)
    store = tracker(root)
    os.seteuid(65534)
    try:
        assert [run.name for run in tracker(root).find_runs()] == ["r"]  # reading needs no more
        with pytest.raises(UserError, match=r"mlflow\.db: no right to write to it \(.*Permission denied.*ask its"):
            store.start_run("n", {}, {})
        reader = tracker(root)
        (run,) = reader.find_runs()
        for add in (
            lambda: log_evaluation(reader, run.run_id, "mnist", "test", {"accuracy": 0.5}),
            lambda: reader.add_tags(run.run_id, {"note": "x"}),
            lambda: reader.add_artifact(run.run_id, __file__),
        ):
            with pytest.raises(
                RunError, match=r"tracking\.uri=sqlite:///.*mlflow\.db: no right to write to it"
            ) as said:
                add()
            assert said.value.exit_code == 1 and "\n" not in str(said.value)
        _record(reader, run, Path(__file__).parent, [Path(__file__)], {"explain/gain": 0.5})
        warned = " ".join(capsys.readouterr().err.split())
        assert f"the pictures were not recorded in run {run.run_id}: tracking.uri=sqlite:///{root}" in warned
        os.seteuid(0)
        file.chmod(0o600)
        os.seteuid(65534)
        for look in (lambda: tracker(root).find_runs(), lambda: stores.check_whole(f"sqlite:///{file}", file)):
            with pytest.raises(UserError, match=r"mlflow\.db: no right to read it \(.*Permission denied") as error:
                look()
            assert "copy" not in str(error.value)
    finally:
        os.seteuid(0)
        shutil.rmtree(root)


# ------------------------------------------------------------------------------------ in mid-training


def delete_run(store: Tracker, run_id: str) -> None:
    Tracker(store.uri, store.experiment, store.artifact_root).client().delete_run(run_id)


def delete_experiment(store: Tracker, run_id: str) -> None:
    client = Tracker(store.uri, store.experiment, store.artifact_root).client()
    client.delete_experiment(client.get_run(run_id).info.experiment_id)


def remove_row(store: Tracker, run_id: str) -> None:
    file = Path(store.uri.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(file)) as connection, connection:
        for table in ("tags", "params", "metrics", "latest_metrics", "runs"):
            connection.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (run_id,))


def replace_file(store: Tracker, run_id: str) -> None:
    """By a store that does not know the run."""
    file = Path(store.uri.removeprefix("sqlite:///"))
    other = Tracker(f"sqlite:///{file}.other", store.experiment, store.artifact_root)
    other.prepare()
    os.replace(f"{file}.other", file)


def empty_file(store: Tracker, run_id: str) -> None:
    file = Path(store.uri.removeprefix("sqlite:///"))
    file.unlink()
    file.touch()


def damage_file(store: Tracker, run_id: str) -> None:
    file = Path(store.uri.removeprefix("sqlite:///"))
    file.write_bytes(b"\x01" * 8192 + file.read_bytes()[8192:])


GONE = [
    (delete_run, "run {run} was deleted in the store"),
    (delete_experiment, "run {run} was deleted in the store"),  # MLflow deletes its runs with it
    (remove_row, "run {run} is no longer in the store"),
    (replace_file, "run {run} is no longer in the store|its file was replaced while it was in use"),
    (empty_file, "is no store of MLflow|its file was replaced while it was in use"),
    (damage_file, "is damaged"),
]


@pytest.mark.parametrize(("accident", "said"), GONE, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("journal", [True, False])
def test_a_run_that_the_store_takes_no_more(
    tmp_path: Path, accident: Callable[[Tracker, str], None], said: str, journal: bool
) -> None:
    """Nothing is raised: the training goes on, and what is known at its end is in the folder."""
    store = tracker(tmp_path, "e")
    kept = tmp_path / "run" / "unsent.jsonl" if journal else None
    run = store.start_run("n", {}, {}, journal=kept)
    store.log_metrics({"loss": 1.0}, 1)
    assert store.lost == ""
    accident(store, run)
    store.log_metrics({"loss": 0.5}, 2)
    store.log_text("text", "a.txt")
    store.end_run("FINISHED")
    assert any(words.format(run=run) in store.lost for words in said.split("|")), store.lost
    assert kept is None or not kept.exists()


def test_nothing_is_added_to_a_run_that_was_deleted(tmp_path: Path) -> None:
    store = tracker(tmp_path)
    run = store.start_run("n", {}, {})
    store.end_run("FINISHED")
    delete_run(store, run)
    with pytest.raises(RunError, match=f"run {run}: takes nothing more in the store: .*deleted"):
        tracker(tmp_path).add_metrics(run, {"loss": 1.0})


def test_a_file_that_is_missing_loses_no_run(tmp_path: Path) -> None:
    store = tracker(tmp_path, "e")
    store.start_run("n", {}, {})
    with pytest.raises(OSError, match=r"none\.txt"):
        store.log_artifact(tmp_path / "none.txt")
    assert store.lost == ""


def test_the_journal_of_a_run_that_was_deleted_is_kept(
    cnnexp: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "outputs" / "runs" / "1"
    folder.mkdir(parents=True)
    store = tracker(tmp_path)
    run = store.start_run("r", {}, {"run_dir": str(folder)}, journal=folder / "unsent.jsonl")

    def away(*arguments: object, **named: object) -> None:
        raise ConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr(type(store.client()), "log_batch", away)
        store.log_metrics({"loss": 0.25}, step=3)
    delete_run(store, run)
    code, _, err = cnnexp("doctor")
    assert code == 1 and f"its run {run} was deleted in the store; restore it there, or remove this file" in err
    assert (folder / "unsent.jsonl").is_file() and len(err.splitlines()) == 1
    store.client().restore_run(run)
    code, out, _ = cnnexp("doctor")
    assert code == 0 and "1 writes sent" in out
    assert tracker(tmp_path).get_run(run).metrics == {"loss": 0.25}


# ------------------------------------------------------------------------------------ places of files


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("s3://bucket/x", "s3:// needs a package that is not installed: pip install boto3"),
        ("gs://bucket/x", "pip install google-cloud-storage"),
        ("abfss://a@b.dfs.core.windows.net/x", "pip install azure-storage-file-datalake azure-identity"),
        ("hdfs://host/x", "pip install pyarrow"),
    ],
)
def test_a_place_whose_package_is_missing(
    tmp_path: Path, root: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "_is_installed", lambda module: False)
    store = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "e", root)
    with pytest.raises(UserError, match=rf"^tracking\.artifact_root={root}: .*{said}$"):
        store.prepare()
    assert store.find_experiment() is None  # an experiment would keep that place for ever
    client = store.client()
    client.create_experiment("e", root)  # of another machine, which has the package
    with pytest.raises(UserError, match=rf"^tracking\.experiment=e: keeps its files in {root}: .*{said}$"):
        store.start_run("n", {}, {})
    assert store.find_runs() == []


def test_a_place_that_mlflow_does_not_know(tmp_path: Path) -> None:
    store = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "e", "floppy://a/b")
    with pytest.raises(UserError, match=r"^tracking\.experiment=e: .*floppy://a/b"):
        store.start_run("n", {}, {})
    assert store.find_runs() == []


def test_modules_of_packages_that_are_and_are_not_there() -> None:
    assert artifacts._is_installed("json.decoder") and not artifacts._is_installed("no_such.part.of_it")


def test_a_folder_for_files_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "afile").touch()
    store = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "e", f"{tmp_path}/afile/x")
    with pytest.raises(UserError, match=r"^tracking\.artifact_root=.*afile is no folder; give another folder"):
        store.prepare()


# ------------------------------------------------------------------------------------------ servers


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as an MLflow server: `answers` has by the end of a path a status and a JSON or text."""

    answers: ClassVar[dict[str, tuple[int, Any]]] = {}

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        name = self.path.partition("?")[0].rpartition("/mlflow/")[2]
        status, body = self.answers.get(name, (404, {"error_code": "ENDPOINT_NOT_FOUND"}))
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815  the name that the library wants

    def log_message(self, *arguments: Any) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, tuple[int, Any]]], str]]:
    """Starts a server with these answers, and returns its address."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=running.serve_forever, daemon=True).start()

    def start(answers: dict[str, tuple[int, Any]]) -> str:
        monkeypatch.setattr(Server, "answers", answers)
        return f"http://127.0.0.1:{running.server_port}"

    yield start
    running.shutdown()
    running.server_close()


def experiment(location: str) -> dict[str, Any]:
    known = {"experiment_id": "1", "name": "e", "artifact_location": location, "lifecycle_stage": "active"}
    return {"experiment": known}


DENIED = (403, "Permission denied")  # as MLflow's basic-auth answers


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_a_proxy_that_does_not_answer_is_named(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    found = (200, experiment("mlflow-artifacts:/1"))
    address = server({"experiments/get-by-name": found, "experiments/get": found})
    monkeypatch.setenv(variable, "http://me:PASSWORD@127.0.0.1:9")  # nothing listens on the discard port
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    with pytest.raises(
        UserError, match=r"the proxy http://me:\*\*\*@127.0.0.1:9 of the environment .*refused"
    ) as error:
        Tracker(address, "e", str(tmp_path)).connect()
    assert "set no_proxy=127.0.0.1" in str(error.value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Tracker(address, "e", str(tmp_path)).connect()
    local = tracker(tmp_path)  # a file, to which no proxy leads
    local.prepare()
    assert local.find_experiment() is not None


def test_a_server_that_does_not_know_the_user(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    address = server({"experiments/get-by-name": (401, "You are not authenticated.")})
    for name in (None, "ann"):
        if name:
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hushhush")
        with pytest.raises(UserError) as error:
            Tracker(address, "e", "out").prepare()
        said = "does not take the name ann with its password; correct" if name else "asks who you are; set"
        both = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        assert str(error.value) == f"tracking.uri={address}: the server {said} {both}"


def test_a_user_without_the_right_to_write(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = (200, experiment("mlflow-artifacts:/1"))
    readable = {"experiments/get-by-name": found, "experiments/get": found, "runs/create": DENIED}
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    for answers, right in (
        (readable, ("write to", "EDIT")),
        ({"experiments/get-by-name": DENIED}, ("read", "READ")),
        ({"experiments/get-by-name": (404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}), "experiments/create": DENIED},
         ("write to", "EDIT")),
    ):  # fmt: skip
        address = server(answers)
        with pytest.raises(UserError) as error:
            Tracker(address, "e", "out").start_run("n", {}, {})
        assert str(error.value) == (
            f"tracking.experiment=e: user ann has no right to {right[0]} it on {address}; ask for {right[1]}, or "
            "choose another experiment"
        )


def test_a_right_that_is_taken_away_in_mid_training(server: Any, tmp_path: Path) -> None:
    address = server({"runs/log-batch": DENIED})
    store = Tracker(address, "e", "out")
    store._open("0" * 32, tmp_path / "unsent.jsonl", set())
    from mlflow import MlflowClient

    store._client = MlflowClient(address)
    store.log_metrics({"loss": 1.0}, 1)
    assert "has no right to write to it" in store.lost and not (tmp_path / "unsent.jsonl").exists()


def test_a_server_does_not_choose_a_folder_of_this_machine(server: Any, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    for location in (f"file://{victim}/1", f"{victim}/1", f"FILE:{victim}/1", f"file://{tmp_path}/own/../victim/1"):
        found = (200, experiment(location))
        info = {"run_id": "0" * 32, "experiment_id": "1", "artifact_uri": f"{location}/0/artifacts"}
        run = (200, {"run": {"info": info, "data": {}}})
        address = server({"experiments/get-by-name": found, "experiments/get": found, "runs/create": run,
                          "runs/get": run})  # fmt: skip
        store = Tracker(address, "e", str(tmp_path / "own"))
        for use in (
            lambda store=store: store.start_run("n", {}, {}),
            lambda store=store: store.artifacts("0" * 32, "model"),
            lambda store=store: store.download("0" * 32, "a.txt", tmp_path / "got"),
            lambda store=store: store.add_artifact("0" * 32, __file__),
            lambda store=store, location=location: store._repository(location),  # of a model
        ):
            with pytest.raises(
                UserError, match=r"the server hands out .*victim/1.*, a folder of this machine"
            ) as error:
                use()
            assert "tracking.artifact_root=" in str(error.value)
        allowed = Tracker(address, "e", str(victim))
        assert allowed.start_run("n", {}, {}) == "0" * 32
    assert list(victim.iterdir()) == []
    shutil.rmtree(victim)


def test_each_fault_is_one_line_without_passwords() -> None:
    for fault in Fault:
        error = type("Said", (Exception,), {})(f"at http://me:hush@host/\n{fault}")
        assert "\n" not in described(error, "http://me:hush@host", "e", "read")
        assert "hush" not in described(error, "http://me:hush@host", "e", "read")
