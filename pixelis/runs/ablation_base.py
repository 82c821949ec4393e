"""The untrained base of a comparison: its answers on the test examples of every seed, kept."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

from accelerate.utils.memory import clear_device_cache

from pixelis.config import AblateFileConfig, ModelConfig
from pixelis.data.encode import Encoder
from pixelis.data.example import DIFFICULTIES, Example
from pixelis.data.store import load_split
from pixelis.errors import CheckpointError
from pixelis.evaluation.evaluate import choose_examples
from pixelis.evaluation.metrics import ALL, correct_answers
from pixelis.evaluation.rollout import Conversation, RolloutSettings, roll_out
from pixelis.evaluation.turns import Rollout
from pixelis.models.load import best_device, load_encoder
from pixelis.progress import ProgressBar
from pixelis.training.adapter import load_base
from pixelis.training.checkpoint import read_json, write_json

BASE_FILE = "base.json"


def measure_base(
    config: AblateFileConfig, model: ModelConfig, identity: Mapping[str, Any]
) -> list[dict[str, float]]:
    """Return the base's answer accuracy by difficulty, and `all`, for each seed in order.

    A seed's test examples are those of its trainings. Each example is rolled out once, however many
    seeds have it; its verdict is kept in `base.json` for a restart with the same `identity`.
    """
    rules, first = config.evaluation, config.training.seed
    file = Path(config.training.output_dir) / BASE_FILE
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    right = _read_kept(file, digest)
    rows = load_split(Path(config.data.path), "test")
    encoder = load_encoder(model)
    base: Any = None
    accuracies = []
    for seed in range(first, first + config.seeds):
        examples = choose_examples(
            rows, rules.samples_per_difficulty, seed, split="test", encoder=encoder
        )
        if missing := [example for example in examples if example.id not in right]:
            base = _load(model) if base is None else base
            settings = RolloutSettings(max_operations=rules.max_operations, seed=seed)
            right |= _roll_out(base, encoder, missing, settings)
            write_json({"identity": digest, "right": right}, file)
        accuracies.append(_accuracy(examples, right))
    if base is not None:
        del base
        clear_device_cache(garbage_collection=True)  # the trainings need the memory
    return accuracies


def _read_kept(file: Path, digest: str) -> dict[str, bool]:
    """Return the verdicts that were kept, or none if the file is missing or not as written."""
    with suppress(CheckpointError, LookupError, TypeError, AttributeError):
        kept = read_json(file)
        if kept["identity"] == digest:
            return {key: right for key, right in kept["right"].items() if type(right) is bool}
    return {}


def _load(model: ModelConfig) -> Any:
    base = load_base(model)
    return (base if model.load_in_4bit else base.to(best_device())).eval()


def _roll_out(
    base: Any, encoder: Encoder, examples: Sequence[Example], settings: RolloutSettings
) -> dict[str, bool]:
    """Return example id -> whether the base's answer is right."""
    conversations = [Conversation(example) for example in examples]
    with ProgressBar("base", len(examples), "rollout") as bar:

        def progress(index: int, rollout: Rollout) -> None:
            bar.update(1)

        rollouts = roll_out(base, encoder, conversations, settings, progress=progress)
    right = correct_answers(rollouts, examples)
    return {example.id: is_right for example, is_right in zip(examples, right, strict=True)}


def _accuracy(examples: Sequence[Example], right: Mapping[str, bool]) -> dict[str, float]:
    groups = {name: [e for e in examples if e.difficulty == name] for name in DIFFICULTIES}
    groups[ALL] = list(examples)
    return {name: fmean(right[e.id] for e in each) for name, each in groups.items() if each}
