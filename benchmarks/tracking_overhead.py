"""Measure recording's share of a training's time: python benchmarks/tracking_overhead.py

Trains the embedded base, once by the library's `run_sft`, which records all that the entry point
does (system metrics, live figures, adapters) in a real run on SQLite (MLFLOW_TRACKING_URI, where it
is set), and once by `run_training` with a recorder that keeps nothing, in turn over some rounds.
Settings are those of configs/training_params.yaml on fewer steps, with attempts three times as
often.

`recording` is the seconds inside public calls of the recorder, and of what draws before it, on the
training thread, from the first step's beginning to the last one's end: a call inside another counts
once. The ratio of the two trainings' times includes the other threads (figures, sending, system
metrics). `--outage` blocks every record from the third step on, like a server that was killed and
does not return. The exit code is 1 if recording's share of the time is over 1 % in the median
round.
"""

import argparse
import functools
import io
import os
import statistics
import tempfile
import threading
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIMIT = 0.01
ARMS = ("recorded", "not recorded")


@dataclass
class Clock:
    """The seconds of one training; nested calls count once."""

    began: float = 0.0
    ended: float = 0.0
    recording: float = 0.0
    longest: float = 0.0
    calls: int = 0
    depth: int = 0
    thread: int = field(default_factory=threading.get_ident)

    @property
    def wall(self):
        return self.ended - self.began

    def count(self, function):
        """Wrap a function to add its time, if the training calls it."""

        @functools.wraps(function)
        def counted(*args, **kwargs):
            if threading.get_ident() != self.thread:
                return function(*args, **kwargs)
            self.depth += 1
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.depth -= 1
                if self.depth == 0 and self.began and not self.ended:
                    seconds = time.perf_counter() - began
                    self.recording += seconds
                    self.longest = max(self.longest, seconds)
                    self.calls += 1

        return counted


def watch(clock, outage):
    """Wrap the public calls in this process; return a function that restores them."""
    from mlflow import MlflowClient

    from pixelis.recorder import NullRecorder
    from pixelis.runs.live_figures import LiveFigures
    from pixelis.tracking import MlflowRecorder
    from pixelis.training.callback import CurriculumCallback
    from pixelis.training.trainer import CurriculumTrainer

    before = []

    def put(owner, name, function):
        before.append((owner, name, owner.__dict__.get(name)))
        setattr(owner, name, function)

    for owner in (MlflowRecorder, LiveFigures, NullRecorder):
        for name, member in list(vars(owner).items()):
            if callable(member) and not name.startswith("_"):
                put(owner, name, clock.count(member))
    training_step, log_batch = CurriculumTrainer.training_step, MlflowClient.log_batch

    def stepping(trainer, *args, **kwargs):
        clock.began = clock.began or time.perf_counter()
        if outage and trainer.state.global_step == 3:
            put(MlflowClient, "log_batch", refusing)
        return training_step(trainer, *args, **kwargs)

    def refusing(client, *args, **kwargs):
        if not clock.ended:
            raise ConnectionError("connection refused")
        return log_batch(client, *args, **kwargs)

    def ending(callback, *args, **kwargs):
        clock.ended = time.perf_counter()

    put(CurriculumTrainer, "training_step", stepping)
    put(CurriculumCallback, "on_train_end", ending)

    def undo():
        for owner, name, member in reversed(before):
            if member is None:
                delattr(owner, name)
            else:
                setattr(owner, name, member)

    return undo


def train(output_dir, data, arguments, *, recorded):
    """Train once; return the clock."""
    from pixelis.config import ModelFileConfig, TrainingFileConfig, load_config
    from pixelis.curriculum import CurriculumConfig
    from pixelis.recorder import NullRecorder
    from pixelis.runs.train import run_sft
    from pixelis.training.sft import TrainingSettings, run_training

    config = load_config(TrainingFileConfig, ROOT / "configs/training_params.yaml", {})
    model = load_config(ModelFileConfig, ROOT / "configs/model_arch.yaml", {}).model
    interval = 2 * arguments.eval_steps
    curriculum = CurriculumConfig.from_dict(
        {
            **config.curriculum,
            "advancement_interval": interval,
            "rollback_cooldown": interval,
            "trial_steps": arguments.eval_steps,
            "eval_samples_per_difficulty": 8,
        }
    )
    training = config.training.replace(
        output_dir=str(output_dir),
        max_steps=arguments.steps,
        eval_steps=arguments.eval_steps,
        save_steps=interval,
    )
    clock = Clock()
    undo = watch(clock, arguments.outage and recorded)
    try:
        if recorded:
            config = config.replace(
                data=config.data.replace(path=str(data)),
                training=training,
                evaluation=config.evaluation.replace(enabled=False),
            )
            with redirect_stdout(io.StringIO()):
                run_sft(config, model, curriculum)
        else:
            run_state = {"identity": {}, "run_id": "none"}
            settings = TrainingSettings(training, model, curriculum, data, run_state=run_state)
            run_training(settings, NullRecorder())
    finally:
        undo()
    return clock


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=150, help="of a training, %(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="of both trainings, %(default)s")
    parser.add_argument("--eval-steps", type=int, default=25, help="default %(default)s")
    parser.add_argument("--outage", action="store_true", help="MLflow is away from step 3 on")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        os.environ.setdefault("MLFLOW_ARTIFACT_ROOT", str(folder / "artifacts"))
        os.chdir(folder)
        from pixelis.config import DataPrepConfig, load_config
        from pixelis.data_prep.prepare import prepare_folder

        keys = {"num_samples": 600, "difficulty.correlation_samples": 0}
        prep = load_config(DataPrepConfig, ROOT / "configs/smoke/data_prep.yaml", keys)
        prepare_folder(prep, folder / "data")
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        print(f"{'':12} {'seconds':>8} {'recording':>10} {'share':>8} {'calls':>6} {'longest':>9}")
        shares, ratios = [], []
        for number in range(arguments.rounds):
            clocks = {}
            # The arms alternate in coming first, so that a slower machine affects both equally.
            for arm in ARMS[:: -1 if number % 2 else 1]:
                output_dir = folder / f"{arm.replace(' ', '-')}-{number}"
                clock = train(output_dir, folder / "data", arguments, recorded=arm == ARMS[0])
                print(
                    f"{arm:12} {clock.wall:8.2f} {clock.recording:10.4f} "
                    f"{clock.recording / clock.wall:8.3%} {clock.calls:6} {clock.longest:8.4f}s",
                    flush=True,
                )
                clocks[arm] = clock
            recorded, bare = (clocks[arm] for arm in ARMS)
            shares.append(recorded.recording / recorded.wall)
            ratios.append(recorded.wall / bare.wall)
        share = statistics.median(shares)
        print(f"share: {share:.3%} ({min(shares):.3%} to {max(shares):.3%}), limit {LIMIT:.0%}")
        print(
            f"ratio to recording off: {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f})"
        )
    return 1 if share > LIMIT else 0


if __name__ == "__main__":
    raise SystemExit(main())
