"""Tracking, on real SQLite stores: what is written is read back with MLflow's own client."""

import hashlib
import inspect
import json
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from cnnexp.errors import UserError
from cnnexp.tracking import record
from cnnexp.tracking.info import RunInfo
from cnnexp.tracking.mlflow import Tracker
from cnnexp.tracking.notes import NOTE_TAG
from cnnexp.tracking.null import NullTracker
from cnnexp.tracking.reader import PARENT_TAG
from cnnexp.tracking.stores import resolve_uri

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A store; making one takes a second, so the tests share it and each has its own experiment."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/new folder/mlflow.db"


@pytest.fixture
def tracker(uri, tmp_path, request):
    tracker = Tracker(uri, request.node.name, str(tmp_path / "artifacts"))
    tracker.prepare()
    return tracker


@pytest.fixture
def client(uri, tracker):
    from mlflow import MlflowClient

    return MlflowClient(uri)


# -------------------------------------------------------------------------------------------------- record


def test_flatten():
    config = {
        "a": {"b": None, "c": [1, "x"], "d": {}},
        "e": True,
        "f": 1e-4,
        "g": "null",
        "h": {"i": {"j": 2}},
    }
    assert record.flatten(config) == {
        "a.b": "null", "a.c": '[1,"x"]', "a.d": "{}", "e": "true", "f": "0.0001", "g": "null", "h.i.j": "2"
    }  # fmt: skip


def test_passwords_are_left_out():
    assert record.redact("postgresql://me:pw@h:5432/db") == "postgresql://me:***@h:5432/db"
    assert record.redact("mysql+pymysql://me:p/w:@x@h/db?ssl=1") == "mysql+pymysql://me:***@h/db?ssl=***"
    assert record.redact("postgresql://h/db?user=me&password=pw&x=1") == "postgresql://h/db?user=***&password=***&x=***"
    for harmless in ("http://h:5000/x", "sqlite:///a/b.db", "https://h/a@b", "postgresql://me@h/db"):
        assert record.redact(harmless) == harmless
    assert record.flatten({"tracking": {"uri": "http://me:pw@h"}}) == {"tracking.uri": "http://me:***@h"}


def test_config_hash_names_what_is_computed():
    config = {
        "seed": 1,
        "optimizer": {"name": "adam", "lr": 0.1},
        "paths": {"root": "a"},
        "tracking": {"uri": None},
    }
    canonical = '{"optimizer":{"lr":0.1,"name":"adam"},"seed":1}'
    assert record.config_hash(config) == hashlib.sha256(canonical.encode()).hexdigest()[:16]
    elsewhere = {"tracking": {"uri": "x"}, "paths": {}, **{k: config[k] for k in ("optimizer", "seed")}}
    assert record.config_hash(elsewhere) == record.config_hash(config)
    assert record.config_hash({**config, "seed": 2}) != record.config_hash(config)


def test_names_that_the_store_refuses():
    assert record.storable({"a@b": "1", "x/(y)": "2", "a:b c.d-e_f": "3", "/a//b/../": "4"}) == {
        "a_b": "1", "x/_y_": "2", "a:b c.d-e_f": "3", "a/b": "4"
    }  # fmt: skip
    both = record.storable({"a[": "1", "a]": "2"})
    assert sorted(both.values()) == ["1", "2"] and "a_" in both
    long = record.storable({"n" * 300 + "1": "", "n" * 300 + "2": ""})
    assert len(long) == 2 and {len(name) for name in long} == {250}


def test_environment_tags(monkeypatch, tmp_path):
    def git(*arguments):
        who = ("-c", "user.name=n", "-c", "user.email=e@example.com")
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(record, "__file__", str(tmp_path / "site-packages" / "record.py"))  # installed: no checkout
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    tags = record.environment_tags()
    assert tags["numpy"] == version("numpy") and tags["hydra"] == version("hydra-core")
    assert tags["python"] == ".".join(map(str, sys.version_info[:3]))
    assert tags["cores"] == str(len(os.sched_getaffinity(0))) and tags["processor"].strip()
    assert not {"git_commit", "git_dirty"} & set(tags)
    assert socket.gethostname() not in tags.values()

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "m")
    (tmp_path / "untracked").write_text("1")
    tags = record.environment_tags()
    assert (tags["git_commit"], tags["git_dirty"]) == (git("rev-parse", "HEAD"), "false")
    (tmp_path / "file").write_text("2")
    assert record.environment_tags()["git_dirty"] == "true"


