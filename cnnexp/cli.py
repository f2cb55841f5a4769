"""`cnnexp COMMAND ...`: finds the command and runs it. Nothing heavy is imported before it is needed."""

import io
import os
import signal
import sys
from importlib import import_module

from cnnexp import __version__
from cnnexp.errors import UserError, is_of_hydra, nearest, one_line
from cnnexp.process import interrupt, quiet_libraries

COMMANDS = {
    "train": "train one run, or a sweep of them (Hydra's command line)",
    "prepare": "draw, split or check a data set before training",
    "summary": "layers, output shapes, parameters and the formula behind each count",
    "evaluate": "test a tracked run again, on this or another data set",
    "predict": "class probabilities of images, from a tracked run",
    "explain": "heat maps and activation grids: what a tracked run looks at in an image",
    "reproduce": "train a tracked run again from what it recorded, and compare the figures",
    "plan": "the jobs that a line would run, and what is there of them",
    "compare": "table and chart of a sweep or of named runs, with intervals and paired tests",
    "doctor": "closes runs whose process died, sends what could not be recorded, mends store and cache",
    "ui": "the MLflow UI on the store of the runs",
    "guide": "the guide, page by page; `guide keys` says what each key means",
}

USAGE = """cnnexp {version}: config-driven experiments in image classification with convolutional networks

usage: cnnexp COMMAND [ARGUMENTS]

{commands}

cnnexp COMMAND --help tells more. Overrides are Hydra's: experiment=frozen trainer.epochs=5 dataset=mnist
First steps: cnnexp train sweep=demo    Tab completion: eval "$(cnnexp --shell-completion install=bash)"
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the program's name; those of the process if None.

    Returns:
        0; 1 where a run failed; 2 for bad input; 130 after an interrupt.
    """
    arguments = sys.argv[1:] if argv is None else argv
    quiet_libraries()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # the name of a file may be no UTF-8: it goes on as it is
    signal.signal(signal.SIGTERM, interrupt)
    try:
        return _dispatch(arguments)
    except UserError as error:
        from cnnexp.console import warn  # with Rich a twentieth of a second, which `--help` need not wait for

        warn(f"cnnexp: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        print("cnnexp: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `cnnexp ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    """Say in one line what a library raised; the trace goes into a file. 2 for what Hydra refuses, else 1."""
    import tempfile

    from cnnexp.console import trace_of, warn

    if is_of_hydra(error):
        warn(f"cnnexp: {one_line(error)}")
        return UserError.exit_code
    with tempfile.NamedTemporaryFile("w", prefix="cnnexp-", suffix="-traceback.txt", delete=False) as file:
        file.write(trace_of(error))
    warn(f"cnnexp: {one_line(error)}; the trace is in {file.name}")
    return 1


def _dispatch(arguments: list[str]) -> int:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help"):
        listed = "\n".join(f"  {command:<9} {text}" for command, text in COMMANDS.items())
        print(USAGE.format(version=__version__, commands=listed), end="")
        return 0
    if name == "--version":
        print(f"cnnexp {__version__}")
        return 0
    if name in ("-sc", "--shell-completion"):
        return int(import_module("cnnexp.commands.completion").run(arguments, COMMANDS))
    if name not in COMMANDS:
        raise UserError(f"{name}: no such command; there are {', '.join(nearest(name, list(COMMANDS)))}")
    command = import_module(f"cnnexp.commands.{name}")
    if name != "train" and ("-h" in rest or "--help" in rest):
        print(command.parser().format_help(), end="")
        return 0
    return int(command.run(rest))


if __name__ == "__main__":
    sys.exit(main())
