"""One process at a time, among all that share a storage: by the storage itself.

A file lock beside an SQLite file; an advisory lock of the server for PostgreSQL, which ends with
its session, and so with the process or the machine that had it.
"""

from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

import optuna
import sqlalchemy
from filelock import FileLock, Timeout
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from pixelis.errors import UserError

WAIT_SECONDS = 600.0  # for others: many may choose before this one, each for a second or so
# Of a machine that lost its power no server hears: it asks, after seconds instead of hours.
_SESSION = (
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 4",
)
_NOT_IN_TIME = "55P03"  # of PostgreSQL: lock_not_available


class Exclusive:
    """A lock that all processes with the same storage share.

    Attributes:
        what: for messages: what may happen once at a time.
    """

    def __init__(self, url: str | URL, name: str, what: str) -> None:
        """Take nothing yet.

        Args:
            url: of the storage: SQLite's or PostgreSQL's.
            name: locks of other names do not wait for this one.
            what: it is for, for messages.
        """
        self.what, self._seconds = what, WAIT_SECONDS
        place, digest = make_url(url), sha256(f"pixelis {name}".encode()).digest()
        self._file: FileLock | None = None
        self._connection: sqlalchemy.Connection | None = None
        if place.get_backend_name() == "sqlite":
            file = Path(place.database or "").resolve()
            self._file = FileLock(file.with_name(f".{file.name}.{digest.hex()[:8]}.lock"))
        else:
            self._engine = sqlalchemy.create_engine(
                place, poolclass=NullPool, isolation_level="AUTOCOMMIT"
            )
            self._key = int.from_bytes(digest[:8], signed=True)

    @property
    def is_locked(self) -> bool:
        """Whether this process has it."""
        return self._connection is not None if self._file is None else self._file.is_locked

    def acquire(self) -> None:
        """Wait for it.

        Raises:
            UserError: when another process kept it for WAIT_SECONDS.
        """
        if self._file is not None:
            try:
                self._file.acquire(timeout=self._seconds)
            except Timeout as error:
                raise self._late(f"of the lock file {self._file.lock_file}") from error
            return
        connection = self._engine.connect()
        try:
            for setting in (*_SESSION, f"SET lock_timeout = {int(1000 * self._seconds)}"):
                connection.exec_driver_sql(setting)
            asked = sqlalchemy.text("SELECT pg_advisory_lock(:key)")
            connection.execute(asked, {"key": self._key})
        except BaseException as error:
            connection.close()
            if isinstance(error, OperationalError) and _code(error) == _NOT_IN_TIME:
                raise self._late(f"of the server's advisory lock {self._key}") from error
            raise
        self._connection = connection

    def release(self) -> None:
        """Let the next one have it."""
        if self._file is not None:
            self._file.release()
        elif self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()  # the end of the session, and by that of the lock

    def _late(self, holder: str) -> UserError:
        return UserError(
            f"{self.what} is one process's at a time, and another one has kept it for "
            f"{self._seconds:.0f} s: end the process {holder}, then go on with the same command"
        )

    def __enter__(self) -> Self:
        """Wait for it."""
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let it go."""
        self.release()


def choosing(study: optuna.Study) -> Exclusive:
    """The lock under which a study's next trial is chosen, or one is put into its queue."""
    storage = study._storage
    storage = getattr(storage, "_backend", storage)  # behind Optuna's cache
    assert isinstance(storage, optuna.storages.RDBStorage)
    return Exclusive(storage.url, f"study {study.study_name}", "the choice of a trial")


def _code(error: OperationalError) -> str | None:
    return getattr(error.orig, "pgcode", None) or getattr(error.orig, "sqlstate", None)