def test_requirements_text():
    lines = record.requirements_text().splitlines()
    assert f"numpy=={version('numpy')}" in lines and f"mlflow=={version('mlflow')}" in lines
    assert [line.lower() for line in lines] == sorted((line.lower() for line in lines), key=lambda x: x.split("==")[0])


# -------------------------------------------------------------------------------------------------- stores


def test_resolve_uri(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert resolve_uri("sqlite:///a/b.db") == f"sqlite:///{tmp_path}/a/b.db"
    assert resolve_uri(f"sqlite:///{tmp_path}/c.db?timeout=9") == f"sqlite:///{tmp_path}/c.db?timeout=9"
    assert resolve_uri("https://host/path") == "https://host/path"


NO_STORES = "./mlruns mlruns file:///mlruns sqlite:// sqlite:///:memory: ftp://me:pw@host http:// sqlite:///a%20b"


@pytest.mark.parametrize("bad", ["", *NO_STORES.split()])
def test_no_such_kind_of_store(bad):
    with pytest.raises(UserError, match=r"^tracking\.uri=") as error:
        Tracker(bad, "e", "artifacts")
    assert "pw" not in str(error.value)


def test_stores_that_cannot_be_opened(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "file").write_text("no database " * 100)
    servers = [
        f"http://127.0.0.1:{port}",
        f"postgresql://me:pw@127.0.0.1:{port}/db",
        "http://no.such.host.invalid",
    ]
    files = [f"sqlite:///{tmp_path}/{name}" for name in ("file", "file/below.db", "")]
    for address in [*servers, *files]:
        for use in (Tracker.prepare, Tracker.find_runs):
            with pytest.raises(UserError, match=r"^tracking\.uri=") as error:
                use(Tracker(address, "e", str(tmp_path)))
            assert "\n" not in str(error.value) and "pw" not in str(error.value)


def test_reading_makes_no_store(tmp_path):
    with pytest.raises(UserError, match=r"tracking\.uri=.*nothing was recorded"):
        Tracker(f"sqlite:///{tmp_path}/mlflow.db", "e", str(tmp_path)).find_run("latest")
    assert list(tmp_path.iterdir()) == []


def test_preparing_again_changes_nothing(uri, tracker, client, tmp_path, request):
    again = Tracker(uri, request.node.name, str(tmp_path / "other"))
    again.prepare()
    again.prepare()
    experiment = client.get_experiment_by_name(request.node.name)
    assert experiment.artifact_location == (tmp_path / "artifacts").as_uri()


def test_deleted_experiment(uri, tracker, client, request):
    client.delete_experiment(client.get_experiment_by_name(request.node.name).experiment_id)
    with pytest.raises(UserError, match=r"tracking\.experiment=.*restore"):
        Tracker(uri, request.node.name, "artifacts").prepare()


@pytest.mark.parametrize(("address", "location"), [("http://host", None), ("postgresql://host/db", "s3://bucket/x")])
def test_a_server_chooses_where_artifacts_lie(address, location, monkeypatch):
    monkeypatch.setattr("cnnexp.tracking.artifacts._is_installed", lambda module: True)

    class Client:
        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name, artifact_location, tags):
            self.made = (name, artifact_location)
            return "7"

    tracker = Tracker(address, "e", "s3://bucket/x")
    tracker._client = stub = Client()
    tracker.prepare()
    assert stub.made == ("e", location)


