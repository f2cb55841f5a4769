"""What a tracking store holds is data: hostile configs, models and names are refused, and nothing is unpickled."""

import io
import json
import pickle
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml

from cnnexp.commands import reproduce
from cnnexp.config.targets import check_recorded
from cnnexp.errors import UserError
from cnnexp.runs.recorded_config import check_targets, find_single, read_config
from cnnexp.runs.recorded_model import check_model_file
from cnnexp.tracking.mlflow import Tracker

pytestmark = pytest.mark.trains

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `paths.root` of one tracked run on drawn pictures."""
    from cnnexp.cli import main

    root = tmp_path_factory.mktemp("safety")
    line = ["dataset=synthetic", "backbone=mnist_cnn", "dataset.image_size=32", "dataset.size=32", "debug=smoke"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("sys.argv", ["cnnexp"])
        assert main(["train", *line, f"paths.root={root / 'out'}", "dataset.image_size=32"]) == 0
    return root / "out"


@pytest.fixture
def files(trained: Path) -> Iterator[dict[str, Path]]:
    """The artifacts that tests replace, by their names; put back afterwards. No model is kept in the cache."""
    found = {name: next((trained / "mlartifacts").rglob(name)) for name in ("config.yaml", "model.keras", "MLmodel")}
    before = {file: file.read_bytes() for file in found.values()}
    shutil.rmtree(trained / "cache/models", ignore_errors=True)
    yield found
    for file, content in before.items():
        file.write_bytes(content)
    shutil.rmtree(trained / "cache/models", ignore_errors=True)


def picture(trained: Path) -> str:
    return str(next((trained / "data").rglob("test/*/*.jpg")))


def refused(result: tuple[int, str, str], said: str) -> None:
    code, _, err = result
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1, err
    assert said in err and "Traceback" not in err


# ------------------------------------------------------------------------------------------------ configs


def change(file: Path, key: str, value: Any) -> None:
    content = yaml.safe_load(file.read_text())
    node = content
    *above, last = key.split(".")
    for part in above:
        node = node[part]
    node[last] = value
    file.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("key", ["dataset", "augmentation", "backbone", "head", "optimizer"])
def test_a_hostile_target(cnnexp: Run, trained: Path, files: dict[str, Path], key: str, tmp_path: Path) -> None:
    change(files["config.yaml"], f"{key}._target_", "os.system")
    refused(cnnexp("reproduce", "latest", f"paths.root={trained}"), f"{key}._target_=os.system")
    if key == "dataset":
        refused(cnnexp("evaluate", "latest", f"paths.root={trained}"), "--allow-target os.system")
        code, _, err = cnnexp("reproduce", "latest", f"paths.root={trained}", "--allow-target", "os.system")
        assert code == 2 and "it takes command" in err, err  # allowed, but not with the keys of this leaf


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset.path", "${oc.env:HOME}"),
        ("name", "${oc.create:{a: 1}}"),
        ("head.arguments", {"a": ["${oc.env:HOME}"]}),
        ("head.arguments", {"${oc.env:HOME}": 1}),
        ("head.arguments", {"a": [{"b": {"_target_": "os.system"}}]}),
        ("dataset.arguments", {"path": "/etc"}),
        ("paths", {"_target_": "os.system"}),
        ("tracking.tags", [{"_target_": "os.system"}]),
    ],
)
def test_what_else_may_hide_in_a_config(
    cnnexp: Run, trained: Path, files: dict[str, Path], key: str, value: Any
) -> None:
    change(files["config.yaml"], key, value)
    refused(cnnexp("reproduce", "latest", f"paths.root={trained}"), f"{key}." if "path" in value else "config.yaml")


BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system [ls]",
        "a: &a [1, *a]",
        BOMB,
        "[" * 1000,
        "just text",
        "{",
        "",
    ],
)  # fmt: skip
def test_what_is_no_config(cnnexp: Run, trained: Path, files: dict[str, Path], text: str) -> None:
    files["config.yaml"].write_text(text)
    for command in ("reproduce", "evaluate"):
        refused(cnnexp(command, "latest", f"paths.root={trained}"), "config.yaml")


def test_config_is_read_from_one_file_of_sensible_size(trained: Path, files: dict[str, Path]) -> None:
    from cnnexp.config.composition import load_config
    from cnnexp.runs.tracker import open_tracker

    tracker = open_tracker(load_config([f"paths.root={trained}"]).tracking)
    run_id = tracker.find_run("latest").run_id
    assert read_config(tracker, run_id)["backbone"]["name"] == "mnist_cnn"
    files["config.yaml"].write_text("a: " + "x" * 1_000_001)
    with pytest.raises(UserError, match="no text of at most"):
        read_config(tracker, run_id)


def test_targets_are_judged_by_the_object_that_they_lead_to() -> None:
    good = {
        ("dataset",): "cnnexp.data.sources.folder",
        ("augmentation",): "cnnexp.data.augment.Strong",
        ("backbone",): "cnnexp.models.applications.application",
        ("head",): "cnnexp.models.heads.pooled",
        ("optimizer",): "keras.optimizers.AdamW",
        ("phases", "head", "optimizer"): "keras.src.optimizers.sgd.SGD",
    }
    for place, target in good.items():
        check_recorded((*place, "_target_"), target, [])
    check_recorded(("augmentation", "_target_"), None, [])
    bad = {
        "optimizer": [
            "keras.utils.get_file", "keras.saving.load_model", "keras.config.enable_unsafe_deserialization",
            "keras.src.utils.file_utils.os.system", "keras.src.utils.file_utils.os", "keras.optimizers.deserialize",
            "keras.layers.Lambda", "keras.optimizers.Adam.__init__", "keras.src.utils.file_utils.shutil.rmtree",
            "keras.optimizers", "kerasx.Adam", "builtins.eval", "tensorflow.keras.optimizers.Adam", "", None, 7, [1],
        ],
        "dataset": [
            "cnnexp.data.drawing.synthetic.draw_synthetic", "cnnexp.data.sources.prepare_dogs_vs_cats",
            "os.system\nnext line", "cnnexp.data.sources._dataset", "cnnexp.data.sources.hashlib",
            "cnnexp.data.sources.Path", "cnnexp.files.write_atomic", "cnnexp.data.sourcesx.a",
        ],
        "backbone": ["cnnexp.models.efficientnet_lite.importlib.import_module", "cnnexp.models.names.APPLICATIONS"],
        "head": ["cnnexp.data.sources.folder", "cnnexp.models.heads.keras"],
        "augmentation": ["cnnexp.data.augment.cv2.imread", "cnnexp.data.augment.np"],
    }  # fmt: skip
    for group, targets in bad.items():
        for target in targets:
            with pytest.raises(UserError) as caught:
                check_recorded((group, "_target_"), target, [])
            assert len(str(caught.value).splitlines()) == 1
    for place in (
        ("_target_",),
        ("trainer", "_target_"),
        ("phases", "head", "_target_"),
        ("x", "optimizer", "_target_"),
    ):
        with pytest.raises(UserError, match="no target in this place"):
            check_recorded(place, "keras.optimizers.Adam", [])


def test_allowed_targets() -> None:
    check_targets("r", {"dataset": {"_target_": "os.getcwd"}}, ["os.getcwd"])
    with pytest.raises(UserError, match=r"run r: .*os\.getcwdb"):
        check_targets("r", {"dataset": {"_target_": "os.getcwdb"}}, ["os.getcwd"])
    arguments = ["run", "--allow-target", "a.b", "x=1", "--allow-target=c.d"]
    given = reproduce.parser().parse(arguments)
    assert (given.allow_target, given.words) == (["a.b", "c.d"], ["run", "x=1"])
    with pytest.raises(UserError, match="--allow-target"):
        reproduce.parser().parse(["run", "--allow-target"])


# ------------------------------------------------------------------------------------------------ models


def rewritten(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Let `change` edit the description of the network."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    network = json.loads(members["config.json"])
    change(network)
    members["config.json"] = json.dumps(network).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def last_layer(network: dict[str, Any]) -> dict[str, Any]:
    layer: dict[str, Any] = network["config"]["layers"][-1]
    return layer


def test_a_model_with_a_lambda_layer(cnnexp: Run, trained: Path, files: dict[str, Path]) -> None:
    layers = [keras.Input((32, 32, 3)), keras.layers.Lambda(lambda x: x * 2), keras.layers.Flatten()]
    keras.Sequential([*layers, keras.layers.Dense(1)]).save(files["model.keras"])
    where = f"paths.root={trained}"
    refused(cnnexp("predict", "latest", picture(trained), where), "Lambda")
    refused(cnnexp("explain", "latest", picture(trained), where), "Lambda")
    refused(cnnexp("evaluate", "latest", where), "Lambda")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"module": "os", "class_name": "system", "registered_name": None}, "os.system"),
        ({"module": "keras.src.utils.file_utils.os", "class_name": "system"}, "cannot be loaded"),
        ({"module": "keras.utils", "class_name": "get_file"}, "cannot be loaded"),
        ({"module": "builtins", "class_name": "eval"}, "builtins.eval"),
        ({"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/etc"}}, "TFSMLayer"),
        ({"class_name": None}, "cannot be loaded"),
        ({"class_name": "__lambda__", "config": {"value": "AAAA"}}, "lambda"),
    ],
)
def test_a_model_that_names_other_things(
    cnnexp: Run, trained: Path, files: dict[str, Path], changes: dict[str, Any], said: str
) -> None:
    rewritten(files["model.keras"], lambda network: last_layer(network).update(changes))
    refused(cnnexp("predict", "latest", picture(trained), f"paths.root={trained}"), said)


@pytest.mark.parametrize("member", ["../x", "/x", "assets/../../x", "..\\x", "C:x"])
def test_members_of_a_model_stay_in_their_folder(trained: Path, files: dict[str, Path], member: str) -> None:
    check_model_file(files["model.keras"])
    with zipfile.ZipFile(files["model.keras"], "a") as archive:
        archive.writestr(member, b"content")
    with pytest.raises(UserError, match="would leave its folder"):
        check_model_file(files["model.keras"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.keras", b""), ("model.keras", b"\x89HDF\r\n\x1a\n"), ("model.keras", b"PK\x05\x06" + bytes(18)),
        ("MLmodel", b""), ("MLmodel", b"metadata: {class_names: [a, b, c]}"), ("MLmodel", b"!!python/name:os.system"),
        ("MLmodel", b"metadata: {class_names: {a: 1}}"), ("MLmodel", b"[" * 1000), ("MLmodel", b"\xff\xfe"),
    ],
)  # fmt: skip
def test_a_damaged_model(cnnexp: Run, trained: Path, files: dict[str, Path], name: str, content: bytes) -> None:
    files[name].write_bytes(content)
    refused(cnnexp("predict", "latest", picture(trained), f"paths.root={trained}"), "cannot be loaded")


def test_a_download_that_was_broken_off_is_begun_again(
    cnnexp: Run, trained: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    whole = LocalArtifactRepository.download_artifacts

    def broken(self: Any, path: str, folder: str) -> None:
        (Path(folder) / "data").mkdir()
        (Path(folder) / "data/model.keras").write_bytes(b"half")
        raise OSError("connection lost")

    monkeypatch.setattr(LocalArtifactRepository, "download_artifacts", broken)
    line = ("predict", "latest", picture(trained), f"paths.root={trained}")
    refused(cnnexp(*line), "model")
    assert not list((trained / "cache/models").rglob("model.keras"))
    monkeypatch.setattr(LocalArtifactRepository, "download_artifacts", whole)
    assert cnnexp(*line)[0] == 0


# ------------------------------------------------------------------------------------------------ names


RUNS = ["../x", "/etc/passwd", "http://host/a", "models:/../x", "models:/a/../../1", "models:/x@../y"]


@pytest.mark.parametrize("name", RUNS)
def test_names_that_are_no_runs(cnnexp: Run, trained: Path, name: str) -> None:
    where = f"paths.root={trained}"
    before = sorted(trained.rglob("*"))
    for command in (["predict", name, picture(trained)], ["explain", name, picture(trained)], ["compare", name]):
        refused(cnnexp(*command, where), name.split("@")[0][:10])
    refused(cnnexp("evaluate", name, where), name.split("@")[0][:10])
    refused(cnnexp("reproduce", name, where), name.split("@")[0][:10])
    assert sorted(trained.rglob("*")) == before


def test_a_store_that_answers_with_a_hostile_run_id(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    for run_id in ("../../x", "/etc", "", "0" * 33, "A" * 32):
        store = SimpleNamespace(find_run=lambda name, run_id=run_id: SimpleNamespace(run_id=run_id, tags={}))
        with pytest.raises(UserError, match="refused"):
            find_single(store, "latest")


class Hostile(BaseHTTPRequestHandler):
    """An artifact server whose listing names files outside of the folder."""

    name = "../../escaped.txt"

    def do_GET(self) -> None:
        listing = {"files": [{"path": self.name, "is_dir": False, "file_size": 4}]}
        content = json.dumps(listing).encode() if "?path" in self.path else b"evil"
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None: ...


def test_a_listing_that_leaves_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server = HTTPServer(("127.0.0.1", 0), Hostile)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tracker = Tracker(f"sqlite:///{tmp_path}/a.db", "e", str(tmp_path))
    tracker.prepare()
    place = f"http://127.0.0.1:{server.server_port}/api/2.0/mlflow-artifacts/artifacts/1"
    monkeypatch.setattr(Tracker, "place", lambda *_: (place, "model", ""))
    try:
        for name in ("../../escaped.txt", "/escaped.txt", "a/../../../escaped.txt", "..%2fescaped.txt"):
            monkeypatch.setattr(Hostile, "name", name)
            with pytest.raises(UserError, match="no such artifact"):
                tracker.download("0" * 32, "model", tmp_path / "a/b/c")
        monkeypatch.setattr(Hostile, "name", "inside.txt")
        assert (tracker.download("0" * 32, "model", tmp_path / "a/b/c") / "inside.txt").read_bytes() == b"evil"
    finally:
        server.shutdown()
        server.server_close()
    assert not [file for file in tmp_path.rglob("*") if "escaped" in file.name]
    assert not Path("/escaped.txt").exists()
    for path in ("../x", "/x", "a/../../x", "..\\x", "C:\\x", ""):
        with pytest.raises(UserError, match="not an artifact"):
            tracker.download("0" * 32, path, tmp_path / "a")


# ------------------------------------------------------------------------------------------------ no pickles


def test_nothing_from_a_store_is_unpickled(
    cnnexp: Run, trained: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command that reads a run, with a pickle module that refuses, and a pickle beside every artifact."""
    for name in ("model.keras", "config.yaml"):
        (files[name].parent / "python_model.pkl").write_bytes(pickle.dumps("never read"))

    def refuse(*arguments: Any, **keywords: Any) -> Any:
        raise AssertionError("a pickle was opened")

    for name in ("load", "loads", "Unpickler", "_Unpickler", "_load", "_loads"):
        monkeypatch.setattr(pickle, name, refuse)
    with pytest.raises(pickle.UnpicklingError):
        np.load(io.BytesIO(b"\x80\x04N."), allow_pickle=True)  # NumPy goes through the same door
    where = f"paths.root={trained}"
    for command in (
        ["predict", "latest", picture(trained)],
        ["explain", "latest", picture(trained)],
        ["compare", "latest"],
        ["evaluate", "latest"],
        ["reproduce", "latest"],
    ):
        code, _, err = cnnexp(*command, where)
        assert code == 0, (command, err)
