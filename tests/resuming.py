"""What the tests of resuming share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from cnnexp.runs.folder import RunFolder
from cnnexp.tracking.mlflow import Tracker

Run = Callable[..., tuple[int, str, str]]


def line(drawn_root: Path, *overrides: str) -> list[str]:
    """A run on a few small pictures, whose model is not recorded."""
    small = ["debug=smoke", "dataset=synthetic", "dataset.image_size=48", "tracking.log_model=false"]
    return ["train", *small, f"paths.data={drawn_root}", *overrides]


def tracker(root: Path) -> Tracker:
    return Tracker(f"sqlite:///{root}/outputs/mlflow.db", "cnnexp", str(root / "outputs" / "mlartifacts"))


def folders(root: Path) -> list[Path]:
    return sorted((root / "outputs" / "runs").iterdir())


def age(folder: Path, change: Callable[[dict[str, Any]], object]) -> str:
    """Make the run in a folder one of an earlier version, whose config was another; return its run id."""
    for file in (folder / "config.yaml", folder / ".hydra" / "config.yaml"):
        if file.is_file():
            config = yaml.safe_load(file.read_text())
            change(config)
            file.write_text(yaml.safe_dump(config))
    made = RunFolder(folder).manifest
    assert made is not None
    RunFolder(folder).write_manifest(replace(made, config_hash="of-old"))
    return made.run_id
