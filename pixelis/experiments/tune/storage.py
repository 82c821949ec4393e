"""The database of a study: a SQLite file, or a server for several machines.

Optuna's RDBStorage keeps the study. This module adds a lock for all processes that share the
storage, because Optuna fails when several of them create its tables at once, and errors in one
line.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from pixelis.errors import ConfigError, UserError

HEARTBEAT_SECONDS = 20
GRACE_SECONDS = 120  # a trial of another machine has died after this time without a heartbeat
MAX_RETRIES = 10  # limit for a trial whose process dies repeatedly
SQLITE_SECONDS = 60.0  # how long to wait for a locked SQLite file
LOCK_SECONDS = 600.0  # many processes may be first, each choosing a trial for about a second

BACKENDS = ("sqlite", "postgresql")
STORAGE_ERRORS = (StorageInternalError, SQLAlchemyError)
NO_RECORD = "Record does not exist"  # Optuna's text if a study is not in its database
LOCK_KEY = 7_094_836_165_112_001  # key of the server's advisory lock, an arbitrary number
LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's code
# Makes the server notice a machine that lost its power within seconds instead of hours.
LOCK_SESSION = (
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 4",
)


def open_storage(url: str) -> RDBStorage:
    """Open a study's storage; create its tables if necessary.

    Args:
        url: SQLAlchemy's URL: `sqlite:///optuna.db` or `postgresql+psycopg2://host/db`.

    Raises:
        UserError: When the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage")  # see `trials`
    with opening_errors(url):
        database = make_url(url)
        backend = database.get_backend_name()
        if backend not in BACKENDS:
            raise ConfigError(
                f"it must be a database of {' or '.join(BACKENDS)}, whose locks the machines of a "
                f"study share, got {backend}"
            )
        engine: dict[str, Any] = {}
        if backend == "sqlite":
            if database.database in (None, "", ":memory:") or "mode" in database.query:
                raise ConfigError("a study in memory ends with its process; name a file")
            Path(str(database.database)).parent.mkdir(parents=True, exist_ok=True)
            engine = {"connect_args": {"timeout": SQLITE_SECONDS}}
        with storage_lock(url, f"the set-up of {_without_password(url)}"):
            return RDBStorage(
                url,
                engine_kwargs=engine,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=queue_again,
            )


def queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a failed trial again with the same values, MAX_RETRIES times at most."""
    RetryHeartbeatStaleTrialCallback(MAX_RETRIES)(study, trial)


@contextmanager
def storage_lock(url: str, purpose: str) -> Iterator[None]:
    """Let only one of the processes that share a storage into the block at a time.

    For SQLite it is a file lock next to the file. For PostgreSQL it is an advisory lock of the
    server, which ends with the session and therefore with the process that holds it.

    Args:
        url: URL of the storage.
        purpose: Noun for the work in the block, for messages.

    Raises:
        UserError: When another process keeps the lock for LOCK_SECONDS.
    """
    database = make_url(url)
    is_sqlite = database.get_backend_name() == "sqlite"
    lock = _file_lock(database, purpose) if is_sqlite else _server_lock(database, purpose)
    with lock:
        yield


@contextmanager
def _file_lock(database: URL, purpose: str) -> Iterator[None]:
    file = Path(database.database or "").resolve()
    lock = FileLock(file.with_name(f".{file.name}.lock"), timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout as error:
        raise _late(purpose, f"of the lock file {lock.lock_file}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _server_lock(database: URL, purpose: str) -> Iterator[None]:
    engine = sqlalchemy.create_engine(database, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for setting in (*LOCK_SESSION, f"SET lock_timeout = {int(1000 * LOCK_SECONDS)}"):
            connection.exec_driver_sql(setting)
        try:
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({LOCK_KEY})")
        except OperationalError as error:
            code = getattr(error.orig, "pgcode", None) or getattr(error.orig, "sqlstate", None)
            if code != LOCK_NOT_AVAILABLE:
                raise
            holder = f"of the server's advisory lock {LOCK_KEY}"
            raise _late(purpose, holder) from error
        yield


def _late(purpose: str, holder: str) -> UserError:
    return UserError(
        f"{purpose} is one process's at a time, and another one has kept it for "
        f"{LOCK_SECONDS:.0f} s: end the process {holder}, then go on with the same command"
    )


@contextmanager
def opening_errors(url: str) -> Iterator[None]:
    """Convert errors while a storage is opened into one line, without its password.

    Raises:
        UserError: Naming the storage and the database's error.
    """
    try:
        yield
    except (*STORAGE_ERRORS, OSError, ImportError, ValueError) as error:
        raise UserError(
            f"the storage {_without_password(url)} cannot be opened: {_database_error(error)}"
        ) from error


@contextmanager
def storage_errors() -> Iterator[None]:
    """Convert errors of a storage that is gone or locked into one line.

    Raises:
        UserError: With the database's error.
    """
    try:
        yield
    # Optuna raises the latter three if it cannot store a trial's end or does not find the study.
    except (*STORAGE_ERRORS, AssertionError, UnboundLocalError, KeyError) as error:
        if not any(_is_of_storage(each) for each in _chain(error)):
            raise
        raise UserError(
            f"the study's storage is gone or locked ({_database_error(error)}); every finished "
            "trial is kept in it: go on with the same command when it is back"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


def _is_of_storage(error: BaseException) -> bool:
    is_missing = isinstance(error, KeyError) and NO_RECORD in str(error)
    return is_missing or isinstance(error, STORAGE_ERRORS)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _database_error(error: BaseException) -> str:
    """Return the database's own error text, without SQLAlchemy's and Optuna's."""
    originals = (getattr(each, "orig", None) for each in _chain(error))
    return first_line(next((each for each in originals if each is not None), error))


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "that it is given"
