"""Imported once by the server that `cnnexp.runs.sweep_job` forks processes from; importing it is all it is for."""

from cnnexp.process import die_with_parent, import_tensorflow, quiet_libraries

die_with_parent()
quiet_libraries()
import_tensorflow()

import cnnexp.runs.run  # noqa: E402, F401
