import gc
import json
import logging
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest
import torch

from pixelis.config import ModelConfig, TrainingConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.data.dataset import CurriculumDataset
from pixelis.data.encode import Encoded
from pixelis.data.example import DIFFICULTIES
from pixelis.recorder import NullRecorder
from pixelis.training import trainer as trainer_module
from pixelis.training.sft import TrainingSettings, run_training
from pixelis.training.trainer import CurriculumTrainer
from tests.forking import ForkServer
from tests.small_data import make_small_data

MODEL = {
    "lora_r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.2,
    "gradient_checkpointing": False,
    "torch_dtype": "float32",
    "max_pixels": 12544,
}
TRAINING = {
    "max_steps": 8,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 2e-3,
    "warmup_steps": 1,
    "eval_steps": 5,
    "eval_batch_size": 4,
    "save_steps": 3,
    "logging_steps": 2,
    "max_length": 512,
    # Exact, and the same on every machine; `auto` is not.
    "precision": "fp32",
}
SHORT = {"batch_size": 1}  # for runs in processes of their own, of which there are many
# Whatever the base is worth: every attempt is kept.
ADVANCING = {
    "advancement_interval": 2,
    "min_performance_for_advance": 0.0,
    "rollback_enabled": False,
    "eval_samples_per_difficulty": 2,
}
# Every trial is rolled back: no model is that sure of every token.
RETREATING = {
    "advancement_interval": 2,
    "performance_metric": "likelihood",
    "min_performance_for_advance": 1.0,
    "eval_samples_per_difficulty": 2,
    "trial_steps": 2,
    "rollback_scope": "data+weights",
    "rollback_factor": 1.0,
    "rollback_cooldown": 0,
}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Sums, and so weights, depend on how they are split among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    # Every training begins with a collection, which would go through all that is imported.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Short examples, about a dozen of each difficulty to train on."""
    folder = tmp_path_factory.mktemp("training") / "data"
    return make_small_data(folder, test_fraction=0.1)


@pytest.fixture
def folder(data_dir, tmp_path):
    """Data that a test may harm, with nothing computed beside it."""
    return shutil.copytree(data_dir, tmp_path / "mine" / "data")


class ListRecorder(NullRecorder):
    """Keeps what it is told, in order; a metric may come once a step."""

    def __init__(self):
        self.values = {}
        self.events = []

    def metrics(self, values, step):
        assert not {(key, step) for key in values} & set(self.values)
        self.values |= {(key, step): value for key, value in values.items()}

    def event(self, event):
        self.events.append(event)

    def steps(self, key):
        return [step for name, step in self.values if name == key]


class Lines(logging.Handler):
    """Keeps the console's lines."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        if record.name != "pixelis.progress":  # a bar's lines depend on the time
            self.lines.append(record.getMessage())


@contextmanager
def logged_lines():
    """Collect what is logged for the console."""
    handler, logger = Lines(), logging.getLogger("pixelis")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@pytest.fixture
def lines():
    """The console's lines of a test."""
    with logged_lines() as collected:
        yield collected


@pytest.fixture
def train(data_dir, tmp_path):
    """Train in this process; returns the result, what was recorded and the console's lines."""

    def run(
        curriculum,
        *,
        model=None,
        output_dir=tmp_path / "sft",
        data=data_dir,
        resume_from=None,
        exclude=(),
        trusted=None,
        **training,
    ):
        recorder = ListRecorder()
        settings = TrainingSettings(
            TrainingConfig(**(TRAINING | training | {"output_dir": str(output_dir)})),
            ModelConfig(**(MODEL | (model or {}))),
            CurriculumConfig.from_dict(curriculum),
            data,
            exclude=exclude,
            trusted=trusted,
            run_state={"identity": {}, "run_id": None},
            resume_from=resume_from,
        )
        with logged_lines() as lines:
            result = run_training(settings, recorder)
        return result, recorder, lines

    return run


def moments_of(optimizer):
    """Copies of an optimiser's moments, as `<parameter index>.<name>` -> tensor."""
    states = optimizer.state_dict()["state"].items()
    return {f"{i}.{name}": value.clone() for i, by in states for name, value in by.items()}


@dataclass(frozen=True)
class Keyed(Encoded):
    key: tuple[str, int] | None = None