PROCESSES = """
import logging, os, sys
logging.basicConfig(level=logging.INFO)
from cnnexp.tracking.mlflow import Tracker, quiet_mlflow
quiet_mlflow()
import mlflow.store.tracking.sqlalchemy_store  # imported once, then forked: this is what takes the time

def job(number):
    tracker = Tracker("sqlite:///new/mlflow.db", "e", "artifacts")
    tracker.prepare()
    tracker.start_run(f"job{number}", {"number": str(number)}, {})
    for data in range(10):  # the same of every job
        tracker.log_input(f"data{data}", "0" * 64, "folder", {"train": 1, "test": 1})
    for step in range(25):
        tracker.log_metrics({"train/loss": number + step / 100, "val/acc": 0.5}, step)
    tracker.end_run("FINISHED")

children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        try:
            job(number)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    children.append(child)
failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
runs = Tracker("sqlite:///new/mlflow.db", "e", "artifacts").find_runs()
heavy = {"tensorflow", "keras", "torch"} & set(sys.modules)
sys.exit(f"{failed} failed; {len(runs)} runs; {heavy}" if failed or len(runs) != 4 or heavy else 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_side_by_side_on_a_new_store(tmp_path):
    root = Path(__file__).resolve().parent.parent
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")} | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-c", PROCESSES]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/new/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    for run in runs:
        number = int(run.data.params["number"])
        losses = client.get_metric_history(run.info.run_id, "train/loss")
        assert sorted((m.step, m.value) for m in losses) == [(s, number + s / 100) for s in range(25)]
        assert run.info.status == "FINISHED"
        assert len(run.inputs.dataset_inputs) == 20
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mlflow.db", "mlflow.db.lock", "new"]


def test_a_data_set_that_another_process_records_too(tracker, client, monkeypatch):
    """MLflow looks for it, does not find it, and fails to insert it: then it is there."""
    from mlflow.exceptions import MlflowException

    run_id = tracker.start_run("r", {}, {})
    real, errors = client.log_inputs, ["(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.name"]

    def racing(*arguments):
        if errors:
            raise MlflowException(errors.pop())
        real(*arguments)

    monkeypatch.setattr(tracker.client(), "log_inputs", racing)
    tracker.log_input("data", "0" * 64, "folder", {"train": 1, "test": 1})
    assert len(client.get_run(run_id).inputs.dataset_inputs) == 2
    for lasting in (["IntegrityError"] * 3, ["some other error"]):
        errors[:] = lasting
        with pytest.raises(MlflowException, match=lasting[0]):
            tracker.log_input("more", "1" * 64, "folder", {"train": 1})


# ------------------------------------------------------------------------------------------------- writing


def test_a_run_is_read_back(tracker, client):
    params = {f"p{i}": str(i) for i in range(250)} | {"empty": "", "key[0]": "x"}
    run_id = tracker.start_run("variant", params, {"a": "1", "git_commit": "abc", NOTE_TAG: "**text**"})
    tracker.log_metrics({"train/loss": 0.5, "lr": np.float32(0.25)}, step=1)
    tracker.log_metrics({"train/loss": 0.25, "nan": math.nan, "inf": math.inf}, step=2)
    tracker.set_tags({"b": "2"})
    assert client.get_run(run_id).info.status == "RUNNING"
    tracker.end_run("FAILED", error="ValueError: no")

    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("variant", "FAILED")
    assert run.data.params == {f"p{i}": str(i) for i in range(250)} | {"empty": "", "key_0_": "x"}
    assert run.data.metrics["train/loss"] == 0.25 and run.data.metrics["lr"] == 0.25
    assert math.isnan(run.data.metrics["nan"]) and run.data.metrics["inf"] == sys.float_info.max
    tags = run.data.tags
    assert (tags["a"], tags["b"], tags["error"]) == ("1", "2", "ValueError: no")
    assert (tags["mlflow.note.content"], tags["mlflow.source.git.commit"]) == ("**text**", "abc")
    history = client.get_metric_history(run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]

    info = tracker.find_run(run_id)
    assert isinstance(info, RunInfo) and info.name == "variant" and info.params == run.data.params
    assert info.status == "FAILED" and info.tags == tags and info.parent_run_id is None
    assert info.start_time.timestamp() * 1000 == run.info.start_time and info.end_time >= info.start_time


def test_long_values_are_shortened_with_their_hash(tracker, client):
    value = "abcdefghij" * 700
    run_id = tracker.start_run("n", {"fits": value[:6000], "long": value}, {"tag": value * 2})
    run = client.get_run(run_id)
    assert run.data.params["fits"] == value[:6000]
    kept = run.data.params["long"]
    assert len(kept) == 6000 and kept.startswith(value[:5800])
    assert kept.endswith(f"... (7000 characters, sha256 {hashlib.sha256(value.encode()).hexdigest()})")
    assert len(run.data.tags["tag"]) == 8000


def test_a_run_whose_params_fail_is_closed(tracker, client, monkeypatch):
    monkeypatch.setattr(tracker.client(), "log_batch", lambda run_id, params=(), tags=(): 1 / len(tags))
    with pytest.raises(ZeroDivisionError):
        tracker.start_run("n", {"a": "1"}, {})
    assert [run.status for run in tracker.find_runs()] == ["FAILED"]


def test_log_input(tracker, client):
    run_id = tracker.start_run("n", {}, {})
    tracker.log_input("cats", "ab" * 32, "data/cats", {"train": 20, "validation": 10, "test": 5})
    inputs = {i.tags[0].value: i.dataset for i in client.get_run(run_id).inputs.dataset_inputs}
    assert sorted(inputs) == ["test", "train", "validation"]
    assert (inputs["train"].name, inputs["train"].digest) == ("cats/train", "ab" * 18)
    assert json.loads(inputs["train"].source) == {"uri": "data/cats"}
    assert json.loads(inputs["test"].profile) == {"num_rows": 5}


def test_data_sets_have_a_schema_and_a_profile(tracker, client):
    from mlflow.data.schema import TensorDatasetSchema

    run_id = tracker.start_run("n", {}, {})
    tracker.log_input("pets", "cd" * 32, "data", {"train": {"cat": 3, "dog": 2}, "test": {"cat": 1, "dog": 0}}, 3)
    inputs = {i.tags[0].value: i.dataset for i in client.get_run(run_id).inputs.dataset_inputs}
    assert json.loads(inputs["train"].profile) == {"num_rows": 5, "classes": {"cat": 3, "dog": 2}}
    assert json.loads(inputs["test"].profile) == {"num_rows": 1, "classes": {"cat": 1, "dog": 0}}
    schema = TensorDatasetSchema.from_dict(json.loads(inputs["test"].schema))
    assert [(spec.type, spec.shape) for spec in schema.features.inputs] == [(np.dtype("uint8"), (-1, -1, -1, 3))]
    assert [(spec.type, spec.shape) for spec in schema.targets.inputs] == [(np.dtype("int64"), (-1,))]


def test_whose_run_it_is(tracker, client, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    tags = client.get_run(tracker.start_run("n", {}, {"git_commit": "abc"})).data.tags
    assert tags["mlflow.user"] == "ada"
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("cnnexp", "LOCAL")
    assert tags["mlflow.source.git.commit"] == "abc"


# ---------------------------------------------------------------------------------------------- MLflow's switches


def busy_machine():
    """In the place of psutil: 10, 20, 30 ... percent; memory half used; a disk and a network at rest."""
    from types import SimpleNamespace as Values

    percent = iter(range(10, 1000, 10))
    nothing = Values(bytes_sent=0, bytes_recv=0)
    return Values(
        cpu_percent=lambda: next(percent),
        virtual_memory=lambda: Values(used=1e9, total=2e9),
        disk_usage=lambda _: Values(percent=50.0, used=1e9, free=1e9),
        net_io_counters=lambda: nothing,
    )


@pytest.fixture
def without_monitors(monkeypatch):
    """MLflow's modules that import psutil are imported anew."""
    for name in list(sys.modules):
        if name == "psutil" or name.startswith("mlflow.system_metrics"):
            monkeypatch.delitem(sys.modules, name)


