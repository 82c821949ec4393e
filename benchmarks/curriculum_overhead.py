"""Measure the curriculum's share of a training's time: python benchmarks/curriculum_overhead.py

It trains the embedded base with the library's `run_training`, with a real recorder on SQLite, once
on the curriculum and once on a fixed mix (`enabled: false`), in turn over some rounds. The fixed
mix has the curriculum's overall shares, so that both trainings do the same work, since early stages
draw shorter examples. Settings are those of configs/training_params.yaml on fewer steps, with more
frequent attempts.

`curriculum` is the seconds inside public calls of the manager, the sampler, the callback and the
recorder, from the first step's beginning to the last one's end: a call inside another counts once,
start-up and final figures do not count. The forward passes of an evaluation that `eval_steps` asks
for are `validation`; an evaluation for the curriculum alone counts completely as `curriculum`. The
exit code is 1 if the curriculum's share of the time is over 2 % in the median round.
"""

import argparse
import functools
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIMIT = 0.02
ARMS = ("curriculum", "fixed mix")


@dataclass
class Clock:
    """The seconds of one training; nested calls count once."""

    eval_steps: int
    max_steps: int
    began: float = 0.0
    ended: float = 0.0
    curriculum: float = 0.0
    validation: float = 0.0
    asked: int = 0  # number of evaluations for the curriculum alone
    depth: int = 0
    running: bool = False

    @property
    def wall(self):
        return self.ended - self.began

    def count(self, function):
        """Wrap a function to add its time to the curriculum's."""

        @functools.wraps(function)
        def counted(*args, **kwargs):
            self.depth += 1
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.depth -= 1
                if self.running and self.depth == 0:
                    self.curriculum += time.perf_counter() - began

        return counted

    def scheduled(self, step):
        return step % self.eval_steps == 0 or step == self.max_steps


def watch(clock):
    """Wrap the public calls in this process; return a function that restores them."""
    from pixelis.curriculum import CurriculumManager, MixtureSampler
    from pixelis.evaluation.validation import Validation
    from pixelis.tracking import MlflowRecorder
    from pixelis.training.callback import CurriculumCallback
    from pixelis.training.trainer import CurriculumTrainer

    before = []

    def put(owner, name, function):
        before.append((owner, name, owner.__dict__.get(name)))
        setattr(owner, name, function)

    for owner in (CurriculumManager, MixtureSampler, CurriculumCallback, MlflowRecorder):
        for name, member in list(vars(owner).items()):
            if callable(member) and not name.startswith("_"):
                put(owner, name, clock.count(member))

    evaluate, measure = CurriculumTrainer.evaluate, Validation.__call__
    training_step = CurriculumTrainer.training_step

    def evaluating(trainer, *args, **kwargs):
        if clock.scheduled(trainer.state.global_step):
            return evaluate(trainer, *args, **kwargs)
        clock.asked += 1
        return clock.count(evaluate)(trainer, *args, **kwargs)

    def measuring(validation, model):
        began = time.perf_counter()
        strata = measure(validation, model)
        if clock.depth == 0:  # else the enclosing call counts it
            clock.validation += time.perf_counter() - began
        return strata

    def stepping(trainer, *args, **kwargs):
        if not clock.running and not clock.began:
            clock.running, clock.began = True, time.perf_counter()
        return training_step(trainer, *args, **kwargs)

    def ending(callback, *args, **kwargs):
        clock.running, clock.ended = False, time.perf_counter()

    put(CurriculumTrainer, "evaluate", evaluating)
    put(Validation, "__call__", measuring)
    put(CurriculumTrainer, "training_step", stepping)
    put(CurriculumCallback, "on_train_end", ending)

    def undo():
        for owner, name, member in reversed(before):
            if member is None:
                delattr(owner, name)
            else:
                setattr(owner, name, member)

    return undo


def drawn_shares(events):
    """Average the mixes of all events, weighted by their numbers of steps."""
    total = dict.fromkeys(events[0].mix, 0.0)
    for event, following in pairwise(events):
        for name, share in event.mix.items():
            total[name] += share * (following.step - event.step) / events[-1].step
    return total


