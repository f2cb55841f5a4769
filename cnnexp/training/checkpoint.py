"""The state of an unfinished training in one file, from which it goes on as if it had never stopped.

What is not in it is a function of the config: frozen weights are loaded anew, and the order of the images, their
augmentation and the learning rate follow from seed, epoch and step.
"""

import io
import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnexp.errors import UserError
from cnnexp.files import atomic_file


@dataclass
class PhaseReport:
    """What one phase came to.

    `frozen_digest` is the SHA-256 of all weights that were frozen in it, equal before and after.
    """

    name: str
    epochs: int
    trainable_parameters: int
    trainable_tensors: int
    frozen_digest: str
    seconds: float


@dataclass
class TrainState:
    """How far a training is.

    phase:       its number; `phase_epochs` epochs of it are done.
    history:     the figures of every epoch so far.
    best_epoch:  of this phase, the index into `history` with the best monitored figure; None before the first.
    stopped:     early stopping has ended this phase.
    finished:    the phases that are done.
    seconds:     spent in the epochs of this phase.
    """

    phase: int = 0
    phase_epochs: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    stopped: bool = False
    finished: list[PhaseReport] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def selected_epoch(self) -> int:
        """The index into `history` of the epoch whose weights are kept."""
        return len(self.history) - 1 if self.best_epoch is None else self.best_epoch

    def next_phase(self, report: PhaseReport) -> None:
        """Close this phase and begin the next."""
        self.finished.append(report)
        self.phase, self.phase_epochs, self.seconds = self.phase + 1, 0, 0.0
        self.best_epoch, self.stopped = None, False


StateDict = dict[str, np.ndarray]


def write_checkpoint(path: Path, progress: TrainState, arrays: StateDict) -> None:
    """Put a checkpoint in the place of the one before it, on the disk before it is seen there.

    Args:
        path: ends in `.npz`.
        progress: how far the training is.
        arrays: weights, optimizer state and random states, by name.
    """
    facts = np.frombuffer(json.dumps(asdict(progress)).encode(), np.uint8)
    with atomic_file(path, sync=True) as file:
        np.savez(file, allow_pickle=False, **{**arrays, "progress": facts})


def read_checkpoint(path: Path) -> tuple[TrainState, StateDict] | None:
    """The checkpoint at `path`, or None where there is none. Nothing in it is unpickled.

    Raises:
        UserError: the file is not a checkpoint.
    """
    if not path.is_file():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        facts: dict[str, Any] = json.loads(arrays.pop("progress").tobytes())
        facts["finished"] = [PhaseReport(**report) for report in facts["finished"]]
        return TrainState(**facts), arrays
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: is not a checkpoint ({error}); remove it to train from the start") from error
