"""sft: make missing data, train on the curriculum, evaluate, and record all of it in MLflow."""

import logging
from collections.abc import Sequence

from pixelis.cli.arguments import INTERRUPTED, parse_arguments, run_cli
from pixelis.cli.console import configure_logging
from pixelis.curriculum import CurriculumConfig
from pixelis.training.distributed import OtherProcessFailed, Processes, join


def main(argv: Sequence[str]) -> int:
    """Parse the arguments, train and evaluate, in each process that a launcher started."""
    processes = join()
    if not processes.is_main:
        configure_logging(logging.ERROR)
    try:
        with processes.fail_together():
            code = _run(argv, processes)
    except OtherProcessFailed:
        return 1  # the one that failed says why
    processes.close()
    return code


def _run(argv: Sequence[str], processes: Processes) -> int:
    config, file = parse_arguments("sft", argv)
    model = file.model
    curriculum = CurriculumConfig.from_dict(config.curriculum)

    from pixelis.runs.train import make_missing_data, run_sft
    from pixelis.training.distributed import Stopped

    make_missing_data(config, model, processes)
    try:
        run_sft(config, model, curriculum, processes)
    except (KeyboardInterrupt, SystemExit) as stopped:  # SystemExit: SIGTERM outside of training
        if processes.is_main:
            message = stopped if isinstance(stopped, Stopped) else "interrupted"
            print(f"{message}\ngo on with the same command and -P resume=auto (or --resume auto)")
        if isinstance(stopped, Stopped):
            # A launcher ends all processes with the first one, so all wait until the run is closed.
            processes.run_on_main(lambda: None)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
