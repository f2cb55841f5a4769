"""What libjpeg and libpng write on the console about a file of which they make a picture all the same."""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock

# jerror.h, those given to WARNMS; png.c, png_default_warning and png_default_error
WARNING = re.compile(
    r"Corrupt JPEG data: |Premature end of JPEG file|Warning: unknown JFIF revision|Inconsistent progression sequence"
    r"|Invalid SOS parameters|Unknown Adobe color transform|libpng (warning|error): "
)
DAMAGE = re.compile(r"Corrupt JPEG data: (premature end of data segment|bad Huffman code|found marker .*)")
SURPLUS = re.compile(r"Corrupt JPEG data: \d+ extraneous bytes before marker \w+")

_caught_by_one = RLock()


def damage(warnings: str) -> str:
    """Why a picture cannot be used, in words, if one of the warnings is of data that are missing or wrong."""
    found = DAMAGE.search(warnings)
    return f"it is damaged or cut short ({found.group(1)})" if found else ""


@contextmanager
def warnings_caught() -> Iterator[Callable[[], str]]:
    """Keep the warnings off the console; gives a function that returns them, afterwards.

    The libraries know nothing of `sys.stderr`: the file descriptor itself leads to a file meanwhile. What else was
    written to it is written again at the end. One thread at a time.
    """
    warnings = ""
    with _caught_by_one, tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: warnings
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines = file.read().decode(errors="surrogateescape").splitlines(keepends=True)
            warnings = "".join(line for line in lines if WARNING.match(line))
            others = "".join(line for line in lines if not WARNING.match(line))
            if others:
                os.write(2, others.encode(errors="surrogateescape"))
