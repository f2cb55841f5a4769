"""The whole config of each experiment, as kept in tests/golden/: a changed default shows there in all that it reaches.

After a change that is meant, `make golden` writes the files anew; what git shows of them is then what it did.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from cnnexp.config import validated
from cnnexp.config.composition import compose_config
from cnnexp.config.hydra_driver import conf_dir, hydra_context

GOLDEN = Path(__file__).with_name("golden")
FOLDER = conf_dir() / "experiment"
EXPERIMENTS = sorted(file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.rglob("*.yaml"))


def golden(experiment: str) -> Path:
    return GOLDEN / f"{experiment.replace('/', '_')}.yaml"


def as_yaml(config: DictConfig) -> str:
    """With the values that are taken from others filled in."""
    return yaml.safe_dump(OmegaConf.to_container(config, resolve=True), sort_keys=False)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_config_is_the_kept_one(experiment: str) -> None:
    """And it fits the schema, and has the name of its file."""
    with hydra_context():
        config = compose_config([f"experiment={experiment}"])
        assert as_yaml(config) == golden(experiment).read_text(), "meant? `make golden`, and look at the diff"
        assert validated(config).name == Path(experiment).name


def test_no_file_is_left_of_an_experiment_that_is_gone() -> None:
    assert {file.name for file in GOLDEN.iterdir()} == {golden(experiment).name for experiment in EXPERIMENTS}


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for file in GOLDEN.glob("*.yaml"):
        file.unlink()
    with hydra_context():
        for name in EXPERIMENTS:
            golden(name).write_text(as_yaml(compose_config([f"experiment={name}"])))
