"""Where a study lives: SQLite beside the project, or a server's database for many machines."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.pruners import NopPruner
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from pixelis.errors import ConfigError, UserError
from pixelis.training.checkpoint import check_same_config
from pixelis.tuning.settings import Settings

HEARTBEAT_SECONDS = 20
GRACE_SECONDS = 120  # without a heartbeat, on another machine, after which a trial has died
SQLITE_SECONDS = 60.0  # that a locked SQLite file is waited for
MAX_RETRIES = 10
IDENTITY = "pixelis.identity"
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
    try:
        study = optuna.create_study(
            storage=_open_storage(url),
            study_name=name,
            directions=list(directions),
            pruner=settings.build_pruner() if len(directions) == 1 else NopPruner(),
            load_if_exists=True,
        )
        saved = study.user_attrs.get(IDENTITY)
        if saved is None:
            study.set_user_attr(IDENTITY, dict(identity))
            saved = study.user_attrs[IDENTITY]
        ways = [direction.name.lower() for direction in study.directions]
    except (*GONE, OSError, ImportError, ValueError) as error:
        raise UserError(
            f"the storage {_shown(url)} cannot be opened: {first_line(error)}"
        ) from error
    check_same_config(
        {**saved, "objectives": ways},
        {**identity, "objectives": list(directions)},
        Path(name),
        what="study",
        advice="go on with the same values, or name another study",
    )
    return study


def _open_storage(url: str) -> RDBStorage:
    place = make_url(url)
    is_sqlite = place.get_backend_name() == "sqlite"
    if is_sqlite and not place.database:
        raise ConfigError("a study in memory ends with its process; name a file")
    file = Path(place.database) if is_sqlite and place.database else None
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    words: dict[str, Any] = {"connect_args": {"timeout": SQLITE_SECONDS}} if file else {}
    # Several processes that make the tables at once: all but one would fail.
    lock = FileLock(file.with_name(f".{file.name}.lock")) if file else nullcontext()
    with lock:
        return RDBStorage(
            url,
            engine_kwargs=words,
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES),
        )


def _shown(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "that it is given"


def first_line(error: BaseException) -> str:
    """What an error says, for a message of one line."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
