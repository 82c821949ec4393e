"""evaluate: roll out a trained adapter and its base on a split, and compare them."""

from collections.abc import Sequence

from pixelis.cli.arguments import parse_arguments, run_cli


def main(argv: Sequence[str]) -> int:
    """Parse the arguments and run the evaluation."""
    config, model = parse_arguments("evaluate", argv)

    from pixelis.runs.evaluate import run_evaluation  # imports torch, which `--help` does not need

    run_evaluation(config, model.model)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
