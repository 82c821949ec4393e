"""A real training, and the bytes of tensors that lived at its peak: what a forecast is held to.

As a program it reads a request (JSON) and prints the answer (JSON), so that each case has a process
of its own. What is counted is what torch's allocator gave and took back, by its profiler: the same
quantity that a GPU's `max_memory_allocated` is.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

import pixelis.training.sft as sft_module
from pixelis.config import ModelConfig, TrainingConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.data.encode import IGNORE_INDEX
from pixelis.models.load import load_model_config_offline
from pixelis.planning.memory import Shape, build_fake_model, forecast_memory
from pixelis.recorder import NullRecorder
from pixelis.training.precision import BF16
from pixelis.training.trainer import CurriculumTrainer

ROOT = Path(__file__).parents[2]
# The mix of all difficulties from the first step on, and no decision.
CURRICULUM = {"enabled": False, "eval_samples_per_difficulty": 2}


class MeasuredTrainer(CurriculumTrainer):
    """Notes what each forward pass was given; its allocations are counted from the first one on."""

    def __init__(self, *arguments, **words):
        super().__init__(*arguments, **words)
        self.shapes, self.base_bytes = [], 0
        self.profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)

    def training_step(self, model, inputs, *arguments, **words):
        if not self.shapes:
            self.base_bytes = sum(
                p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad
            )
            self.profiler.start()
        found = inputs["labels"][:, 1:] != IGNORE_INDEX
        image_tokens = int(
            (inputs["input_ids"] == self.loader.dataset.encoder.image_token_id).sum()
        )
        self.shapes.append(
            Shape(
                *inputs["input_ids"].shape, int(found.sum()), image_tokens, "pixel_values" in inputs
            )
        )
        return super().training_step(model, inputs, *arguments, **words)

    def evaluate(self, *arguments, **words):
        self.profiler.stop()
        return super().evaluate(*arguments, **words)

    def peak(self):
        """Bytes above what there was before the first forward pass."""
        events = [
            event
            for event in self.profiler.profiler.kineto_results.events()
            if event.name() == "[memory]"
        ]
        live = peak = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            live += event.nbytes()
            peak = max(peak, live)
        return peak


def measure_apart(model, training, data_dir):
    """Measure a training in a process of its own.

    Args:
        model: keys of the section `model`.
        training: keys of the section `training`.
        data_dir: the data folder.
    """
    short = {"max_length": 1024, "max_steps": 2, "eval_steps": 2, "save_steps": 2}
    model = {"torch_dtype": "float32", "max_pixels": 12544, **model}
    training = {"gradient_accumulation_steps": 2, **short, **training}
    with tempfile.TemporaryDirectory() as folder:
        training["output_dir"] = folder
        request = {"model": model, "training": training, "data_dir": str(data_dir)}
        done = subprocess.run(
            [sys.executable, __file__],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            timeout=600,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def measure(request):
    """Train a few steps; returns bytes, measured and forecast."""
    torch.set_num_threads(1)
    trainers = []

    class Trainer(MeasuredTrainer):
        def __init__(self, *arguments, **words):
            super().__init__(*arguments, **words)
            trainers.append(self)

    sft_module.CurriculumTrainer = Trainer
    model = ModelConfig(**request["model"])
    training = TrainingConfig(**request["training"])
    settings = sft_module.TrainingSettings(
        training, model, CurriculumConfig.from_dict(CURRICULUM), Path(request["data_dir"])
    )
    sft_module.run_training(settings, NullRecorder())
    (trainer,) = trainers
    bf16 = training.precision == BF16
    adapted = build_fake_model(
        load_model_config_offline(model.model_name),
        model,
        precision=training.precision,
        as_on_cpu=bf16,
    )
    forecasts = [
        forecast_memory(adapted, shape, model, bf16=bf16)
        for shape in sorted(set(trainer.shapes), key=lambda s: -s.batch_size * s.length)[:2]
    ]
    forecast = max(forecasts, key=lambda memory: memory.total)
    return {
        "measured_above_base": trainer.peak() + forecast.adapter,
        "forecast_above_base": forecast.total - forecast.weights,
        "measured": trainer.peak() + forecast.adapter + trainer.base_bytes,
        "forecast": forecast.total,
        "weights": trainer.base_bytes,
        "forecast_weights": forecast.weights,
        "parts": vars(forecast),
    }


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.stdin.read()))))
