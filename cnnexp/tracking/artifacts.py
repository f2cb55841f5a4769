"""Whether files can be recorded in a place, looked at before a training and not after it."""

from importlib.util import find_spec
from urllib.parse import urlsplit

from cnnexp.console import redact
from cnnexp.errors import UserError
from cnnexp.files import why_no_folder
from cnnexp.tracking.locations import local_folder

PACKAGES = {  # by the scheme of a place: the module that MLflow imports for it, and what pip installs
    "abfss": ("azure.storage.filedatalake", "azure-storage-file-datalake azure-identity"),
    "b2": ("boto3", "boto3"),
    "gs": ("google.cloud.storage", "google-cloud-storage"),
    "hdfs": ("pyarrow", "pyarrow"),
    "r2": ("boto3", "boto3"),
    "s3": ("boto3", "boto3"),
    "sftp": ("pysftp", "pysftp"),
    "viewfs": ("pyarrow", "pyarrow"),
    "wasbs": ("azure.storage.blob", "azure-storage-blob azure-identity"),
}


def check_place(key: str, place: str) -> None:
    """Refuse a place for which a package is missing, and a folder that cannot be written.

    Args:
        key: where the place was given, with its value, for messages.
        place: a URI or path.

    Raises:
        UserError: what is missing.
    """
    scheme = urlsplit(place).scheme.lower()
    module, packages = PACKAGES.get(scheme, ("", ""))
    if module and not _is_installed(module):
        raise UserError(f"{key}: {scheme}:// needs a package that is not installed: pip install {packages}")
    folder = local_folder(place)
    if folder is not None and (reason := why_no_folder(folder)):
        raise UserError(f"{key}: {folder}: {reason}; give another folder")


def check_chosen(uri: str, place: str, artifact_root: str) -> None:
    """Refuse a folder of this machine that a server names, unless it lies below the user's own `artifact_root`: a
    server must not choose where a client reads and writes.

    Args:
        uri: of the store.
        place: what it names.
        artifact_root: a URI.

    Raises:
        UserError: it is such a folder.
    """
    folder, own = local_folder(place), local_folder(artifact_root)
    if not uri.startswith("http") or folder is None:
        return
    if own is None or not folder.resolve().is_relative_to(own.resolve()):
        raise UserError(
            f"tracking.uri={redact(uri)}: the server hands out {folder}, a folder of this machine, for files; "
            f"tracking.artifact_root={folder} allows it, if it is meant"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that it would be in
        return False