class KeyedDataset(CurriculumDataset):
    """Sends each training example's key along with the batch."""

    def __getitem__(self, key):
        item = super().__getitem__(key)
        return Keyed(**{f.name: getattr(item, f.name) for f in fields(item)}, key=key)

    def collate(self, batch):
        made = super().collate(batch)
        if self.rows[batch[0].key[0]][0]["split"] == "train":
            keys = [(DIFFICULTIES.index(item.key[0]), item.key[1]) for item in batch]
            made["keys"] = torch.tensor(keys)
        return made


@dataclass
class Seen:
    """What a training did: the examples the model was trained on, what was measured and told."""

    keys: dict = field(default_factory=dict)  # optimiser step -> (difficulty, index) pairs
    evaluated: list = field(default_factory=list)  # the step of every validation pass
    losses: dict = field(default_factory=dict)  # step -> losses that a pool was chosen by
    result: object = None
    recorder: object = None
    lines: list = field(default_factory=list)


class WatchedTrainer(CurriculumTrainer):
    """Writes down what a `Seen` holds."""

    seen: Seen

    def training_step(self, model, inputs, *arguments, **words):
        keys = [(DIFFICULTIES[d], index) for d, index in inputs.pop("keys").tolist()]
        self.seen.keys.setdefault(self.state.global_step + 1, []).extend(keys)
        return super().training_step(model, inputs, *arguments, **words)

    def evaluate(self, *arguments, **words):
        self.seen.evaluated.append(self.state.global_step)
        return super().evaluate(*arguments, **words)


@pytest.fixture
def trained(train, monkeypatch):
    """Train and return what was seen of it."""
    compute_losses = trainer_module.compute_losses

    def watch_losses(model, batches, **words):
        dataset = batches.dataset

        def collate(batch):
            return {k: v for k, v in collate_keyed(batch).items() if k != "keys"}

        collate_keyed = dataset.collate
        monkeypatch.setattr(dataset, "collate", collate, raising=False)
        losses = compute_losses(model, batches, **words)
        monkeypatch.delattr(dataset, "collate")
        WatchedTrainer.seen.losses[len(WatchedTrainer.seen.keys)] = losses
        return losses

    monkeypatch.setattr("pixelis.training.caches.CurriculumDataset", KeyedDataset)
    monkeypatch.setattr("pixelis.training.sft.CurriculumTrainer", WatchedTrainer)
    monkeypatch.setattr(trainer_module, "compute_losses", watch_losses)

    def run(curriculum, **training):
        seen = Seen()
        monkeypatch.setattr(WatchedTrainer, "seen", seen, raising=False)
        seen.result, seen.recorder, seen.lines = train(curriculum, **training)
        return seen

    return run


@pytest.fixture(scope="session")
def advancing():
    return ADVANCING


@pytest.fixture(scope="session")
def retreating():
    return RETREATING


@dataclass(frozen=True)
class Run:
    """What one or more processes of a training left."""

    output_dir: Path

    @property
    def records(self):
        """Every record in the order told: [key, step, value]."""
        text = self.output_dir.with_suffix(".jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    @property
    def metrics(self):
        """(key, step) -> value; each is recorded once, whatever was killed."""
        metrics = {}
        for key, step, value in self.records:
            if key != "event":
                assert (key, step) not in metrics
                metrics[key, step] = value
        return metrics

    @property
    def lines(self):
        return self.output_dir.with_suffix(".txt").read_text(encoding="utf-8").splitlines()

    @property
    def events(self):
        return [value for key, _, value in self.records if key == "event"]

    @property
    def adapter(self):
        return (self.output_dir / "final" / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="session")
def fork_run(data_dir, tmp_path_factory):
    """Train in a process of its own, which can be killed; returns what it left."""
    log = tmp_path_factory.mktemp("forked") / "log.txt"

    def run(output_dir, curriculum, *, resume=None, fault=None, code=0, model=(), **training):
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        request = {
            "training": TRAINING | SHORT | training | {"output_dir": str(output_dir)},
            "model": MODEL | dict(model),
            "curriculum": curriculum,
            "data_dir": str(data_dir),
            "recorded": str(output_dir.with_suffix(".jsonl")),
            "lines": str(output_dir.with_suffix(".txt")),
            "resume": resume,
            "fault": fault,
        }
        answer = server.run(request, log=log)
        assert answer == code, log.read_text()[-3000:]
        return Run(output_dir)

    with ForkServer("tests.training.forked_runs") as server:
        yield run


@pytest.fixture(scope="session")
def whole(fork_run, tmp_path_factory):
    """A training that nobody interrupted: it advances twice."""
    return fork_run(tmp_path_factory.mktemp("whole") / "sft", ADVANCING)
