"""What a run is made from."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from cnnexp.config import Config, validated
from cnnexp.config.targets import partial_from_config
from cnnexp.console import SECRET, redact
from cnnexp.errors import UserError
from cnnexp.runs.folder import RunFolder, SweepFolder
from cnnexp.tracking.notes import run_name
from cnnexp.tracking.record import redacted

if TYPE_CHECKING:
    from cnnexp.data.dataset import Dataset


@contextmanager
def naming_files(files: Callable[[], Mapping[str, Path]]) -> Iterator[None]:
    """What is wrong with a key of a group is said with the user's own file that it comes from.

    Args:
        files: those that the config is composed from, by their names there; asked only then.
    """
    try:
        yield
    except UserError as error:
        group = re.match(r"(?:phases\.\w+\.)?(\w+)\._target_=", str(error))
        named = [file for name, file in files().items() if name.startswith(f"{group[1]}/")] if group else []
        if not named:
            raise
        raise UserError(f"{named[0]}: {error}") from error


FLAGS = ("config_dir", "config_name")  # tags: the line's flags, without which its overrides mean something else


@dataclass(frozen=True)
class Job:
    """What a run is made from.

    `resolved` is the composed config as plain values, `recorded` the same as it may be written down, and `overrides`
    what the command line gave, all without passwords. `folder` is the run's own, and `sweep` that of the sweep that it
    is a job of. `flags` are those of `FLAGS` that were given, and `config_files` the files of the user's own that the
    config is composed from, by their names there.
    """

    config: Config
    resolved: dict[str, Any]
    overrides: list[str]
    folder: RunFolder
    sweep: SweepFolder | None = None
    flags: dict[str, str] = field(default_factory=dict)
    config_files: dict[str, Path] = field(default_factory=dict)
    recorded: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def naming_files(self) -> Iterator[None]:
        """See `naming_files`."""
        with naming_files(lambda: self.config_files):
            yield

    @classmethod
    def from_hydra(
        cls, composed: DictConfig, folder: Path, overrides: list[str], sweep: SweepFolder | None = None
    ) -> "Job":
        """Type and check what Hydra composed."""
        resolved: Any = OmegaConf.to_container(composed, resolve=True)
        own, line = RunFolder(folder.resolve()), [redact(override) for override in overrides]
        return cls(validated(composed), redacted(resolved), line, own, sweep, recorded=recorded_values(composed))

    @property
    def shown(self) -> dict[str, Any]:
        """The config as it is recorded."""
        return self.recorded or self.resolved

    @property
    def run_name(self) -> str:
        """What the run is called in the store, and above its pictures; the same line has the same name again."""
        return run_name(self.config.name, self.overrides, self.sweep.shared_overrides if self.sweep else ())


def recorded_values(composed: DictConfig) -> dict[str, Any]:
    """The config as plain values that may be written down: `***` for every text that `${oc.env:NAME}` gave, also where
    another key leads to it, and for the secrets of addresses."""

    def marked(raw: Any, value: Any) -> Any:
        if isinstance(raw, dict) and isinstance(value, dict):
            return {key: marked(below, value.get(key)) for key, below in raw.items()}
        if isinstance(raw, list) and isinstance(value, list) and len(raw) == len(value):
            return [marked(*pair) for pair in zip(raw, value, strict=True)]
        if isinstance(value, bool | int | float):
            return value  # typed; a number is no secret, and the run is repeated by it
        return SECRET if isinstance(raw, str) and "${oc.env:" in raw else raw

    resolved: Any = OmegaConf.to_container(composed, resolve=True)
    raw: Any = OmegaConf.to_container(composed, resolve=False)
    if "${oc.env:" in str(raw):
        resolved = OmegaConf.to_container(OmegaConf.create(marked(raw, resolved)), resolve=True)
    return dict(redacted(resolved))


def explains(config: Config, sweep: SweepFolder | None) -> bool:
    """Whether a run explains itself; of a grid or a search the chosen one is explained at the end."""
    tracking = config.tracking
    return bool(tracking.explain) and not (tracking.explain == "auto" and sweep is not None and sweep.chooses)


def load_dataset(config: Config) -> "Dataset":
    """The data set that `dataset` names; draws or prepares it where it does not lie ready."""
    from cnnexp.data.dataset import Dataset  # and OpenCV

    dataset = partial_from_config("dataset", config.dataset, omit=("image_size",))()
    if not isinstance(dataset, Dataset):
        raise UserError(
            f"dataset._target_={config.dataset._target_}: returned {type(dataset).__name__}, "
            f"not cnnexp.data.dataset.Dataset"
        )
    if config.dataset._target_.startswith("cnnexp."):
        return dataset
    from cnnexp.data.contract import checked

    try:
        return checked(dataset)
    except UserError as error:
        raise UserError(f"dataset._target_={config.dataset._target_}: {error}") from error
