"""The backbones that `conf/backbone/` offers."""

import pytest

from cnnexp.composition import load_config
from cnnexp.models.names import APPLICATIONS


@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_application_has_its_file(name: str) -> None:
    backbone = load_config([f"backbone={name}"]).backbone
    assert backbone.name == name
    assert backbone.weights == "imagenet"
    assert backbone.preprocessing == APPLICATIONS[name].preprocessing
