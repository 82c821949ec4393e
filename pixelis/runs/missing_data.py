"""Checks whether a data folder must be made or recorded first; this module imports no torch."""

from pathlib import Path

from pixelis.config import DataPrepConfig, find_config, load_config
from pixelis.errors import ConfigError


def unrecorded_mark(out: Path) -> Path:
    """Return the file next to a data folder that exists until a run has recorded the folder."""
    return out.with_name(f".{out.name}.unrecorded")


def is_missing(out: Path) -> bool:
    """Return whether a data folder does not exist, or was never recorded because of a kill."""
    return not out.exists() or unrecorded_mark(out).exists()


def load_prep(out: Path, prep: str | None) -> DataPrepConfig:
    """Load the configuration (`data.prep`) by which a missing data folder is made.

    Raises:
        ConfigError: when there is no file, or it cannot be used.
    """
    if prep is None:
        raise ConfigError(
            f"data.path must be a folder that data-prep wrote where data.prep is null, got {out}, "
            "which is missing or not complete"
        )
    return load_config(DataPrepConfig, find_config(prep), {"output_dir": str(out)})