def test_system_metrics_where_mlflows_switch_asks(tracker, client, monkeypatch, without_monitors):
    monkeypatch.setitem(sys.modules, "psutil", busy_machine())
    tracker.start_run("off", {}, {})
    assert tracker.system_metrics() == {}
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    run_id = tracker.start_run("on", {}, {})
    for epoch in (1, 2):
        tracker.log_metrics(tracker.system_metrics(), epoch)
    history = client.get_metric_history(run_id, "system/cpu_utilization_percentage")
    assert [(point.step, point.value) for point in history] == [(1, 20.0), (2, 30.0)]  # 10 was before the first epoch
    assert client.get_run(run_id).data.metrics["system/system_memory_usage_percentage"] == 50.0


@pytest.mark.parametrize(
    ("value", "said"), [("true", "needs psutil (pip install psutil)"), ("maybe", "=maybe: must be true or false")]
)
def test_what_system_metrics_lack_is_said(tracker, monkeypatch, without_monitors, capsys, value, said):
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", value)
    tracker.start_run("n", {}, {})
    tracker.start_run("n", {}, {})
    assert tracker.system_metrics() == {}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cnnexp: MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING") and said in line


def test_variables_of_mlflow_are_said_to_be_overridden(monkeypatch, capsys):
    from cnnexp.config.training import TrackingConfig
    from cnnexp.runs.tracker import open_tracker

    tracking = TrackingConfig(uri="sqlite:///a.db", experiment="mine", artifact_root="a")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:pw@host:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    for _ in range(2):
        open_tracker(tracking)
    uri, experiment, run = capsys.readouterr().err.splitlines()
    assert "MLFLOW_TRACKING_URI=http://me:***@host:5000 is overridden by tracking.uri=sqlite:///a.db" in uri
    assert "MLFLOW_EXPERIMENT_NAME=other is overridden by tracking.experiment=mine" in experiment
    assert f"MLFLOW_RUN_ID={'0' * 32} is overridden" in run
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///a.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.delenv("MLFLOW_RUN_ID")
    open_tracker(tracking)
    assert capsys.readouterr().err == ""


