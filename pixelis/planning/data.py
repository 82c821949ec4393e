"""Estimate the examples that a training draws, and their lengths, before it starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelis.config import ModelConfig
from pixelis.curriculum import CurriculumConfig, CurriculumManager
from pixelis.data.encode import IGNORE_INDEX, RefusedImageError, encode_example
from pixelis.data.store import from_row, load_split
from pixelis.errors import CheckpointError
from pixelis.models.load import load_encoder

EXAMPLES_READ = 48  # examples of each difficulty, spread over the split
RELIABILITY = {
    "staged": "the earliest course: every attempt succeeds at once. Attempts that fail or are "
    "rolled back make a stage longer, and those after it later",
    "schedule": "exact: stages begin at their steps",
    "competence": "exact: what is in is a matter of the step and of the data's difficulty scores",
    "self_paced": "not known before: which examples are in is decided by their losses",
    "adaptive": "not known before: the shares follow the losses",
    "fixed mix": "exact: one mix from the first step",
}


@dataclass
class PlannedStage:
    """One stage of a training."""

    name: str
    first_step: int  # the first step that draws from it
    steps: int
    examples: dict[str, float]  # difficulty -> number of examples drawn


@dataclass(frozen=True)
class DataStatistics:
    """Statistics of a training split."""

    sizes: Mapping[str, int]  # examples of each difficulty
    scores: Mapping[str, Sequence[float]]  # their difficulty scores
    # Mean tokens of an example, by difficulty; None without the model's processor.
    tokens: Mapping[str, float] | None = None
    supervised: float | None = None  # largest share of an example's tokens that is predicted
    images: float | None = None  # share of all tokens that are visual


def plan_stages(
    curriculum: CurriculumConfig,
    *,
    max_steps: int,
    examples_per_step: int,
    scores: Mapping[str, Sequence[float]] | None,
) -> list[PlannedStage] | None:
    """Run the curriculum's own manager with perfect performance; None if stages are unknown before.

    `scores` are the difficulty scores of the training examples, or None without data.
    """
    strategy = curriculum.strategy_label
    if strategy in ("self_paced", "adaptive") or (strategy == "competence" and not scores):
        return None
    if scores:
        curriculum = curriculum.fit_to_data(scores)
    # Perfect performance makes no progress, and yet every attempt has to succeed.
    manager = CurriculumManager(curriculum.replace(rollback_enabled=False), max_steps)
    if scores:
        names = manager.required_difficulties  # data may be of one difficulty
        manager.bind({name: list(scores.get(name, ())) for name in names})
    perfect = dict.fromkeys(manager.required_difficulties, 1.0)
    stages: list[PlannedStage] = []
    for step in range(1, max_steps + 1):
        name = manager.events[-1].to_stage or manager.stage
        if not stages or stages[-1].name != name:
            stages.append(PlannedStage(name, step, 0, dict.fromkeys(manager.mix, 0.0)))
        stage = stages[-1]
        stage.steps += 1
        for difficulty, share in manager.mix.items():
            drawn = stage.examples.get(difficulty, 0)
            stage.examples[difficulty] = drawn + share * examples_per_step
        manager.step()
        if manager.attempt_due(step):
            manager.attempt(step, perfect)
    return stages


def sum_examples(stages: Sequence[PlannedStage]) -> dict[str, float]:
    """Return the number of examples of each difficulty over the complete training."""
    names = dict.fromkeys(name for stage in stages for name in stage.examples)
    return {name: sum(stage.examples.get(name, 0) for stage in stages) for name in names}


def read_statistics(folder: Path, model: ModelConfig) -> DataStatistics | None:
    """Read the statistics of a data folder; None when it does not exist.

    Raises:
        DataError: when it cannot be read.
    """
    if not folder.exists():
        return None
    split = load_split(folder, "train")
    sizes = {name: len(rows) for name, rows in split.items()}
    scores = {name: list(rows["difficulty_score"]) for name, rows in split.items()}
    try:
        encoder = load_encoder(model)
    except CheckpointError:  # a hub model that is not on this machine
        return DataStatistics(sizes, scores)
    tokens, shares, num_visual, num_tokens = {}, [0.0], 0, 0
    for name, rows in split.items():
        lengths = []
        for index in range(0, len(rows), max(1, len(rows) // EXAMPLES_READ)):
            try:
                encoded = encode_example(from_row(rows[index]), encoder)
            except RefusedImageError:  # training leaves it out
                continue
            predicted = sum(label != IGNORE_INDEX for label in encoded.labels)
            lengths.append(len(encoded))
            shares.append(predicted / len(encoded))
            num_visual += encoded.input_ids.count(encoder.image_token_id)
        num_tokens += sum(lengths)
        if lengths:
            tokens[name] = sum(lengths) / len(lengths)
    return DataStatistics(sizes, scores, tokens, max(shares), num_visual / max(1, num_tokens))
