"""Random lines, made by mutating valid ones: no traceback, one line where one is refused, and nothing left behind.

`python tests/campaign/lines.py [COUNT] [SEED]` tries them in this process, in a new folder, and lists those that do not
hold. Only commands that train nothing: a line that is right would else be trained.
"""

import contextlib
import io
import os
import random
import sys
import tempfile
from pathlib import Path

VALID = (
    "train --cfg job experiment=frozen trainer.epochs=3",
    "train -m --cfg job dataset=digits",
    "train --info config",
    "train --help",
    "prepare synthetic dataset.image_size=x",
    "predict latest missing.jpg",
    "explain latest missing.jpg",
    "evaluate latest dataset=digits",
    "compare --metric test/acc --json",
    "reproduce latest --print",
    "doctor",
    "guide keys learning_rate",
    "plan optimizer.learning_rate=-1",
    "summary backbone=nosuch",
)
ODD = (
    "",
    "=",
    "a=b",
    "--",
    "-m",
    "~seed",
    "+x=1",
    "'",
    "{",
    "[1,",
    "a\nb",
    "\x1b[31m",
    "é",
    "${x}",
    "glob(*)",
    "seed=",
    "!!x",
)
OUTCOMES = (0, 1, 2, 130)


def mutated(chance: random.Random) -> list[str]:
    """A valid line in which one to three things are changed."""
    words = chance.choice(VALID).split()
    for _ in range(chance.randint(1, 3)):
        place, kind = chance.randrange(1, len(words) + 1), chance.randrange(5)
        if kind == 0 or place == len(words):
            words.insert(place, chance.choice(ODD))
        elif kind == 1:
            del words[place]
        elif kind == 2:
            letter = chance.randrange(len(words[place]) + 1)
            words[place] = words[place][:letter] + chance.choice(ODD) + words[place][letter:]
        elif kind == 3:
            words[place] = words[place][: chance.randrange(len(words[place]) + 1)]
        else:
            words.append(words[place])
    if words[0] == "train" and not {"--cfg", "--info", "--help"} & set(words):
        words.insert(1, "--help")  # what is right would be trained
    return words


def broken(words: list[str]) -> str | None:
    """What does not hold of a line, tried in the working directory; None where all does."""
    from cnnexp.cli import main

    before, out, err = set(Path().rglob("*")), io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code: object = main(words)
    except BaseException as error:  # what comes through is what is looked for
        return f"{type(error).__name__}: {error}"
    said = err.getvalue()
    if code not in OUTCOMES or "Traceback" in out.getvalue() + said or "mistake of cnnexp" in said:
        return f"exit {code}: {said}"
    if code == 2 and said.count("\n") != 1:
        return f"{said.count(chr(10))} lines: {said}"
    left = set(Path().rglob("*")) - before
    return f"left behind: {sorted(map(str, left))}" if code == 2 and left else None


def main(count: int, seed: int) -> int:
    """Try `count` lines; returns how many do not hold."""
    chance, wrong = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for _ in range(count):
            words = mutated(chance)
            found = broken(words)
            if found:
                wrong += 1
                print(f"{words}\n    {found[:300]}", flush=True)
    print(f"{wrong} of {count} lines do not hold")
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, int(sys.argv[2]) if len(sys.argv) > 2 else 0)))