def train(output_dir, data, arguments, *, mix=None):
    """Train on the curriculum or on a fixed mix; return the clock and the events."""
    from pixelis.config import ModelFileConfig, TrainingFileConfig, load_config
    from pixelis.curriculum import CurriculumConfig
    from pixelis.tracking import open_run
    from pixelis.training.sft import TrainingSettings, run_training

    config = load_config(TrainingFileConfig, ROOT / "configs/training_params.yaml", {})
    model = load_config(ModelFileConfig, ROOT / "configs/model_arch.yaml", {}).model
    interval = 2 * arguments.eval_steps
    curriculum = CurriculumConfig.from_dict(
        {
            **config.curriculum,
            "enabled": mix is None,
            "strategy": arguments.strategy,
            **({"stages": [{"name": "fixed", "difficulty_mix": mix}]} if mix else {}),
            "advancement_interval": interval,
            "rollback_cooldown": interval,
            "trial_steps": arguments.trial_steps,
            "rollback_factor": 1.0,  # so that attempts do not become rarer
            "eval_samples_per_difficulty": arguments.eval_samples,
        }
    )
    training = config.training.replace(
        output_dir=str(output_dir),
        max_steps=arguments.steps,
        eval_steps=arguments.eval_steps,
        save_steps=2 * arguments.eval_steps,
    )
    clock = Clock(training.eval_steps, training.max_steps)
    undo = watch(clock)
    try:
        with open_run(
            entry_point="benchmark",
            experiment="curriculum_overhead",
            run_name=output_dir.name,
            params={"enabled": mix is None},
            tags={},
            output_dir=output_dir,
        ) as recorder:
            run_state = {"identity": {}, "run_id": recorder.run_id}
            settings = TrainingSettings(training, model, curriculum, data, run_state=run_state)
            result = run_training(settings, recorder)
    finally:
        undo()
    return clock, result.events


def report(name, clock, events):
    extra = f", {clock.asked} extra evaluations" if clock.asked else ""
    print(
        f"{name:12} {clock.wall:8.2f} {clock.validation:12.2f} {clock.curriculum:12.3f} "
        f"{clock.curriculum / clock.wall:8.2%}   {len(events)} events{extra}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=60, help="of a training, %(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="of both trainings, %(default)s")
    parser.add_argument("--eval-steps", type=int, default=10, help="default %(default)s")
    parser.add_argument(
        "--trial-steps",
        type=int,
        default=10,
        help="default %(default)s; no multiple of eval steps: the curriculum asks for evaluations",
    )
    parser.add_argument("--strategy", default="staged", help="default %(default)s")
    parser.add_argument("--eval-samples", type=int, default=8, help="a stratum, %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
        os.environ["MLFLOW_ARTIFACT_ROOT"] = str(folder / "artifacts")
        os.chdir(folder)
        from pixelis.config import DataPrepConfig, load_config
        from pixelis.data_prep.prepare import prepare_folder

        keys = {"num_samples": 600, "difficulty.correlation_samples": 0}
        prep = load_config(DataPrepConfig, ROOT / "configs/smoke/data_prep.yaml", keys)
        prepare_folder(prep, folder / "data")
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        print(f"{'':12} {'seconds':>8} {'validation':>12} {'curriculum':>12} {'share':>8}")
        shares, ratios, mix = [], [], None
        for number in range(arguments.rounds):
            clocks = {}
            # The arms alternate in coming first, so that a slower machine affects both equally.
            for arm in ARMS[:: -1 if number % 2 else 1]:
                output_dir = folder / f"{arm.replace(' ', '-')}-{number}"
                fixed = mix if arm == "fixed mix" else None
                clock, events = train(output_dir, folder / "data", arguments, mix=fixed)
                report(arm, clock, events)
                clocks[arm] = clock
                mix = mix or drawn_shares(events)
            shares.append(clocks["curriculum"].curriculum / clocks["curriculum"].wall)
            ratios.append(clocks["curriculum"].wall / clocks["fixed mix"].wall)
        share = statistics.median(shares)
        print(f"share: {share:.2%} ({min(shares):.2%} to {max(shares):.2%}), limit {LIMIT:.0%}")
        print(
            f"ratio to the fixed mix: {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f})"
        )
    return 1 if share > LIMIT else 0


if __name__ == "__main__":
    raise SystemExit(main())
