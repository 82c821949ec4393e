"""Find out whether a data folder must be made or recorded first; imports nothing heavy."""

from pathlib import Path

from pixelis.config import DataPrepConfig, find_config, load_config


def unrecorded_mark(out: Path) -> Path:
    """Return the file that lies beside a data folder until its run has recorded it."""
    return out.with_name(f".{out.name}.unrecorded")


def is_missing(out: Path) -> bool:
    """Return whether a data folder is to be made, or its run was killed before it recorded it."""
    return not out.exists() or unrecorded_mark(out).exists()


def load_prep(out: Path, prep: str) -> DataPrepConfig:
    """Load how a missing folder is to be made.

    Args:
        out: the data folder.
        prep: the file by which missing data is made (`data.prep`).

    Raises:
        ConfigError: when the file cannot be used.
    """
    return load_config(DataPrepConfig, find_config(prep), {"output_dir": str(out)})
