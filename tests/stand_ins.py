"""What stands in for slow things that a test is not about: pictures, trainings, runs that were made already."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# ------------------------------------------------------------------------------------------------ pictures


class Pictures:
    """Matplotlib lays figures out and draws them only in tests marked `pictures`; in others their files are blank.

    That is two fifths of a smoke run. What is in a figure is put together all the same.
    """

    drawn = True  # set before the fixtures of each test

    def stand_in(self, patch: pytest.MonkeyPatch) -> None:
        """Take the place of what draws, until `patch` is undone."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        save, draw = Figure.savefig, FigureCanvasAgg.draw

        def savefig(figure: Figure, place: Any, **options: Any) -> None:
            if self.drawn:
                save(figure, place, **options)
            elif hasattr(place, "write"):
                place.write(BLANK)
            else:
                Path(place).write_bytes(BLANK)

        def draw_canvas(canvas: FigureCanvasAgg) -> None:
            if self.drawn:
                draw(canvas)
            else:
                canvas.renderer = canvas.get_renderer()

        patch.setattr(Figure, "savefig", savefig)
        patch.setattr(FigureCanvasAgg, "draw", draw_canvas)


# a white pixel
BLANK = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c63f80f0001010100b138f6140000000049454e44ae426082"
)

# ----------------------------------------------------------------------------------------------- trainings


def fit(
    parts: Any, on_epoch: Callable[[int, dict[str, float]], Any], checkpoint: Path | None = None, resume: bool = False
) -> Any:
    """In the place of `cnnexp.runs.run.fit`: trains nothing, and takes no time.

    Figures follow from seed and epoch. Each epoch is handed on, written to the checkpoint and printed, in this order,
    and a training that is resumed goes on behind the last one in the checkpoint, as a real one does.
    """
    from cnnexp.training.trainer import FitResult

    config, data = parts.config, parts.data
    history: list[dict[str, float]] = []
    if resume and checkpoint and checkpoint.is_file():
        history = json.loads(checkpoint.read_text())
    epochs = sum(epochs for _, epochs, _ in config.schedules())
    for epoch in range(len(history), epochs):
        keys = ("train/loss", "train/acc", "val/loss", "val/acc")
        figures = dict(zip(keys, np.random.default_rng([config.seed, epoch]).random(4).tolist(), strict=True))
        figures |= {"lr": config.optimizer.learning_rate, "time/epoch_s": 0.1, "images_per_s": 10.0}
        on_epoch(epoch, figures)
        history.append(figures)
        if checkpoint:
            checkpoint.write_text(json.dumps(history))
        print(f"epoch {epoch + 1:>3}/{epochs}  loss {figures['train/loss']:.4f}  acc {figures['train/acc']:.4f}")
    outputs = np.random.default_rng(config.seed).random((len(data.test.labels), data.num_classes))
    return FitResult(
        model=parts.network.model,
        history=history,
        selected_epoch=len(history) - 1,
        validation_loss=history[-1]["val/loss"],
        validation_accuracy=history[-1]["val/acc"],
        test_loss=0.7,
        test_accuracy=float((outputs.argmax(axis=1) == data.test.labels).mean()),
        probabilities=(outputs / outputs.sum(axis=1, keepdims=True))[:, -1:].astype(np.float32)
        if data.num_classes == 2
        else (outputs / outputs.sum(axis=1, keepdims=True)).astype(np.float32),
        train_seconds=0.1,
    )


# ------------------------------------------------------------------------------------------- made only once


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name`, filled by `make` in one process and read in each process of these tests.

    Args:
        factory: `tmp_path_factory`.
        name: of the folder.
        make: fills the folder, which is there and empty.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each process has its own folder in that of the whole
        base = base.parent
    folder, done = base / name, base / f"{name}.done"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir()  # fails where an earlier attempt did: the next test does not try again
            make(folder)
            done.touch()
    return folder


def command(folder: Path, *arguments: str) -> None:
    """Run a command line in this process from `folder`; it has to succeed."""
    from cnnexp.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["cnnexp"])
        assert main(list(arguments)) == 0
