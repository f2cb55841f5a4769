"""The arguments of the commands that are not Hydra's own: names, options, and Hydra overrides among them."""

import argparse
from typing import NoReturn

from cnnexp.errors import UserError, nearest

ACTIONS = ("install", "uninstall", "query")
SHELLS = ("bash", "zsh", "fish")


def take_option(arguments: list[str], name: str) -> tuple[str | None, list[str]]:
    """The value of `name VALUE` or `name=VALUE`, and the other arguments."""
    rest: list[str] = []
    value = None
    remaining = iter(arguments)
    for argument in remaining:
        if argument == name:
            value = next(remaining, None)
            if value is None:
                raise UserError(f"{name}: needs a value")
        elif argument.startswith(f"{name}="):
            value = argument.split("=", 1)[1]
        else:
            rest.append(argument)
    return value, rest


def split_overrides(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Names, and overrides (KEY=VALUE, ~KEY).

    Raises:
        UserError: an option that the command does not have.
    """
    overrides = [a for a in arguments if not a.startswith("-") and ("=" in a or a.startswith("~"))]
    names = [a for a in arguments if a not in overrides]
    unknown = next((a for a in names if a.startswith("-")), None)
    if unknown:
        raise UserError(f"{unknown}: no such option; --help lists them")
    return names, overrides


def take_flag(arguments: list[str], name: str) -> tuple[bool, list[str]]:
    """Whether the flag `name` is there, and the other arguments."""
    return name in arguments, [argument for argument in arguments if argument != name]


def take_allowed(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The names behind every `--allow-target`, and the other arguments."""
    allowed: list[str] = []
    while any(argument.split("=")[0] == "--allow-target" for argument in arguments):
        position = next(i for i, argument in enumerate(arguments) if argument.split("=")[0] == "--allow-target")
        length = 1 if "=" in arguments[position] else 2
        name, _ = take_option(arguments[position : position + length], "--allow-target")
        allowed.append(str(name))
        arguments = arguments[:position] + arguments[position + length :]
    return allowed, arguments


def check_action(arguments: list[str]) -> None:
    """Refuse all but one ACTION=SHELL."""
    allowed = [f"{action}={shell}" for action in ACTIONS for shell in SHELLS]
    if len(arguments) != 1 or arguments[0] not in allowed:
        given = " ".join(["--shell-completion", *arguments])
        raise UserError(f"{given}: write --shell-completion and one of {', '.join(allowed)}")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Hydra's flags and overrides, in any order."""
    from cnnexp.config.hydra_driver import arguments_parser

    parser = arguments_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; `cnnexp train --hydra-help` lists the flags")

    parser.error = refuse  # type: ignore[method-assign]
    parsed, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        raise UserError(f"{unknown[0]}: no such flag; allowed: {', '.join(nearest(unknown[0], flags))}")
    _check_flags(parsed)
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