def test_artifacts(tracker, client, tmp_path):
    run_id = tracker.start_run("n", {}, {})
    (tmp_path / "explain").mkdir()
    (tmp_path / "explain" / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    tracker.log_artifact(tmp_path / "explain")
    tracker.log_artifact(tmp_path / "b.txt")
    tracker.log_artifact(str(tmp_path / "b.txt"), "sub")
    tracker.log_text("text", "notes/c.txt")
    assert [i.path for i in client.list_artifacts(run_id)] == ["b.txt", "explain", "notes", "sub"]

    folder = tmp_path / "fetched"
    assert tracker.download(run_id, "explain/a.txt", folder) == folder / "explain" / "a.txt"
    (folder / "explain" / "old.txt").write_text("of an earlier download")
    assert tracker.download(run_id, "explain", folder) == folder / "explain"
    assert tracker.download(run_id, "notes/c.txt", str(folder)).read_text() == "text"
    files = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    assert sorted(files) == ["explain/a.txt", "notes/c.txt"]
    with pytest.raises(UserError, match=r"^none\.txt: no such artifact"):
        tracker.download(run_id, "none.txt", folder)
    for escape in (
        "../b.txt",
        "explain/../../b.txt",
        str(tmp_path / "b.txt"),
        "..\\b.txt",
        "C:/b.txt",
        "",
        ".",
    ):
        with pytest.raises(UserError, match="not an artifact"):
            tracker.download(run_id, escape, folder)


def test_a_listing_cannot_lead_out_of_the_folder(tracker, tmp_path, monkeypatch):
    from mlflow.entities import FileInfo
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    run_id = tracker.start_run("n", {}, {})
    tracker.log_text("text", "sub/a.txt")
    hostile = [FileInfo("../../escaped.txt", is_dir=False, file_size=4)]
    monkeypatch.setattr(LocalArtifactRepository, "list_artifacts", lambda self, path=None: hostile)
    monkeypatch.setattr(
        LocalArtifactRepository, "_download_file", lambda self, remote, local: Path(local).write_text("evil")
    )
    with pytest.raises(UserError):
        tracker.download(run_id, "sub", tmp_path / "deep" / "folder")
    assert list(tmp_path.rglob("escaped.txt")) == []


@pytest.fixture(scope="module")
def network():
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(2, 3, name="conv")(keras.layers.Rescaling(1 / 255)(image))
    output = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(x))
    model = keras.Model(image, output, name="tiny")
    model.compile("rmsprop", "sparse_categorical_crossentropy")
    model.fit(IMAGES, np.array([0, 1, 2]), verbose=0)
    return model


