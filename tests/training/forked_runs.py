"""Trains in a fork that a signal ends where it is told to; see `tests.forking`."""

import json
import logging
import os
import signal
from pathlib import Path

import pixelis.evaluation.validation as validation_module
import pixelis.training.trainer as trainer_module
from pixelis.config import ModelConfig, TrainingConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.recorder import NullRecorder
from pixelis.training.checkpoint import CURRICULUM_FILE, choose_start, read_json
from pixelis.training.distributed import Stopped
from pixelis.training.sft import TrainingSettings, run_training
from pixelis.training.weights import TrainedWeights


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
        save = TrainedWeights.save

        def dying(weights, folder):
            if folder.name == "final":
                _die(name)
            save(weights, folder)

        TrainedWeights.save = dying
    return lambda values, step: None


def log_lines(path):
    """Append the console's lines to a file, each at once; returns the logger."""
    logger = logging.getLogger("pixelis")
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.FileHandler(path, encoding="utf-8"))
    return logger


def settings_of(request, resume_from, identity):
    """The settings of a request."""
    return TrainingSettings(
        TrainingConfig(**request["training"]),
        ModelConfig(**request["model"]),
        CurriculumConfig.from_dict(request["curriculum"]),
        Path(request["data_dir"]),
        run_state={"identity": identity, "run_id": None},
        resume_from=resume_from,
    )


def identity_of(request):
    """What a checkpoint and the training that it is resumed with have to share."""
    return {
        "curriculum": request["curriculum"],
        "max_steps": TrainingConfig(**request["training"]).max_steps,
    }


def run(request):
    """One run of `run_training` where `choose_start` says."""
    logger, identity = log_lines(request["lines"]), identity_of(request)
    output_dir = Path(request["training"]["output_dir"])
    start = choose_start(request["resume"], output_dir, identity)
    fault, length = request["fault"], None
    if start.resume_from is not None:
        length = read_json(start.resume_from / CURRICULUM_FILE)["journal"]
    on_metrics = plant_fault(*fault) if fault else lambda values, step: None
    recorder = LineRecorder(Path(request["recorded"]), on_metrics, length)
    try:
        result = run_training(settings_of(request, start.resume_from, identity), recorder)
    except Stopped as stopped:
        logger.info("%s", stopped)
        return 130
    # As the run's journal has it.
    events = [event.to_dict() for event in result.events]
    (output_dir / "events.json").write_text(json.dumps(events))
    return 0
