"""Data that a run needs and that is not there yet, or that no run tells of: seen before imports."""

from pathlib import Path

from pixelis.config import DataPrepConfig, find_config, load_config


def unrecorded_mark(out: Path) -> Path:
    """The file that lies beside a data folder from before it is made until its run tells of it."""
    return out.with_name(f".{out.name}.unrecorded")


def is_missing(out: Path) -> bool:
    """Whether a data folder is to be made, or was made by a run that was killed before it told."""
    return not out.exists() or unrecorded_mark(out).exists()


def load_prep(out: Path, prep: str) -> DataPrepConfig:
    """How a missing folder is to be made.

    Args:
        out: the data folder.
        prep: the file by which missing data is made (`data.prep`).

    Raises:
        ConfigError: when the file cannot be used.
    """
    return load_config(DataPrepConfig, find_config(prep), {"output_dir": str(out)})