def test_model(tracker, client, network, uri, tmp_path, monkeypatch, capfd):
    import keras
    import mlflow

    monkeypatch.chdir(tmp_path)
    run_id = tracker.start_run("n", {}, {})
    tracker.log_model(network, IMAGES[:1], ("cat", "dog", "cow"))
    tracker.end_run("FINISHED")
    assert tuple(capfd.readouterr()) == ("", "")
    expected = network.predict(IMAGES, verbose=0)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    loaded = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    predicted = loaded.predict(IMAGES)
    assert predicted.dtype == np.float32
    np.testing.assert_array_equal(predicted, expected)
    taken, given = loaded.metadata.signature.inputs.inputs[0], loaded.metadata.signature.outputs.inputs[0]
    assert (taken.type, taken.shape) == (np.dtype("uint8"), (-1, 8, 8, 3))
    assert (given.type, given.shape) == (np.dtype("float32"), (-1, 3))
    np.testing.assert_array_equal(loaded.input_example, IMAGES[:1])
    assert loaded.metadata.metadata["class_names"] == ["cat", "dog", "cow"]

    folder = tracker.download(run_id, "model", tmp_path / "fetched")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    texts = {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "data/keras_module.txt"}
    assert files == {*texts, "data/model.keras", "input_example.json", "serving_input_example.json"}
    with zipfile.ZipFile(folder / "data" / "model.keras") as archive:  # JSON and HDF5: nothing to unpickle
        assert sorted(archive.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]
    lines = (folder / "requirements.txt").read_text().split()
    assert lines == [f"{name}=={version(name)}" for name in ("mlflow", "tensorflow", "keras", "numpy")]
    alone = keras.saving.load_model(folder / "data" / "model.keras")
    assert not alone.compiled and [layer.name for layer in alone.layers][2] == "conv"
    np.testing.assert_array_equal(alone.predict(IMAGES, verbose=0), expected)
    assert not list(tmp_path.glob("mlflow.db")) and not list(tmp_path.glob("mlruns"))


def test_a_model_is_told_from_others_and_has_params_and_figures(tracker, client, network):
    names = []
    for seed in ("0", "1"):
        run_id = tracker.start_run(f"seed={seed} (a.b/c)", {"optimizer.learning_rate": "0.1", "seed": seed}, {})
        tracker.log_input("pets", "cd" * 32, "data", {"validation": {"cat": 3}, "test": {"cat": 1}}, 3)
        tracker.log_metrics({"train/acc": 0.5}, 1)
        tracker.log_metrics({"final/val_acc": 0.75, "test/acc": 0.5, "test/auc": math.nan, "x/count/epochs": 1}, 0)
        tracker.log_model(network, IMAGES[:1], ("cat", "dog", "cow"))
        tracker.end_run("FINISHED")
        model = tracker.find_logged_model(run_id)
        assert model.name == f"seed={seed} (a_b_c) {run_id[:8]}"
        assert model.params == {"optimizer.learning_rate": "0.1", "seed": seed}
        figures = {metric.key: (metric.value, metric.dataset_name) for metric in model.metrics}
        assert figures["final/val_acc"] == (0.75, "pets/validation") and figures["test/acc"] == (0.5, "pets/test")
        assert set(figures) <= {"final/val_acc", "test/acc", "test/auc"}
        assert len(client.get_metric_history(run_id, "test/acc")) == 1  # not a second time
        assert [run.info.run_id for run in client.search_runs([model.experiment_id])].count(run_id) == 1
        version = tracker.register(run_id, "pets")
        linked = client.get_logged_model(model.model_id).tags["mlflow.modelVersions"]
        assert json.loads(linked) == [{"name": "pets", "version": version.version}]
        assert client.get_model_version("pets", version.version).run_id == run_id
        names.append(model.name)
    assert len(set(names)) == 2


def test_a_model_that_cannot_be_saved_is_marked(tracker, client, network, monkeypatch):
    run_id = tracker.start_run("n", {}, {})
    from mlflow import keras as flavor

    assert flavor.save_model  # the module is loaded when it is first used, and would replace what we set
    monkeypatch.setattr("mlflow.keras.save_model", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tracker.log_model(network, IMAGES[:1], ("a", "b", "c"))
    model_id = client.get_run(run_id).outputs.model_outputs[0].model_id
    assert str(client.get_logged_model(model_id).status) == "FAILED"


def half_recorded(client, run_id, name):
    """What a process leaves that is killed while it records a model."""
    from mlflow.entities import LoggedModelOutput

    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, name=name, source_run_id=run_id)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model.model_id


