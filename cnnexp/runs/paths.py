"""Where a command is to write."""

from pathlib import Path

from cnnexp.config.training import PathsConfig
from cnnexp.errors import UserError
from cnnexp.files import why_no_folder


def check_paths(paths: PathsConfig) -> None:
    """Refuse folders that cannot be made or written to, before anything is written.

    Args:
        paths: data that is there already, and a cache, may be on a disk that is only read.

    Raises:
        UserError: the first of them, by the key that puts it there: `paths.root`, or its own.
    """
    for name in ("runs", "data", "cache"):
        folder = Path(getattr(paths, name))
        if reason := why_no_folder(folder, writable=name == "runs"):
            key = "root" if folder.is_relative_to(paths.root) else name
            raise UserError(f"paths.{key}={getattr(paths, key)}: {reason}; give another folder, as paths.{key}=FOLDER")
