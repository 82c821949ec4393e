"""Where a study lives: SQLite beside the project, or a server's database for many machines."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.pruners import NopPruner
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from pixelis.errors import ConfigError, UserError
from pixelis.experiments.tune.exclusive import Exclusive
from pixelis.experiments.tune.settings import Settings
from pixelis.training.checkpoint import check_same_config

HEARTBEAT_SECONDS = 20
GRACE_SECONDS = 120  # without a heartbeat, on another machine, after which a trial has died
SQLITE_SECONDS = 60.0  # that a locked SQLite file is waited for

BACKENDS = ("sqlite", "postgresql")
IDENTITY = "pixelis.identity"
BORN = "pixelis.born"  # what tells a study from an earlier one of its name
NO_RECORD = "Record does not exist"  # of Optuna, where a study is not in its database
Direction = Literal["maximize", "minimize"]
GONE = (StorageInternalError, SQLAlchemyError)


def open_study(
    url: str,
    name: str,
    settings: Settings,
    *,
    identity: Mapping[str, Any],
    directions: Sequence[Direction] = ("maximize",),
) -> optuna.Study:
    """Open a study, or make it.

    Args:
        url: SQLAlchemy's, such as `sqlite:///optuna.db` or `postgresql+psycopg2://host/db`.
        name: the study's.
        settings: how it searches.
        identity: what may not differ between two starts, flat.
        directions: of the objectives.

    Raises:
        UserError: when the storage cannot be opened, or holds a study of this name with others.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", ExperimentalWarning)
    with _opening(url):
        storage = _open_storage(url)
        with making(url):
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=list(directions),
                pruner=settings.build_pruner() if len(directions) == 1 else NopPruner(),
                load_if_exists=True,
            )
            saved = study.user_attrs.get(IDENTITY)
            if saved is None:
                study.set_user_attr(BORN, uuid4().hex)
                study.set_user_attr(IDENTITY, dict(identity))
                saved = study.user_attrs[IDENTITY]
        ways = [direction.name.lower() for direction in study.directions]
    check_same_config(
        {**saved, "objectives": ways},
        {**identity, "objectives": list(directions)},
        Path(name),
        what="study",
        advice="go on with the same values, or name another study",
    )
    return study


def check_storage(url: str) -> None:
    """Open a storage, or make it, before anything else is done for it.

    Raises:
        UserError: when it cannot be opened.
    """
    warnings.simplefilter("ignore", ExperimentalWarning)
    with _opening(url):
        _open_storage(url)


@contextmanager
def _opening(url: str) -> Iterator[None]:
    try:
        yield
    except (*GONE, OSError, ImportError, ValueError) as error:
        raise UserError(f"the storage {_shown(url)} cannot be opened: {cause_of(error)}") from error


def _open_storage(url: str) -> RDBStorage:
    place = make_url(url)
    backend = place.get_backend_name()
    if backend not in BACKENDS:
        raise ConfigError(
            f"it must be a database of {' or '.join(BACKENDS)}, whose locks the machines of a "
            f"study share, got {backend}"
        )
    is_sqlite = backend == "sqlite"
    if is_sqlite and (place.database in (None, "", ":memory:") or "mode" in place.query):
        raise ConfigError("a study in memory ends with its process; name a file")
    words: dict[str, Any] = {}
    if is_sqlite and place.database:
        Path(place.database).parent.mkdir(parents=True, exist_ok=True)
        words = {"connect_args": {"timeout": SQLITE_SECONDS}}
    # Several processes that make the tables at once: all but one would fail.
    with making(url):
        return RDBStorage(
            url,
            engine_kwargs=words,
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
        )


@contextmanager
def storage_errors() -> Iterator[None]:
    """Say in one line that a study's storage cannot be used any more, whatever call noticed it.

    Raises:
        UserError: with what the database said.
    """
    try:
        yield
    # Optuna fails in its own ways where it cannot tell how a trial ended, or finds no study.
    except (*GONE, AssertionError, UnboundLocalError, KeyError) as error:
        if not _is_gone(error):
            raise
        raise UserError(
            f"the study's storage is gone or locked ({cause_of(error)}); every finished trial "
            "is kept in it: go on with the same command when it is back"
        ) from error


def _is_gone(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, GONE) or (isinstance(error, KeyError) and NO_RECORD in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def cause_of(error: BaseException) -> str:
    """What the database said, in a line, behind whatever SQLAlchemy and Optuna say of it."""
    found: BaseException | None = error
    while found is not None:
        original = getattr(found, "orig", None)
        if isinstance(original, BaseException):
            return first_line(original)
        found = found.__cause__ or found.__context__
    return first_line(error)


def making(url: str) -> Exclusive:
    """The lock under which tables and studies are made."""
    return Exclusive(url, "making", f"the making of studies in {_shown(url)}")


def _shown(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "that it is given"


def first_line(error: BaseException) -> str:
    """What an error says, for a message of one line."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
