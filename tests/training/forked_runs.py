"""Trains in a fork that a signal ends where it is told to; see `tests.forking`."""

import json
import os
import signal
from pathlib import Path

import pixelis.evaluation.validation as validation_module
import pixelis.training.trainer as trainer_module
from pixelis.config import ModelConfig, TrainingConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.recorder import NullRecorder
from pixelis.training.checkpoint import CURRICULUM_FILE, read_json
from pixelis.training.resume import choose_start
from pixelis.training.sft import run_training
from pixelis.training.stopping import Stopped


class LineRecorder(NullRecorder):
    """Writes every record at once, so that a killed run leaves what it recorded.

    A resumed one goes back to the length that its checkpoint knows.
    """

    def __init__(self, path, on_metrics, length=None):
        if length is not None and path.exists():
            os.truncate(path, length)
        self.file = path.open("a", encoding="utf-8")
        self.on_metrics = on_metrics

    def _write(self, record):
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()

    def metrics(self, values, step):
        for key, value in values.items():
            self._write([key, step, value])
        self.on_metrics(values, step)

    def event(self, event):
        self._write(["event", event["step"], event])

    def position(self):
        return self.file.tell()


def _die(name):
    os.kill(os.getpid(), getattr(signal, name))


def plant_fault(at, when, name):
    """Send this process a signal at a place: returns what to call with every record."""
    if at in ("record", "loss"):
        key = {"record": "curriculum/stage", "loss": "train/loss"}[at]
        return lambda values, step: _die(name) if step == when and key in values else None
    if at == "seal":  # everything is written but the digests
        seal = trainer_module.seal

        def torn(folder):
            if folder.name == f"checkpoint-{when}":
                _die(name)
            seal(folder)

        trainer_module.seal = torn
    if at == "evaluation":  # in the middle of the evaluation number `when`
        tally, counted = validation_module._tally, []

        def counting(*arguments):
            counted.append(1)
            if len(counted) == when:
                _die(name)
            return tally(*arguments)

        validation_module._tally = counting
    if at == "final":  # training is over, its adapter not yet written
        save_adapter = trainer_module.CurriculumTrainer.save_adapter

        def dying(trainer, place):
            if place.name == "final":
                _die(name)
            save_adapter(trainer, place)

        trainer_module.CurriculumTrainer.save_adapter = dying
    return lambda values, step: None


def run(request):
    """One run of `run_training` where `choose_start` says."""
    said = Path(request["said"])

    def say(line):
        with said.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    training = TrainingConfig(**request["training"])
    identity = {"curriculum": request["curriculum"], "max_steps": training.max_steps}
    start = choose_start(request["resume"], Path(training.output_dir), identity, say)
    fault, length = request["fault"], None
    if start.resume_from is not None:
        length = read_json(start.resume_from / CURRICULUM_FILE)["journal"]
    on_metrics = plant_fault(*fault) if fault else lambda values, step: None
    try:
        run_training(
            training=training,
            model_config=ModelConfig(**request["model"]),
            curriculum=CurriculumConfig.from_dict(request["curriculum"]),
            data_dir=Path(request["data_dir"]),
            recorder=LineRecorder(Path(request["recorded"]), on_metrics, length),
            run_state={"identity": identity, "run_id": None},
            resume_from=start.resume_from,
            say=say,
        )
    except Stopped as stopped:
        say(str(stopped))
        return 130
    return 0
