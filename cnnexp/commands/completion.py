"""Tab completion: Hydra's own for what follows `cnnexp train`, the commands' names before it."""

import os
import sys
from collections.abc import Iterable



def run(arguments: list[str], commands: Iterable[str]) -> int:
    """`cnnexp --shell-completion install=bash|uninstall=bash|query=bash`, and the same for zsh and fish."""
    words = os.environ.get("COMP_LINE", "").split()
    typing_command = len(words) < 2 or (len(words) == 2 and not os.environ["COMP_LINE"].endswith(" "))
    if any(argument.startswith("query=") for argument in arguments):
        if typing_command:
            print(" ".join(commands))
            return 0
        # Hydra completes `PROGRAM OVERRIDES`: take the command out of the line
        os.environ["COMP_LINE"] = os.environ["COMP_LINE"].replace(f" {words[1]}", "", 1)
    from cnnexp.commands.train import hydra_main

    sys.argv = [sys.argv[0], *arguments]
    hydra_main()
    return 0
