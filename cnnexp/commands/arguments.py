"""The arguments of the commands that are not Hydra's own: names, options, and Hydra overrides among them."""

from cnnexp.errors import UserError


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
