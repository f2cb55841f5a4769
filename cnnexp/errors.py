"""What went wrong on the user's side, said in one line."""

from collections.abc import Sequence


class UserError(Exception):
    """Bad input. The command line prints the message as one line and exits with code 2, without a traceback.

    The message names the key or file, what was given, what is allowed, and how to fix it. It is no ValueError: what
    catches those of a library would say something else in its place.
    """

    exit_code = 2


class RunError(UserError):
    """A run failed, for a reason that is not in its config: the same message, another exit code."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def one_line(error: BaseException) -> str:
    """What a library raised, in one line that says what can be done; told by names, so that no library is imported."""
    kind, said = type(error).__name__, first_line(error)
    if kind == "TrainingDivergedError" or is_of_hydra(error):
        return said
    if isinstance(error, MemoryError) or kind == "ResourceExhaustedError":
        said = said.partition("}} ")[2].partition(" on /job:")[0] or said  # of TensorFlow: its shape and type
        return f"there is not memory enough ({said}); lower trainer.batch_size, dataset.image_size or head.units"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or kind}: {error.strerror}; make it readable and writable, or give another place"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{said}; pip install {error.name.partition('.')[0]}"
    return f"{kind}: {said}; unless a function of your own raised it, this is a mistake of cnnexp"


def is_of_hydra(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf refuses something."""
    return any(base.__name__ in ("HydraException", "OmegaConfBaseException") for base in type(error).__mro__)


def nearest(given: str, allowed: list[str]) -> list[str]:
    """`allowed`, with the names closest to `given` first."""
    from difflib import SequenceMatcher

    return sorted(allowed, key=lambda name: -SequenceMatcher(None, given.lower(), name.lower()).ratio())


def shown_names(name: str, names: Sequence[str]) -> str:
    """The names, the nearest first; of many the first ten."""
    near = nearest(name, list(names))
    return ", ".join(near[:10]) + (f" and {len(near) - 10} more" if len(near) > 10 else "")