def test_a_run_that_was_killed_while_its_model_was_recorded_has_one_model(tracker, client, network, uri):
    import mlflow

    run_id = tracker.start_run("n", {}, {})
    half = half_recorded(client, run_id, "model")
    assert tracker.find_logged_model(run_id) is None and not tracker.has_model(run_id)
    with pytest.raises(UserError, match="recorded no model"):
        tracker.register(run_id, "whole")
    tracker.end_run("FINISHED")
    assert tracker.runs_without_whole_model() == [run_id]
    tracker.resume_run(run_id)
    assert tracker.logged_models(run_id) == []
    tracker.log_model(network, IMAGES[:1], ("a", "b", "c"))
    first = tracker.find_logged_model(run_id).model_id
    tracker.resume_run(run_id)  # it was killed before it ended, and recorded what it came to once more
    assert [model.model_id for model in tracker.logged_models(run_id)] == [first]
    tracker.log_model(network, IMAGES[:1], ("a", "b", "c"))
    tracker.end_run("FINISHED")
    (model,) = tracker.logged_models(run_id)
    assert str(model.status) == "READY" and model.model_id not in (half, first)
    assert tracker.runs_without_whole_model() == []
    version = tracker.register(run_id, "whole").version
    assert client.get_model_version("whole", version).source == model.artifact_location
    mlflow.set_tracking_uri(uri)
    assert mlflow.pyfunc.load_model(f"runs:/{run_id}/model").predict(IMAGES).shape == (3, 3)


# ------------------------------------------------------------------------------------------------- reading


def test_sweeps_and_children(tracker):
    def run(name, status, tags, parent=None):
        run_id = tracker.start_run(name, {}, tags, parent_run_id=parent)
        tracker.end_run(status)
        return run_id

    first = run("first", "FINISHED", dict([PARENT_TAG]))
    children = [run(f"job{i}", "FINISHED", {"hash": f"h{i}", "line": "a='b'"}, first) for i in range(3)]
    run("crashed", "FAILED", {"hash": "h0"}, first)
    second = run("second", "FINISHED", dict([PARENT_TAG]))
    tracker.start_run("running", {}, {})

    assert [info.name for info in tracker.children(first)] == ["job0", "job1", "job2", "crashed"]
    assert {info.parent_run_id for info in tracker.children(first)} == {first}
    assert tracker.children(second) == []
    assert [info.run_id for info in tracker.sweeps(5)] == [second, first]
    assert [info.run_id for info in tracker.sweeps(1)] == [second]
    assert tracker.find_run("latest").run_id == children[2]
    assert [info.name for info in tracker.find_runs({"hash": "h0"})] == ["crashed", "job0"]
    assert [info.name for info in tracker.find_runs({"hash": "h0"}, status="FINISHED")] == ["job0"]
    assert [info.name for info in tracker.find_runs(status="RUNNING")] == ["running"]
    assert len(tracker.find_runs({"line": "a='b'"})) == 3
    assert len(tracker.find_runs()) == 7 and len(tracker.find_runs(limit=2)) == 2


def test_find_run_by_prefix(tracker, uri, monkeypatch):
    monkeypatch.setattr("cnnexp.tracking.reader.RUNS_PER_PAGE", 5)  # several pages
    ids = [tracker.start_run("n", {}, {}) for _ in range(17)]  # two of them begin with the same hex digit
    assert len(tracker.find_runs()) == 17
    firsts = [run_id[0] for run_id in ids]
    shared = next(first for first in firsts if firsts.count(first) > 1)
    with pytest.raises(UserError, match=f"^{shared}: several runs"):
        tracker.find_run(shared)
    assert tracker.find_run(ids[3][:20]).run_id == tracker.find_run(ids[3]).run_id == ids[3]
    for unknown in ("latest", "0" * 32, "baseline", "%", "", ids[3].upper()):
        with pytest.raises(UserError, match="run"):
            tracker.find_run(unknown)
    with pytest.raises(UserError, match=r"tracking\.experiment=another"):
        Tracker(uri, "another", "artifacts").find_run(ids[0])


