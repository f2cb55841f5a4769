"""Tab completion: Hydra's own for what follows `cnnexp train`, the commands' names before it."""

import os
from collections.abc import Iterable

from cnnexp.commands.arguments import check_action


def run(arguments: list[str], commands: Iterable[str]) -> int:
    """`cnnexp --shell-completion install=bash|uninstall=bash|query=bash`, and the same for zsh and fish.

    Args:
        arguments: `--shell-completion` and what follows.
        commands: the names to complete as the first word.

    Raises:
        UserError: not one action with a shell.
    """
    check_action(arguments[1:])
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if arguments[1].startswith("query="):
        if len(words) < 2 or (len(words) == 2 and not line.endswith(" ")):
            typed = words[1] if len(words) == 2 else ""
            print(" ".join(command for command in commands if command.startswith(typed)))
            return 0
        # Hydra completes `PROGRAM OVERRIDES`: take the command out of the line
        os.environ["COMP_LINE"] = line.replace(f" {words[1]}", "", 1)
    from cnnexp.config.hydra_driver import answer

    answer(arguments)
    return 0
