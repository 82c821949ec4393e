"""compare: draw the timelines of finished trainings, with a table of their results."""

from collections.abc import Sequence

from pixelis.cli.arguments import parse_arguments, run_cli


def main(argv: Sequence[str]) -> int:
    """Parse the command line and compare."""
    (config,) = parse_arguments("compare", argv)

    from pixelis.runs.compare import run_comparison

    run_comparison(config)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
