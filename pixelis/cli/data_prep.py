"""data-prep: make or import CoTA data, and record how it was made."""

from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import parse_arguments, run_cli


def main(argv: Sequence[str]) -> int:
    """Parse the arguments and make the data."""
    (config,) = parse_arguments("data-prep", argv)

    from pixelis.runs.prepare import make_data

    make_data(config, Path(config.output_dir))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
