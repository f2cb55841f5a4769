"""A store that goes away for a while: what was recorded meanwhile reaches it later, each figure once."""

import http.server
import json
import math
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from cnnexp.errors import UserError
from cnnexp.tracking import journal, writer
from cnnexp.tracking.faults import is_outage
from cnnexp.tracking.journal import Journal, read_records, send_kept
from cnnexp.tracking.mlflow import Tracker
from cnnexp.tracking.writer import replay


class Line:
    """The way to the store: MLflow's client, which fails as over a broken connection.

    `state` is "up"; "down": nothing arrives; "deaf": all arrives, but no answer comes back.
    """

    def __init__(self, client):
        self.client, self.state, self.calls = client, "up", 0

    def __getattr__(self, name):
        from mlflow.exceptions import MlflowException
        from requests.exceptions import ConnectionError

        def call(*arguments, **named):
            self.calls += 1
            result = None if self.state == "down" else getattr(self.client, name)(*arguments, **named)
            try:
                if self.state != "up":
                    raise ConnectionError("http://me:secret@host: refused\nmore")
            except ConnectionError as error:
                raise MlflowException(f"API request failed with exception {error}")  # noqa: B904  as MLflow does
            return result

        return call


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def tracker(uri, tmp_path, request, monkeypatch):
    monkeypatch.setattr(journal, "PAUSE", 0)
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.0)
    tracker = Tracker(uri, request.node.name, str(tmp_path / "artifacts"))
    tracker.prepare()
    tracker._client = Line(tracker.client())
    return tracker


@pytest.fixture
def line(tracker):
    return tracker.client()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run" / "unsent.jsonl"


def steps(line, run_id, name="loss"):
    """(step, value) of every row that the store has."""
    return sorted((figure.step, figure.value) for figure in line.client.get_metric_history(run_id, name))


def record_all(tracker, line, tmp_path, state):
    """A run that writes everything once, with the line in `state` after the first figure."""
    (tmp_path / "a.txt").write_text("a")
    tracker.log_metrics({"loss": 0.1}, 1)
    line.state = state
    tracker.log_metrics({"loss": 0.2, "nan": math.nan, "inf": math.inf}, 2)
    tracker.set_tags({"key": "old"})
    tracker.log_metrics({"loss": 1 / 3}, 3)
    tracker.log_artifact(tmp_path / "a.txt", "sub")
    tracker.log_text("text", "b.txt")
    tracker.log_input("cats", "ab" * 32, "data/cats", {"train": 20, "test": 5})
    tracker.set_tags({"key": "new"})


def check_all(tracker, line, run_id, tmp_path, status):
    assert steps(line, run_id) == [(1, 0.1), (2, 0.2), (3, 1 / 3)]
    assert math.isnan(line.client.get_metric_history(run_id, "nan")[0].value)
    assert len(line.client.get_metric_history(run_id, "nan")) == len(line.client.get_metric_history(run_id, "inf")) == 1
    run = line.client.get_run(run_id)
    assert (run.info.status, run.data.tags["key"]) == (status, "new")
    assert sorted(i.dataset.name for i in run.inputs.dataset_inputs) == ["cats/test", "cats/train"]
    assert tracker.download(run_id, "sub/a.txt", tmp_path / "got").read_text() == "a"
    assert tracker.download(run_id, "b.txt", tmp_path / "got").read_text() == "text"


@pytest.mark.parametrize("state", ["down", "deaf"])
def test_everything_is_sent_once_the_store_is_back(tracker, line, file, tmp_path, state, capsys):
    run_id = tracker.start_run("n", {}, {}, journal=file)
    record_all(tracker, line, tmp_path, state)
    assert len(steps(line, run_id)) == (1 if state == "down" else 2)
    assert len(file.read_text().splitlines()) == 8  # the run id and seven writes
    warned = capsys.readouterr().err.splitlines()
    assert len(warned) == 1 and str(file) in warned[0] and "secret" not in warned[0]
    line.state = "up"
    tracker.end_run("FINISHED")
    assert not file.exists()
    check_all(tracker, line, run_id, tmp_path, "FINISHED")


def test_the_next_write_sends_what_waits_first(tracker, line, file):
    run_id = tracker.start_run("n", {}, {}, journal=file)
    line.state = "down"
    tracker.set_tags({"key": "1"})
    line.state = "up"
    tracker.set_tags({"key": "2"})
    assert not file.exists() and line.client.get_run(run_id).data.tags["key"] == "2"


def test_what_is_left_is_replayed(tracker, line, file, tmp_path, uri, request, capsys):
    run_id = tracker.start_run("n", {}, {}, journal=file)
    record_all(tracker, line, tmp_path, "down")
    tracker.end_run("FAILED", error="ValueError: no")
    last = capsys.readouterr().err.splitlines()[-1]
    assert str(file) in last and "cnnexp doctor" in last
    assert line.client.get_run(run_id).info.status == "RUNNING"
    with pytest.raises(UserError, match=r"unsent\.jsonl"):
        replay(tracker, file)
    with file.open("a") as stream:
        stream.write('{"kind": "tags", "ta')  # cut off by a kill
    fresh = Tracker(uri, request.node.name, "elsewhere")
    end = json.loads(file.read_text().splitlines()[-2])
    assert replay(fresh, file) == 9
    assert not file.exists()
    check_all(fresh, line, run_id, tmp_path, "FAILED")
    run = line.client.get_run(run_id)
    assert (run.data.tags["error"], run.info.end_time) == ("ValueError: no", end["time"])


