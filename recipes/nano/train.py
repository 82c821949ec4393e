"""Train the whole model on the blend, after the dense supervision of `dense`."""

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

# Conversations with more tokens are in the second part of a batch.
LONG = 90


@dataclass(frozen=True)
class Recipe:
    """All settings of the training."""

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
    # The number of threads changes the order of sums, and so the weights.
    num_threads: int = 2


Batch = dict[str, torch.Tensor]


class BlendBatches(Dataset[list[Batch]]):
    """The batches of the blend, each a function of the seed and the step.

    A batch comes in two parts, short and long conversations: padded together, a third of the
    tokens would be padding.
    """

    def __init__(self, encoder: Encoder, recipe: Recipe) -> None:
        """Store what a worker needs to build any batch."""
        self.encoder = encoder
        self.recipe = recipe
        self.lookups = Lookups(encoder.tokenizer)

    def __len__(self) -> int:
        """Return the number of steps."""
        return self.recipe.blend_steps

    def __getitem__(self, step: int) -> list[Batch]:
        """Build the parts of one batch; no conversation is repeated."""
        start = step * self.recipe.batch_size
        lessons = [
            build_lesson(self.recipe.seed, index)
            for index in range(start, start + self.recipe.batch_size)
        ]
        encoded = [(self.encoder.encode(lesson.messages), lesson.contents) for lesson in lessons]
        encoded.sort(key=lambda pair: len(pair[0]))
        cut = sum(len(item) < LONG for item, _ in encoded)
        return [self._collate(part) for part in (encoded[:cut], encoded[cut:]) if part]

    def _collate(self, part: Sequence[tuple[Encoded, Mapping[Cell, str]]]) -> Batch:
        batch = collate([item for item, _ in part], self.encoder)
        self.lookups.add_targets(batch, [self.lookups.targets(*pair) for pair in part])
        return batch


def batches(encoder: Encoder, recipe: Recipe) -> Iterator[list[Batch]]:
    """Iterate over the batches in order, prepared ahead by one worker."""
    dataset = BlendBatches(encoder, recipe)
    return iter(DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=4))


def sum_losses(
    model: Any, lookups: Lookups, parts: list[Batch], lookup_weight: float
) -> tuple[float, float]:
    """Compute the gradients of the language loss and the weighted lookup loss of every part.

    Without the lookup loss, the language loss would destroy the lookups within a hundred steps.

    Returns:
        The mean language loss over the supervised tokens, and the share of correct lookups.
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
        loss_of_lookups, share = lookup_loss(model, outputs.hidden_states, part, lookups)
        (loss / count + lookup_weight / len(parts) * loss_of_lookups).backward()
        total += loss.item() / count
        right += share / len(parts)
    return total, right


def train_blend(
    model: Any, encoder: Encoder, recipe: Recipe, report: Callable[[int, float, float], None]
) -> None:
    """Train all weights with AdamW, a one-cycle learning rate, and clipping at 1."""
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
