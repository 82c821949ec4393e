"""MLflow's plugin for SQLite stores: several processes may open a fresh one at once.

MLflow makes the tables of a fresh store where it first opens it, without a lock: of several
`mlflow run` that start together all but one would fail before any code of the project is called.
Named in pyproject.toml in the group `mlflow.tracking_store` (https://mlflow.org/docs, "Plugins"),
so that it is there in every environment that the project is installed in.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

MAKING_SECONDS = 120.0  # that another process has to make the tables


def open_sqlite(store_uri: str, artifact_uri: str | None = None) -> Any:
    """Open MLflow's own store of a SQLite file; one process at a time makes its tables.

    Args:
        store_uri: SQLAlchemy's URL.
        artifact_uri: where artifacts go; None: MLflow's default.
    """
    # Not above: MLflow loads this module while it is being imported itself.
    from mlflow.tracking._tracking_service.utils import _get_sqlalchemy_store

    with making_tables(store_uri):
        return _get_sqlalchemy_store(store_uri, artifact_uri)


@contextmanager
def making_tables(uri: str) -> Iterator[None]:
    """Keep other processes from opening the same SQLite file; other stores need no lock.

    One thread may enter it again while it is inside.
    """
    from filelock import FileLock, Timeout

    file = sqlite_file(uri)
    if file is None:
        yield
        return
    path = file.with_name(f".{file.name}.lock")
    lock = FileLock(path, timeout=MAKING_SECONDS, is_singleton=True)
    # Where no lock can be, on a read-only disk, there are no tables to make.
    with suppress(OSError, Timeout):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite store; None of any other."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except ArgumentError:  # a folder
        return None
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database)
