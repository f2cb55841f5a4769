"""Imported once by the server that `cnnexp.commands.fresh` forks processes from; importing it is all it is for."""

from cnnexp.commands.quiet import import_tensorflow
from cnnexp.process import quiet_libraries

quiet_libraries()
import_tensorflow()

import cnnexp.commands.job  # noqa: E402, F401
