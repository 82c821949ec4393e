"""tune_worker: run trials of a search until all are finished; `tune` starts the workers."""

from collections.abc import Sequence

from pixelis.cli.arguments import parse_arguments, run_cli


def main(argv: Sequence[str]) -> int:
    """Parse the arguments of `tune`, and run trials."""
    config, model = parse_arguments("tune", argv)

    from pixelis.experiments.tune.spec import SearchSpec
    from pixelis.runs.tuning_worker import run_worker

    run_worker(SearchSpec(config, model))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
