"""`summary`, `prepare`, `compare` and `ui` from the command line."""

import io
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnexp.data.opencv import cv2

Run = Callable[..., tuple[int, str, str]]
TRAIN = ["train", "dataset=folder", "debug=smoke", "dataset.image_size=48", "tracking=none"]


@pytest.mark.trains
@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        ("mnist", ["93,322 parameters"]),
        ("baseline", ["3,453,121 parameters", "(6272 + 1)*512"]),
        ("frozen", ["vgg16 14,714,688", "(3*3*512 + 1)*512"]),
        (
            "frozen_augmented",
            ["16,812,353 parameters", "16,812,353 are trained, in 30 tensors", "2,097,665 are trained, in 4 tensors"],
        ),
        ("finetuned", ["9,177,089 are trained, in 10 tensors"]),  # block5: 3 * (3*3*512 + 1)*512 = 7,079,424
    ],
)
def test_summary_gives_the_tutorials_counts(cnnexp: Run, experiment: str, said: list[str]) -> None:
    code, out, err = cnnexp("summary", f"experiment={experiment}")
    assert code == 0, err
    for text in said:
        assert text in out


@pytest.mark.trains
def test_summary_of_a_pretrained_network_with_batch_norm(cnnexp: Run) -> None:
    code, out, _ = cnnexp("summary", "experiment=finetuned", "backbone=efficientnet_lite0")
    assert code == 0
    assert "after freezing (phase finetune, until_layer) 10,836,897 are trained, in 20 tensors" in out


