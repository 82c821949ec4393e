"""The recipe: dense supervision (`dense`), then the whole model on the blend."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pixelis.data.encode import IGNORE_INDEX, Encoded, Encoder, collate
from pixelis.data_prep.scenes import Cell
from pixelis.models.forward import model_inputs
from recipes.nano.blend import build_lesson
from recipes.nano.dense import Lookups, lookup_loss

# Conversations from this many tokens on go into the batch's second part.
LONG = 90


@dataclass(frozen=True)
class Recipe:
    """Every number of the training."""

    seed: int = 0
    vision_steps: int = 120
    vision_learning_rate: float = 1e-3
    lookup_steps: int = 500
    lookup_learning_rate: float = 2e-3
    blend_steps: int = 1900
    blend_learning_rate: float = 1.5e-3
    lookup_weight: float = 0.3
    batch_size: int = 32
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    # The sums, and so the weights, depend on how many threads share them.
    num_threads: int = 2


Batch = dict[str, torch.Tensor]


class BlendBatches(Dataset[list[Batch]]):
    """Batch `step` of the blend, ready for the model; a function of the seed and the step.

    A batch comes in two parts, short and long conversations: padded together, a third of the
    tokens would be padding.
    """

    def __init__(self, encoder: Encoder, recipe: Recipe) -> None:
        """Hold what a worker needs to build any batch."""
        self.encoder = encoder
        self.recipe = recipe
        self.lookups = Lookups(encoder.tokenizer)

    def __len__(self) -> int:
        """Number of steps."""
        return self.recipe.blend_steps

    def __getitem__(self, step: int) -> list[Batch]:
        """Build the parts of one batch; no item comes twice."""
        start = step * self.recipe.batch_size
        lessons = [
            build_lesson(self.recipe.seed, index)
            for index in range(start, start + self.recipe.batch_size)
        ]
        encoded = [(self.encoder.encode(lesson.messages), lesson.held) for lesson in lessons]
        encoded.sort(key=lambda pair: len(pair[0]))
        cut = sum(len(item) < LONG for item, _ in encoded)
        return [self._collate(part) for part in (encoded[:cut], encoded[cut:]) if part]

    def _collate(self, part: Sequence[tuple[Encoded, Mapping[Cell, str]]]) -> Batch:
        batch = collate([item for item, _ in part], self.encoder)
        self.lookups.add_targets(batch, [self.lookups.targets(*pair) for pair in part])
        return batch


def batches(encoder: Encoder, recipe: Recipe) -> Iterator[list[Batch]]:
    """The blend's batches in order, prepared by one worker ahead of the model."""
    dataset = BlendBatches(encoder, recipe)
    return iter(DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=4))


def sum_losses(
    model: Any, lookups: Lookups, parts: list[Batch], lookup_weight: float
) -> tuple[float, float]:
    """Backward through every part: the language loss and, weighted, the look-ups' beside it.

    Without the look-ups beside it, the language loss undoes in a hundred steps what they learned.

    Returns:
        The mean language loss over the supervised tokens of all parts, and the share of look-ups
        that were right.
    """
    count = sum(int((part["labels"][:, 1:] != IGNORE_INDEX).sum()) for part in parts)
    total = right = 0.0
    for part in parts:
        inputs = {k: v for k, v in model_inputs(part).items() if k not in ("find", "look")}
        outputs = model(**inputs, output_hidden_states=True)
        loss = nn.functional.cross_entropy(
            outputs.logits[:, :-1].flatten(0, 1),
            part["labels"][:, 1:].flatten(),
            ignore_index=IGNORE_INDEX,
            reduction="sum",
        )
        looked_up, share = lookup_loss(model, outputs.hidden_states, part, lookups)
        (loss / count + lookup_weight / len(parts) * looked_up).backward()
        total += loss.item() / count
        right += share / len(parts)
    return total, right


def train_blend(
    model: Any, encoder: Encoder, recipe: Recipe, report: Callable[[int, float, float], None]
) -> None:
    """Train every weight: AdamW, one cycle of the learning rate, clipping at 1."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}]
    groups.append({"params": plain, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=recipe.blend_learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=recipe.blend_learning_rate,
        total_steps=recipe.blend_steps,
        pct_start=recipe.warmup_share,
    )
    lookups = Lookups(encoder.tokenizer)
    model.train()
    for step, parts in enumerate(batches(encoder, recipe)):
        optimizer.zero_grad()
        total, right = sum_losses(model, lookups, parts, recipe.lookup_weight)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report(step + 1, total, right)
