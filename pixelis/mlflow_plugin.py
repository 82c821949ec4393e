"""A plugin for MLflow that lets several processes open a new SQLite store at once.

MLflow creates the tables of a new store when it first opens it, without a lock. If several
`mlflow run` started together, all but one would fail before any code of this project is called.
The plugin is named in pyproject.toml in the group `mlflow.tracking_store` (https://mlflow.org/docs,
"Plugins"), so it works in every environment that the project is installed in.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

MAKING_SECONDS = 120.0  # how long to wait for another process to create the tables


def open_sqlite(store_uri: str, artifact_uri: str | None = None) -> Any:
    """Open MLflow's own store of a SQLite file; one process at a time creates its tables.

    Args:
        store_uri: SQLAlchemy's URL.
        artifact_uri: where artifacts are stored; by default MLflow's choice.
    """
    # Imported here because MLflow loads this module while it is being imported itself.
    from mlflow.tracking._tracking_service.utils import _get_sqlalchemy_store

    with making_tables(store_uri):
        return _get_sqlalchemy_store(store_uri, artifact_uri)


@contextmanager
def making_tables(uri: str) -> Iterator[None]:
    """Keep other processes from opening the same SQLite file; other stores need no lock.

    The lock is reentrant.
    """
    from filelock import FileLock, Timeout

    file = sqlite_file(uri)
    if file is None:
        yield
        return
    path = file.with_name(f".{file.name}.lock")
    lock = FileLock(path, timeout=MAKING_SECONDS, is_singleton=True)
    # Without a lock file, on a read-only disk, the tables could not be created either.
    with suppress(OSError, Timeout):
        lock.acquire()
        if not file.exists():
            file.touch()  # with the mode of any new file; SQLite would let only the owner write
    try:
        yield
    finally:
        lock.release()


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite store; None for any other store."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except ArgumentError:  # a folder
        return None
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database)
