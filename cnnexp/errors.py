"""What went wrong on the user's side, said in one line."""


class UserError(Exception):
    """Bad input. The command line prints the message as one line and exits with code 2, without a traceback.

    The message names the key or file, what was given, what is allowed, and how to fix it. It is no ValueError: what
    catches those of a library would say something else in its place.
    """

    exit_code = 2


class RunError(UserError):
    """A run failed, for a reason that is not in its config: the same message, another exit code."""

    exit_code = 1


def nearest(given: str, allowed: list[str]) -> list[str]:
    """`allowed`, with the names closest to `given` first."""
    from difflib import SequenceMatcher

    return sorted(allowed, key=lambda name: -SequenceMatcher(None, given.lower(), name.lower()).ratio())
