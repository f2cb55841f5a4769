"""What the tests of resuming share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
