"""The command lines: one parser for each command, which makes its help, too; `train` has Hydra's own."""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from cnnexp.errors import UserError, nearest

if TYPE_CHECKING:
    from cnnexp.runs.recorded_config import Asked

ACTIONS = ("install", "uninstall", "query")
SHELLS = ("bash", "zsh", "fish")

RUN = "an MLflow run id, a unique prefix of one, `latest`, or a registered model: models:/NAME@best"
IMAGE = "files, folders, or patterns in quotes, as 'photos/*.jpg'; behind `--`, whatever they are called"
JSON = "every figure as JSON on standard output instead"


class CommandParser(argparse.ArgumentParser):
    """Options wherever they stand; among the other words, overrides (KEY=VALUE, ~KEY) and names.

    Args:
        command: its name.
        text: what it does, in lines of at most 120 characters.
        words: what may stand beside the options, as in `RUN [OVERRIDES]` -> what it means.
        examples: two lines of arguments.
    """

    def __init__(self, command: str, text: str, words: Mapping[str, str], examples: Sequence[str]) -> None:
        lines = "\n".join(f"  cnnexp {command} {example}" for example in examples)
        super().__init__(
            usage=f"cnnexp {' '.join([command, *words])} [OPTIONS]",
            description=text,
            epilog=f"examples:\n{lines}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        for word, meaning in words.items():  # told apart by their form and not by their place: all are in one list
            self.add_argument("words", action="extend", nargs="*", metavar=word, help=meaning)
        if "[OVERRIDES]" in words:
            add_config_dir(self)

    def error(self, message: str) -> NoReturn:
        """Called by argparse.

        Raises:
            UserError: always.
        """
        raise UserError(message.removeprefix("argument ").replace("expected one argument", "needs a value"))

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options by their names, and the other words as `names` and `overrides`.

        Raises:
            UserError: an option that the command does not have, or has otherwise.
        """
        end = [*arguments, "--"].index("--")  # behind it are names, whatever they look like
        parsed, unknown = self.parse_known_intermixed_args(arguments[:end])
        refuse_unknown(self, unknown, "no such option")
        parsed.names, parsed.overrides = split_overrides(parsed.words)
        _check_secrets(parsed.overrides)
        parsed.names += arguments[end + 1 :]
        return parsed


def _check_secrets(overrides: Sequence[str]) -> None:
    """Refuse an address as it was shown or recorded, without its password or its keys."""
    from cnnexp.console import SECRET  # not needed by completion

    for override in overrides:
        if SECRET in override and "://" in override:
            raise UserError(f"{override}: *** stands where there was a password or a key; write it there")


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names or whatever else there is, and overrides (KEY=VALUE, ~KEY)."""
    found = [_is_override(word) for word in words]
    names = [word for word, is_override in zip(words, found, strict=True) if not is_override]
    return names, [word for word, is_override in zip(words, found, strict=True) if is_override]


def _is_override(word: str) -> bool:
    """Whether a word is KEY=VALUE or ~KEY.

    An existing file, or a word with a folder before the equals sign, is one only where it begins with a known key.
    """
    if word.startswith("-") or not ("=" in word or word.startswith("~")):
        return False
    key = re.match(r"[+~]*(\w*)[\w.@:/-]*(=|$)", word)
    if not key or not key[1]:
        return False
    if not os.path.lexists(word) and "/" not in word.partition("=")[0]:
        return True
    from cnnexp.config.composition import ROOT_KEYS  # and Hydra

    return key[1] in {*ROOT_KEYS, "debug", "experiment", "hydra"}


def refuse_unknown(parser: argparse.ArgumentParser, unknown: Sequence[str], what: str) -> None:
    """Refuse the first option that a parser did not know, with the nearest ones that it does."""
    if unknown:
        option = next((word for word in unknown if word.startswith("-")), unknown[0])
        flags = [flag for action in parser._actions for flag in action.option_strings]
        raise UserError(f"{option}: {what}; allowed: {', '.join(nearest(option, flags))}")


def check_choice(option: str, given: str, what: str, allowed: Sequence[str]) -> None:
    """Refuse a value of an option that is none of `allowed`."""
    if given not in allowed:
        raise UserError(f"{option} {given}: no such {what}; allowed: {', '.join(nearest(given, [*allowed]))}")


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """The option `--config-dir FOLDER`, which goes with overrides."""
    meaning = "YAML files of your own, as for `cnnexp train`"
    parser.add_argument("--config-dir", "-cd", metavar="FOLDER", help=meaning)


def add_allow_target(parser: argparse.ArgumentParser) -> None:
    """The option `--allow-target NAME`, which may be given several times."""
    meaning = "a function or layer of your own that the record names, as package.module.name; repeatable"
    parser.add_argument("--allow-target", metavar="NAME", action="append", default=[], help=meaning)


def asked(parsed: argparse.Namespace) -> "Asked":
    """What a line says beside the name of a run: where `CommandParser` and `add_allow_target` found it."""
    from cnnexp.runs.recorded_config import Asked

    return Asked(parsed.overrides, parsed.config_dir, parsed.allow_target)


def check_action(arguments: list[str]) -> None:
    """Refuse all but one ACTION=SHELL."""
    allowed = [f"{action}={shell}" for action in ACTIONS for shell in SHELLS]
    if len(arguments) != 1 or arguments[0] not in allowed:
        given = " ".join(["--shell-completion", *arguments])
        raise UserError(f"{given}: write --shell-completion and one of {', '.join(allowed)}")


def parse_hydra(arguments: list[str]) -> argparse.Namespace:
    """The flags and overrides of `cnnexp train`, in any order."""
    from cnnexp.config.hydra_driver import arguments_parser

    parser = arguments_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; `cnnexp train --hydra-help` lists the flags")

    parser.error = refuse  # type: ignore[method-assign]
    parsed, unknown = parser.parse_known_intermixed_args(arguments)
    refuse_unknown(parser, unknown, "no such flag")
    _check_flags(parsed)
    _check_secrets(parsed.overrides)
    return parsed


def _check_flags(parsed: argparse.Namespace) -> None:
    """Refuse flags that Hydra would answer with a traceback, or would leave aside without a word."""
    modes = {
        "--run": parsed.run,
        "--multirun": parsed.multirun,
        "--cfg": parsed.cfg,
        "--info": parsed.info,
        "--shell-completion": parsed.shell_completion,
    }
    given = [flag for flag, value in modes.items() if value]
    if len(given) > 1:
        raise UserError(f"{' '.join(given)}: these exclude each other; give one of them")
    for flag, value in (("--resolve", parsed.resolve), ("--package", parsed.package)):
        if value and not (parsed.cfg or parsed.help):
            raise UserError(f"{flag}: says how to show the config; add --cfg job")
    if parsed.shell_completion:
        check_action(parsed.overrides)
    if parsed.config_path:
        raise UserError("--config-path: would replace the files of cnnexp; add yours with --config-dir=FOLDER")
    if parsed.experimental_rerun:
        from cnnexp.config.hydra_driver import rerun_of

        flag, line = f"--experimental-rerun={parsed.experimental_rerun}", rerun_of(parsed.experimental_rerun)
        raise UserError(f"{flag}: a pickle can run anything, so it is not opened; `{line}` trains that run again")