def test_an_outage_in_the_middle_of_sending(tracker, line, file, monkeypatch):
    run_id = tracker.start_run("n", {}, {}, journal=file)
    line.state = "down"
    for step in range(5):
        tracker.log_metrics({"loss": float(step)}, step)
    original, sent = tracker._send, []

    def breaks(run_id, record):
        line.state = "deaf" if len(sent) == 2 else "up"
        sent.append(record)
        original(run_id, record)

    line.state = "up"
    monkeypatch.setattr(tracker, "_send", breaks)
    with pytest.raises(UserError, match="2 of 5"):
        replay(tracker, file)
    assert len(file.read_text().splitlines()) == 4
    line.state = "up"
    assert replay(tracker, file) == 3
    assert steps(line, run_id) == [(step, float(step)) for step in range(5)]


def test_a_resumed_run_first_sends_what_the_killed_process_kept(tracker, line, file, uri, request):
    run_id = tracker.start_run("n", {}, {}, journal=file)
    line.state = "down"
    tracker.log_metrics({"loss": 1.0}, 1)
    again = Tracker(uri, request.node.name, "elsewhere")
    again.resume_run(run_id, journal=file)
    again.log_metrics({"loss": 1.0}, 1)
    again.log_metrics({"loss": 2.0}, 2)
    again.end_run("FINISHED")
    assert steps(line, run_id) == [(1, 1.0), (2, 2.0)] and not file.exists()


def test_a_new_run_in_the_folder_of_another(tracker, line, file, capsys):
    first = tracker.start_run("n", {}, {}, journal=file)
    line.state = "down"
    tracker.log_metrics({"loss": 1.0}, 1)
    line.state = "up"
    tracker.start_run("n", {}, {}, journal=file)
    assert steps(line, first) == [(1, 1.0)] and not file.exists()
    file.write_text('{"run_id": "' + "0" * 32 + '"}\n')
    tracker.start_run("n", {}, {}, journal=file)
    (aside,) = file.parent.iterdir()
    assert aside.match("unsent-*.jsonl") and aside.name in capsys.readouterr().err


def test_other_errors_are_raised(tracker, line, file, tmp_path, capsys):
    from mlflow.exceptions import MlflowException

    run_id = tracker.start_run("n", {}, {}, journal=file)
    with pytest.raises(MlflowException):
        tracker.log_text("text", "../b.txt")
    with pytest.raises(OSError, match=r"none\.txt"):
        tracker.log_artifact(tmp_path / "none.txt")
    assert not file.exists()
    line.state = "down"
    tracker.log_artifact(tmp_path / "gone.txt")  # one that waits and is refused later does not stop the others
    tracker.log_metrics({"loss": 1.0}, 1)
    line.state = "up"
    tracker.end_run("FINISHED")
    assert not file.exists() and steps(line, run_id) == [(1, 1.0)]
    assert "does not take artifact" in capsys.readouterr().err


def test_without_a_journal_an_outage_is_an_error(tracker, line, tmp_path):
    from mlflow.exceptions import MlflowException

    tracker.start_run("n", {}, {})
    line.state = "down"
    for write in (lambda: tracker.log_metrics({"loss": 1.0}, 1), lambda: tracker.end_run("FINISHED")):
        with pytest.raises(MlflowException):
            write()
    assert not list(tmp_path.rglob("*.jsonl"))


def test_no_journal_to_replay(tracker, file):
    with pytest.raises(UserError, match="no such journal"):
        replay(tracker, file)
    file.parent.mkdir()
    for text in ("", "no JSON\n", "[1]\n"):
        file.write_text(text)
        with pytest.raises(UserError, match="not a journal"):
            replay(tracker, file)
    file.write_text('{"run_id": "' + "0" * 32 + '"}\n')
    with pytest.raises(UserError, match="0000 cannot be read"):
        replay(tracker, file)
    assert file.exists()


def test_lines_that_are_no_writes_are_named_and_the_others_sent(file, capsys):
    run_id, sent = "0" * 32, []
    file.parent.mkdir(exist_ok=True)
    good = [{"kind": "tags", "tags": {"a": "b"}}, {"kind": "end", "status": "FINISHED", "time": 1}]
    lines = [{"run_id": run_id}, [1], good[0], {"name": "x"}, {"kind": 5}, None, good[1]]
    file.write_text("".join(json.dumps(one) + "\n" for one in lines) + "{no JSON\n" + "\x00\n" + '{"kind": "cut of')
    for _ in range(2):  # said once
        found, records = read_records(file)
        assert (found, records) == (run_id, good)
    err = capsys.readouterr().err
    assert [f"{file}: line {number} is no record" in err for number in range(2, 10)] == [
        True, False, True, True, True, False, True, True,
    ]  # fmt: skip
    assert err.count("\n") == 6
    assert send_kept(file, lambda run, record: sent.append((run, record))) == (2, None)
    assert sent == [(run_id, record) for record in good] and not file.exists()


