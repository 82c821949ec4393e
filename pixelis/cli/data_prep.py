"""data-prep: make or import CoTA data, and record how it was made."""

from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import parse_arguments, run_cli
from pixelis.config import DataPrepConfig


def main(argv: Sequence[str]) -> int:
    """Parse the arguments and make the data."""
    arguments = parse_arguments(
        argv,
        entry_point="data-prep",
        description="Make chain-of-thought-and-action data with operations run on the pixels, "
        "or import your own (--input).",
        config_class=DataPrepConfig,
        default_config="configs/data_prep.yaml",
    )
    from pixelis.runs.prepare import make_data

    make_data(arguments.config, Path(arguments.config.output_dir))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
