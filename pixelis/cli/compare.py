"""compare: draw the timelines of finished trainings, with a table of their results."""

from collections.abc import Sequence

from pixelis.cli.arguments import parse_arguments, run_cli
from pixelis.config import CompareConfig


def main(argv: Sequence[str]) -> int:
    """Parse the command line and compare."""
    config = parse_arguments(
        argv,
        entry_point="compare",
        description="Draw the timelines of finished trainings above each other, with a table of "
        "what came of them: in a run of its own, that links to theirs.",
        config_class=CompareConfig,
        default_config="configs/compare.yaml",
    ).config

    from pixelis.runs.compare import run_comparison

    run_comparison(config)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
