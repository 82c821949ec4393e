"""The database of a study: a SQLite file, or a PostgreSQL server for several machines.

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
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from pixelis.errors import ConfigError, UserError

HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 60  # a trial's process has died after this time without a heartbeat
MAX_RETRIES = 10  # limit for a trial whose process dies repeatedly
SQLITE_SECONDS = 60.0  # how long to wait for a locked SQLite file
LOCK_SECONDS = 600  # many processes may be first, each choosing a trial for about a second

BACKENDS = ("sqlite", "postgresql")
STORAGE_ERRORS = (StorageInternalError, SQLAlchemyError, Timeout)
NO_RECORD = "Record does not exist"  # Optuna's text if a study is not in its database
LOCK_KEY = 7_094_836_165_112_001  # key of the server's advisory lock, an arbitrary number
# The server notices a machine that lost its power within seconds instead of hours.
SERVER_OPTIONS = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=4"


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
    try:
        database = make_url(url)
        backend = database.get_backend_name()
        if backend not in BACKENDS:
            raise ConfigError(f"it must be a database of {' or '.join(BACKENDS)}, got {backend}")
        engine: dict[str, Any] = {}
        if backend == "sqlite":
            if database.database in (None, "", ":memory:") or "mode" in database.query:
                raise ConfigError("a study in memory ends with its process; name a file")
            Path(str(database.database)).parent.mkdir(parents=True, exist_ok=True)
            engine = {"connect_args": {"timeout": SQLITE_SECONDS}}
        with storage_lock(url):
            return RDBStorage(
                url,
                engine_kwargs=engine,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=queue_again,
            )
    except (*STORAGE_ERRORS, OSError, ImportError, ValueError) as error:
        raise UserError(
            f"the storage {_without_password(url)} cannot be opened: "
            f"{_database_error(error) or first_line(error)}"
        ) from error


def queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a failed trial again with the same values, MAX_RETRIES times at most."""
    RetryHeartbeatStaleTrialCallback(MAX_RETRIES)(study, trial)


@contextmanager
def storage_lock(url: str) -> Iterator[None]:
    """Let only one of the processes that share a storage into the block at a time.

    For SQLite it is a file lock next to the file. For PostgreSQL it is an advisory lock of the
    server, which ends with the session and therefore with the process that holds it. Either fails
    after LOCK_SECONDS.
    """
    database = make_url(url)
    if database.get_backend_name() == "sqlite":
        file = Path(database.database or "").resolve()
        with FileLock(file.with_name(f".{file.name}.lock"), timeout=LOCK_SECONDS):
            yield
        return
    options = f"{SERVER_OPTIONS} -c lock_timeout={LOCK_SECONDS}s"
    engine = sqlalchemy.create_engine(
        database,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"options": options},
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_lock({LOCK_KEY})")
        yield


@contextmanager
def storage_errors() -> Iterator[None]:
    """Convert errors of a storage that is gone or locked into one line.

    Raises:
        UserError: With the database's error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Optuna raises others after those of the database
        if (text := _database_error(error)) is None:
            raise
        raise UserError(
            f"the study's storage is gone or locked ({text}); every finished trial is kept in it: "
            "go on with the same command when it is back"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


def _database_error(error: BaseException | None) -> str | None:
    """Return the first line of the database's error behind an error, or None without one."""
    text = None
    while error is not None:
        if isinstance(error, STORAGE_ERRORS) or NO_RECORD in str(error):
            text = first_line(error)
        error = error.__cause__ or error.__context__
    return text


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "that it is given"