def test_summary_takes_only_overrides(cnnexp: Run) -> None:
    code, _, err = cnnexp("summary", "baseline")
    assert code == 2
    assert "experiment=baseline" in err


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for kind in ("apple", "pear", "plum"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number in range(8):
            picture = rng.integers(0, 256, (20, 20, 3)).astype(np.uint8)
            assert cv2.imwrite(str(tmp_path / "photos" / kind / f"{number}.png"), picture)
    return tmp_path / "photos"


def test_prepare_shows_the_splits(cnnexp: Run, photos: Path) -> None:
    code, out, err = cnnexp("prepare", "folder", f"dataset.path={photos}")
    assert code == 0, err
    assert "4 apple, 4 pear, 4 plum" in out  # half of eight to train on
    assert out.count("2 apple, 2 pear, 2 plum") == 2
    assert f"\nin {photos}\n" in out


def test_prepare_says_where_the_images_lie(cnnexp: Run, photos: Path, drawn_root: Path, tmp_path: Path) -> None:
    """Drawn and unpacked ones do not lie in dataset.path itself."""
    _, out, _ = cnnexp("prepare", "synthetic", "debug=smoke", f"paths.data={drawn_root}")
    (drawn,) = (path for path in (drawn_root / "synthetic").iterdir() if path.is_dir())
    assert f"\nin {drawn}\n" in out and (drawn / "train" / "cat").is_dir()
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", photos.parent, photos.name)
    code, out, err = cnnexp("prepare", "folder", f"dataset.path={archive}")
    (said,) = (line.removeprefix("in ") for line in out.splitlines() if line.startswith("in "))
    assert code == 0 and (Path(said) / "apple").is_dir(), err
    table = tmp_path / "table.csv"
    table.write_text("path,label\n" + "".join(f"{file},{file.parent.name}\n" for file in photos.glob("*/*.png")))
    code, out, err = cnnexp("prepare", "folder", f"dataset.path={table}")
    assert code == 0 and ("\nin /" in out), err
    assert "\nin " not in cnnexp("prepare", "digits")[1]


@pytest.mark.trains
def test_a_folder_of_three_classes_trains(cnnexp: Run, photos: Path, tmp_path: Path) -> None:
    code, _, err = cnnexp(*TRAIN, f"dataset.path={photos}")
    assert code == 0, err
    (predictions,) = tmp_path.glob("outputs/runs/*/predictions.csv")
    assert predictions.read_text().splitlines()[0] == "file,truth,predicted,p_apple,p_pear,p_plum"


@pytest.mark.trains
def test_a_broken_file_ends_in_one_line_or_is_skipped(cnnexp: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "apple" / "0.png").write_bytes(b"no picture")
    arguments = (*TRAIN, f"dataset.path={photos}")
    code, _, err = cnnexp(*arguments, "dataset.limit=null")
    assert code == 2
    assert "apple/0.png" in err
    assert len(err.strip().splitlines()) == 1
    code, _, err = cnnexp(*arguments, "dataset.limit=null", "dataset.on_bad=skip")
    assert code == 0, err
    assert "apple/0.png" in err


@pytest.mark.parametrize("command", ["train", "prepare", "summary", "compare", "ui"])
def test_every_command_has_help(cnnexp: Run, command: str) -> None:
    code, out, _ = cnnexp(command, "--help")
    assert code == 0
    assert f"cnnexp {command}" in out


def test_compare_without_a_store(cnnexp: Run) -> None:
    code, _, err = cnnexp("compare")
    assert code == 2
    assert len(err.strip().splitlines()) == 1


def test_ui_serves_the_configured_store(cnnexp: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[list[str]] = []
    environments: list[dict[str, str]] = []

    class Server:
        """One that ends at once."""

        stdin = io.BytesIO()

        def __init__(self, command: list[str], env: dict[str, str], **_: object) -> None:
            called.append(command)
            environments.append(env)

        def poll(self) -> int:
            return 0

        wait = poll

    monkeypatch.setattr(subprocess, "Popen", Server)
    for _ in range(2):  # a store that is made now, and one that is there
        port = str(free_port())
        code, out, err = cnnexp("ui", "--workers", "2", f"paths.root={tmp_path}/elsewhere", "--port", port)
        assert code == 0, err
        assert called[-1][-4:] == ["--workers", "2", "--port", port]  # MLflow's options in their order
        assert f"sqlite:///{tmp_path}/elsewhere/mlflow.db" in called[-1]
        assert called[-1][-2] == "--port" and called[-1][called[-1].index("--workers") + 1] == "1"
        assert environments[-1]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
        lines = out.splitlines()
        assert lines[0].startswith(f"waits for MLflow's server on http://127.0.0.1:{called[-1][-1]}")
        assert [line.split()[0] for line in lines[1:]] == ["Sweeps", "Best", "Curves"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_ui_refuses_a_port_that_is_taken(cnnexp: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for option in (["--port", str(port)], [f"--port={port}"], ["-p", str(port)]):
            code, out, err = cnnexp("ui", *option)
            assert (code, out, len(err.splitlines())) == (2, "", 1)
            assert f"127.0.0.1:{port} cannot be served (Address already in use)" in err and "--port" in err
    for bad in ("x", "0", "65536"):
        assert cnnexp("ui", "--port", bad)[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_runs_that_differ_only_in_the_seed_share_a_name() -> None:
    from cnnexp.report.compare import Result
    from cnnexp.runs.comparison import distinguish

    def named(*lines: str) -> list[str]:
        result = Result("r", "a", 0, "FINISHED", 0.5, 10, 0.5, 1.0, 1, 10, 10, None, None, 0)
        return [row.name for row in distinguish([result] * len(lines), [line.split() for line in lines])]

    assert named("x=1 seed=0", "x=1 seed=1") == ["a", "a"]
    assert named("x=1 seed=0", "x=2 seed=0") == ["a x=1", "a x=2"]
    assert named("experiment=a", "experiment=b") == ["a", "a"]
    assert named("x=1") == ["a"]
    assert named() == []


@pytest.mark.trains
@pytest.mark.long
def test_the_number_of_loader_threads_changes_nothing(cnnexp: Run, photos: Path, tmp_path: Path) -> None:
    """Files that are decoded anew for each batch, augmented in every way; the probabilities agree to the last digit."""
    line = [*TRAIN, f"dataset.path={photos}", "augmentation=strong"]
    found = []
    for threads in (1, 2, 8):
        root = tmp_path / f"threads{threads}"
        room = ["trainer.image_memory_limit=0", "trainer.image_cache_limit=0"]
        code, out, err = cnnexp(*line, *room, f"trainer.loader_threads={threads}", f"paths.root={root}")
        assert code == 0, err
        epochs = re.findall(r"loss \S+ +acc \S+ +val loss \S+ +val acc \S+", out)
        (predictions,) = root.glob("runs/*/predictions.csv")
        found.append((epochs, predictions.read_text()))
    assert len(found[0][0]) == 2 and found[0] == found[1] == found[2]


def test_a_sweep_keeps_no_config_of_a_job_that_is_done() -> None:
    from hydra.core.utils import JobReturn
    from omegaconf import OmegaConf

    from cnnexp.config.hydra_driver import LightResults

    done = JobReturn(cfg=OmegaConf.create({"a": 1}), hydra_cfg=OmegaConf.create({"hydra": {}}), task_name="train")
    done.return_value = 0.5
    LightResults().on_job_end(OmegaConf.create(), job_return=done)
    assert (done.cfg, done.hydra_cfg, done.task_name) == (None, None, "train")


def test_a_path_with_an_equals_sign_is_no_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An existing file, or one in a folder; what begins with a key is one."""
    from cnnexp.commands.arguments import split_overrides

    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()
    (tmp_path / "trainer.epochs=3").touch()
    names = ["lr=0.1", "./a=b.jpg", "runs/lr=*/photo.jpg", "/photos/x=1/*.jpg", "../x=y"]
    overrides = ["trainer.epochs=3", "hydra/launcher=joblib", "optimizer=adam", "datset.path=x/y", "+a.b=1", "~head"]
    found, given = split_overrides([*names, *overrides])
    assert (found, given) == (names, overrides)
