"""What of a config becomes a run's params: what tells in a comparison."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from cnnexp.config.composition import compose_config
from cnnexp.config.hydra_driver import hydra_context
from cnnexp.runs.job import Job
from cnnexp.runs.recording import _params


def params(*overrides: str) -> dict[str, str]:
    with hydra_context():
        composed = compose_config([*overrides])
    OmegaConf.set_struct(composed, False)
    return _params(Job.from_hydra(composed, Path("folder"), [*overrides]))


def test_params_hold_what_tells() -> None:
    found = params("dataset=synthetic", "optimizer=adam", "optimizer.learning_rate=1e-3")
    assert not [key for key, value in found.items() if value in ("null", "{}", "[]", "")]
    assert not [key for key in found if key.startswith("paths.") or key.endswith("_target_")]
    assert not {"tracking.uri", "tracking.artifact_root", "dataset.manifests", "trainer.resume"} & set(found)
    assert found["optimizer.learning_rate"] == "0.001" and found["optimizer.name"] == "adam"
    assert found["backbone.name"] == "small_cnn" and found["dataset.image_size"] == "150"
    assert found["optimizer.beta_1"] == "0.9"  # a value, though it is the default: of other runs it may differ
    assert len(found) < 60


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("trainer.threads=2", "trainer.threads", "2"),
        ("tracking.uri=http://host:5000", "tracking.uri", "http://host:5000"),
        ("tracking.register=pets", "tracking.register", "pets"),
        ("tracking.experiment=mine", "tracking.experiment", "mine"),
        ("+tracking.tags.why=test", "tracking.tags.why", "test"),
        ("dataset.manifests=null", "dataset.manifests", "null"),  # its default is a folder
        ("dataset.path=pictures", "dataset.path", "pictures"),
        ("+backbone.arguments.alpha=null", "backbone.arguments.alpha", "null"),  # the schema knows of none
        ("head._target_=os.path.join", "head._target_", "os.path.join"),
        (
            "head._target_=cnnexp.models.heads.pooled",
            "head._target_",
            "cnnexp.models.heads.pooled",
        ),  # not as it is named
    ],
)
def test_what_differs_from_its_default_is_no_empty_value(override: str, key: str, value: str) -> None:
    found = params(override)
    assert found[key] == value


def test_every_value_that_is_left_out_is_the_default_or_a_place() -> None:
    """By hand, for the default config: whatever is not in the params."""
    from cnnexp.tracking.record import flatten

    with hydra_context():
        composed: Any = OmegaConf.to_container(compose_config([]), resolve=True)
    recorded = params()
    left = {key: value for key, value in flatten(composed).items() if key not in recorded}
    filled = {key: value for key, value in left.items() if value not in ("null", "{}", "[]", "")}
    assert {key for key in filled if not key.startswith("paths.") and not key.endswith("._target_")} == {
        "tracking.uri", "tracking.artifact_root", "dataset.manifests", "trainer.resume", "sweep.resume", "sweep.reuse",
        "sweep.report", "trainer.label_smoothing",
    }  # fmt: skip
