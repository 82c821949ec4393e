"""Measure what curriculum and recording take of a training's time: python benchmarks/overhead.py

Trains the embedded base three ways in turn, over some rounds: `complete` is the library's
`run_sft`, which records all that the entry point does (system metrics, live figures, adapters) in a
real run on SQLite (MLFLOW_TRACKING_URI, where it is set); `fixed mix` is the same with
`enabled: false` and the curriculum's overall shares, so that both do the same work, since early
stages draw shorter examples; `not recorded` has the curriculum and a recorder that keeps nothing.
Settings are those of configs/training_params.yaml on fewer steps, with more frequent attempts.

A share is the seconds inside public calls on the training thread, from the first step's beginning
to the last one's end, a call inside another counted once. `curriculum` is the manager, the sampler,
the callback with what it records, and the evaluations that `eval_steps` did not ask for;
`recording` is the recorder and what draws before it. The ratios of the trainings' times include the
other threads. `--outage` blocks every record from the third step on, like a server that was killed
and does not return. The exit code is 1 if a share is above its limit in the median round.
"""

import argparse
import functools
import io
import json
import os
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack, redirect_stdout
from itertools import pairwise
from pathlib import Path
from unittest import mock

from rounds import alternate, spread

ROOT = Path(__file__).parent.parent
LIMITS = {"curriculum": 0.02, "recording": 0.01}


class Clock:
    """The seconds inside some functions while a training is in its steps."""

    def __init__(self):
        self.began = self.ended = self.seconds = 0.0
        self.depth, self.thread = 0, threading.get_ident()

    @property
    def wall(self):
        return self.ended - self.began

    @property
    def share(self):
        return self.seconds / self.wall

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
                    self.seconds += time.perf_counter() - began

        return counted


def watch(clocks, training, outage):
    """Wrap the public calls in this process; return a function that restores them."""
    from mlflow import MlflowClient

    from pixelis.curriculum import CurriculumManager, MixtureSampler
    from pixelis.recorder import NullRecorder
    from pixelis.runs.live_figures import LiveFigures
    from pixelis.tracking import MlflowRecorder
    from pixelis.training.callback import CurriculumCallback
    from pixelis.training.trainer import CurriculumTrainer

    owners = {
        "curriculum": (CurriculumManager, MixtureSampler, CurriculumCallback),
        "recording": (MlflowRecorder, LiveFigures, NullRecorder),
    }
    stack = ExitStack()

    def put(owner, name, function):
        stack.enter_context(mock.patch.object(owner, name, function))

    for kind, classes in owners.items():
        for owner in classes:
            for name, member in list(vars(owner).items()):
                if callable(member) and not name.startswith("_"):
                    put(owner, name, clocks[kind].count(member))
    evaluate, training_step = CurriculumTrainer.evaluate, CurriculumTrainer.training_step
    log_batch, last = MlflowClient.log_batch, training.max_steps

    def evaluating(trainer, *args, **kwargs):
        step = trainer.state.global_step
        if step % training.eval_steps == 0 or step == last:
            return evaluate(trainer, *args, **kwargs)
        return clocks["curriculum"].count(evaluate)(trainer, *args, **kwargs)

    def stepping(trainer, *args, **kwargs):
        for clock in clocks.values():
            clock.began = clock.began or time.perf_counter()
        if outage and trainer.state.global_step == 3:
            put(MlflowClient, "log_batch", refusing)
        return training_step(trainer, *args, **kwargs)

    def refusing(client, *args, **kwargs):
        if not clocks["recording"].ended:
            raise ConnectionError("connection refused")
        return log_batch(client, *args, **kwargs)

    def ending(callback, *args, **kwargs):
        for clock in clocks.values():
            clock.ended = time.perf_counter()

    put(CurriculumTrainer, "evaluate", evaluating)
    put(CurriculumTrainer, "training_step", stepping)
    put(CurriculumCallback, "on_train_end", ending)

    return stack.close


def drawn_shares(events):
    """Average the mixes of all events, weighted by their numbers of steps."""
    total = dict.fromkeys(events[0]["mix"], 0.0)
    for event, following in pairwise(events):
        for name, share in event["mix"].items():
            total[name] += share * (following["step"] - event["step"]) / events[-1]["step"]
    return total


def train(name, folder, arguments, *, mix=None, recorded=True):
    """Train with the curriculum or on a fixed mix; return the clocks."""
    from pixelis.config import ModelFileConfig, TrainingFileConfig, load_config
    from pixelis.curriculum import CurriculumConfig
    from pixelis.recorder import NullRecorder
    from pixelis.runs.train import run_sft
    from pixelis.training.sft import TrainingSettings, run_training

    config = load_config(TrainingFileConfig, ROOT / "configs/training_params.yaml", {})
    model = load_config(ModelFileConfig, ROOT / "configs/model_arch.yaml", {}).model
    interval, data = 2 * arguments.eval_steps, folder / "data"
    changed = {
        "advancement_interval": interval,
        "rollback_cooldown": interval,
        "rollback_factor": 1.0,  # so that attempts do not become rarer
        "trial_steps": arguments.eval_steps - 1,  # its end asks for an evaluation of its own
        "eval_samples_per_difficulty": 8,
    }
    if mix is not None:
        changed |= {"enabled": False, "stages": [{"name": "fixed", "difficulty_mix": mix}]}
    curriculum = CurriculumConfig.from_dict({**config.curriculum, **changed})
    training = config.training.replace(
        output_dir=str(folder / f"{name.replace(' ', '-')}-{time.monotonic_ns()}"),
        max_steps=arguments.steps,
        eval_steps=arguments.eval_steps,
        save_steps=interval,
    )
    clocks = {kind: Clock() for kind in LIMITS}
    undo = watch(clocks, training, arguments.outage and recorded)
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
    shares = "".join(f"{clock.share:12.3%}" for clock in clocks.values())
    print(f"{name:12} {clocks['recording'].wall:8.2f} s{shares}", flush=True)
    return clocks, Path(training.output_dir)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100, help="of a training, %(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="of all trainings, %(default)s")
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
        print(f"{'':12} {'time':>10}" + "".join(f"{kind:>12}" for kind in LIMITS))
        # This training is not counted: it fills the caches, and its events give the fixed mix.
        _, first = train("warm-up", folder, arguments)
        mix = drawn_shares(json.loads((first / "events.json").read_text()))
        runs = {
            "complete": lambda: train("complete", folder, arguments)[0],
            "fixed mix": lambda: train("fixed mix", folder, arguments, mix=mix)[0],
            "not recorded": lambda: train("not recorded", folder, arguments, recorded=False)[0],
        }
        results = alternate(runs, arguments.rounds)
        for other in ("fixed mix", "not recorded"):
            pairs = zip(results["complete"], results[other], strict=True)
            ratios = [one["recording"].wall / two["recording"].wall for one, two in pairs]
            print(f"ratio to {other}: {spread(ratios, '.3f')}")
        missed = False
        for kind, limit in LIMITS.items():
            shares = [clocks[kind].share for clocks in results["complete"]]
            missed |= statistics.median(shares) > limit
            print(f"share of {kind}: {spread(shares, '.2%')}, limit {limit:.0%}")
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