def test_trackers_side_by_side_do_not_mix(uri, tracker, tmp_path, request):
    import mlflow

    before = mlflow.get_tracking_uri()

    def work(number):
        own = Tracker(uri, request.node.name, str(tmp_path))
        own.start_run(str(number), {}, {})
        for step in range(10):
            own.log_metrics({"m": float(number)}, step)
        own.end_run("FINISHED")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = tracker.find_runs()
    assert sorted((run.name, run.metrics["m"]) for run in runs) == [(str(n), float(n)) for n in range(4)]
    assert mlflow.active_run() is None and mlflow.get_tracking_uri() == before


# ---------------------------------------------------------------------------------------------- the others


def test_ui_command(tmp_path):
    command = Tracker(f"sqlite:///{tmp_path}/m.db", "e", str(tmp_path / "a b")).ui_command()
    assert command[:4] == [sys.executable, "-m", "mlflow", "ui"]
    assert command[4:6] == ["--backend-store-uri", f"sqlite:///{tmp_path}/m.db"]
    assert command[6:8] == ["--default-artifact-root", f"{tmp_path.as_uri()}/a%20b"]
    assert command[8:10] == ["--host", "127.0.0.1"]


def test_null_tracker_has_the_methods_of_tracker(tmp_path, monkeypatch):
    def methods(cls):
        found = inspect.getmembers(cls, inspect.isfunction)
        inner = ("client", "find_experiment", "find_logged_model", "logged_models", "place")
        return {
            name: list(inspect.signature(f).parameters) for name, f in found if name[0] != "_" and name not in inner
        }

    assert methods(NullTracker) == methods(Tracker)
    monkeypatch.chdir(tmp_path)
    null = NullTracker()
    null.prepare()
    assert null.start_run("n", {}, {}) != null.start_run("n", {}, {})
    null.log_metrics({"a": 1.0}, 0)
    null.log_text("a", "b")
    null.end_run("FINISHED")
    assert (null.children("x"), null.sweeps(1), null.find_runs()) == ([], [], [])
    for read in (
        lambda: null.find_run("latest"),
        lambda: null.download("a", "b", "c"),
        lambda: null.register("a", "b"),
        lambda: null.view_links("http://host"),
        null.ui_command,
    ):
        with pytest.raises(UserError, match=r"^tracking\.uri=null"):
            read()
    assert list(tmp_path.iterdir()) == []


def test_logging_of_others_is_left_alone(tracker):
    assert logging.getLogger("mlflow").level == logging.getLogger("alembic").level == logging.ERROR
    assert logging.getLogger().level != logging.ERROR


# ------------------------------------------------------------------------------------- names of earlier versions


def test_figures_are_read_by_their_names_of_now(tracker, client):
    """Counts, totals and times stood before the curves once, without `x/`."""
    run_id = tracker.start_run("old", {}, {})
    old = {"count/epochs": 3, "time/total_s": 1.5, "phase/head/trainable_tensors": 4, "agreement/max_difference": 0.25}
    tracker.log_metrics({**old, "time/epoch_s": 0.5, "val/acc": 0.75}, step=2)
    now = {f"x/{name}": value for name, value in old.items()} | {"time/epoch_s": 0.5, "val/acc": 0.75}
    assert tracker.get_run(run_id).metrics == now
    assert tracker.history(run_id, "x/count/epochs") == [(2, 3.0)]
    assert tracker.history(run_id, "time/epoch_s") == [(2, 0.5)]
    assert tracker.history(run_id, "count/none") == []
    tracker.resume_run(run_id)
    tracker.log_metrics({"x/count/epochs": 3, "val/acc": 0.75}, step=2)  # it has them
    assert "x/count/epochs" not in client.get_run(run_id).data.metrics
    tracker.log_metrics({"x/count/epochs": 4}, step=3)
    assert tracker.get_run(run_id).metrics["x/count/epochs"] == 4
    assert tracker.history(run_id, "x/count/epochs") == [(3, 4.0)]