def test_training_waits_for_a_store_a_small_part_of_its_time(file, monkeypatch):
    now, attempts = 0.0, []

    def slow(run_id, record):
        nonlocal now
        attempts.append(now)
        now += 6
        raise TimeoutError

    monkeypatch.setattr(journal.time, "monotonic", lambda: now)
    kept = Journal(file, slow)
    for _ in range(30):
        kept.write("0" * 32, {"kind": "metrics"})
        now += 5
    assert attempts == [0.0, 66.0, 132.0]  # 6 s, then 60 s in peace
    assert len(file.read_text().splitlines()) == 31


def test_the_end_of_a_run_waits_for_the_store(file, monkeypatch):
    failures = iter([TimeoutError, TimeoutError, TimeoutError])
    sent = []

    def send(run_id, record):
        if error := next(failures, None):
            raise error
        sent.append(record["kind"])

    monkeypatch.setattr(journal.time, "sleep", lambda seconds: None)
    kept = Journal(file, send)
    kept.write("0" * 32, {"kind": "end"})
    kept.flush(5)
    assert sent == ["end"] and not file.exists()


def test_a_model_waits_for_the_store(file, monkeypatch):
    failures = iter([TimeoutError, TimeoutError])

    def call(a, b):
        if error := next(failures, None):
            raise error
        return a, b

    monkeypatch.setattr(journal.time, "sleep", lambda seconds: None)
    kept = Journal(file, lambda run_id, record: None)
    assert kept.retry(call, 1, b=2) == (1, 2)
    with pytest.raises(ZeroDivisionError):
        kept.retry(lambda: 1 / 0)
    monkeypatch.setattr(journal, "MODEL_SECONDS", 0.0)
    failures = iter([TimeoutError])
    with pytest.raises(UserError, match=r"trainer\.resume=true"):
        kept.retry(call, 1, b=2)


def test_locked_sqlite(tracker, line, file, uri):
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def impatient(connection, cursor, statement, *others):
        return (statement.replace("20000", "100"), others[0])

    run_id = tracker.start_run("n", {}, {}, journal=file)
    event.listen(Engine, "before_cursor_execute", impatient, retval=True)  # MLflow waits 20 s for a lock
    try:
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as other:
            other.execute("BEGIN EXCLUSIVE")
            tracker.log_metrics({"loss": 1.0}, 1)
            assert file.exists()
    finally:
        event.remove(Engine, "before_cursor_execute", impatient)
    tracker.end_run("FINISHED")
    assert steps(line, run_id) == [(1, 1.0)] and not file.exists()


@pytest.mark.parametrize(
    ("status", "expected"), [(None, True), (429, True), (500, True), (503, True), (400, False), (404, False)]
)
def test_what_servers_answer(status, expected, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *arguments): ...

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    if status is None:
        server.server_close()  # nobody answers there
    else:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(MlflowException) as error:
        MlflowClient(address).get_run("0" * 32)
    assert is_outage(error.value) is expected
    if status is not None:
        server.shutdown()
        server.server_close()


def test_a_server_that_goes_away_is_noticed_soon_and_said_once(tmp_path, file, caplog, capsys, monkeypatch):
    from cnnexp.tracking.mlflow import quiet_mlflow

    for name in ("MAX_RETRIES", "BACKOFF_FACTOR", "TIMEOUT"):
        monkeypatch.delenv(f"MLFLOW_HTTP_REQUEST_{name}", raising=False)
    quiet_mlflow()
    from mlflow import MlflowClient

    with closing(http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler).socket) as socket:
        port = socket.getsockname()[1]
    tracker = Tracker(f"http://me:secret@127.0.0.1:{port}", "e", "unused")
    tracker._client = MlflowClient(tracker.uri)
    tracker._open("0" * 32, file, set())
    began = time.monotonic()
    for step in range(20):
        tracker.log_metrics({"loss": 1.0}, step)
    tracker.end_run("KILLED")
    assert time.monotonic() - began < 12  # MLflow's own 7 retries take four minutes for one write
    assert len(file.read_text().splitlines()) == 22
    assert not caplog.records
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "secret" not in "".join(said)


def test_a_file_that_is_missing_is_no_outage(tmp_path: Path):
    assert not is_outage(FileNotFoundError()) and not is_outage(PermissionError()) and not is_outage(ValueError())
    assert is_outage(ConnectionRefusedError()) and is_outage(TimeoutError())
    unrelated = ValueError("raised while an outage was dealt with")
    unrelated.__context__ = ConnectionResetError()
    assert not is_outage(unrelated)
