"""The recipe: dense supervision of the vision tower, then the whole model on the blend.

Without the dense steps nothing is seen for a thousand steps: the language loss alone has to find
out at once what a visual token means and where it stands.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pixelis.data.encode import IGNORE_INDEX, Encoder, collate
from pixelis.data.scenes import CELLS, GRID, render
from pixelis.models.base.blend import FINDING, FOLLOWING, MENDING, SEEING, build_item, draw_scene
from pixelis.operations.pixels import PALETTE, SHAPES

# Conversations from this many tokens on go into the batch's second part.
LONG = 100
# After the second of four layers: the last two are left to look a place up.
PLACE_LAYER = 2
CELL_CLASSES = ("none", "text", *(f"{c} {s}" for c in PALETTE for s in SHAPES))


@dataclass(frozen=True)
class Phase:
    """A span of training on one blend, with one cycle of the learning rate."""

    name: str
    weights: tuple[int, ...]
    steps: int
    learning_rate: float
    # The sums, and so the weights, depend on how many threads share them.
    num_threads: int
    # Of the place loss beside the language loss.
    place_weight: float = 0.0


PHASES = (
    Phase("seeing", SEEING, steps=2800, learning_rate=1.5e-3, num_threads=2),
    Phase("finding", FINDING, steps=800, learning_rate=1e-3, num_threads=1),
    Phase("placing", FINDING, steps=700, learning_rate=1e-3, num_threads=2, place_weight=0.3),
    Phase("mending", MENDING, steps=900, learning_rate=1e-3, num_threads=1, place_weight=0.1),
    Phase("following", FOLLOWING, steps=480, learning_rate=8e-4, num_threads=1, place_weight=0.1),
)


@dataclass(frozen=True)
class Recipe:
    """Every number of the training."""

    seed: int = 0
    vision_steps: int = 120
    phases: tuple[Phase, ...] = PHASES
    batch_size: int = 32
    vision_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_share: float = 0.1


Batch = dict[str, torch.Tensor]


class BlendBatches(Dataset[list[Batch]]):
    """Batch `step` of the blend, ready for the model; a function of the seed and the step.

    A batch comes in two parts, short and long conversations: padded together, a third of the
    tokens would be padding.
    """

    def __init__(self, encoder: Encoder, recipe: Recipe, phase: Phase) -> None:
        """Hold what a worker needs to build any batch of the phase."""
        self.encoder = encoder
        self.recipe = recipe
        self.phase = phase
        before = recipe.phases[: recipe.phases.index(phase)]
        self.first = sum(earlier.steps for earlier in before) * recipe.batch_size

    def __len__(self) -> int:
        """Number of steps."""
        return self.phase.steps

    def __getitem__(self, step: int) -> list[Batch]:
        """Build the parts of one batch; no item of an earlier phase comes again."""
        start = self.first + step * self.recipe.batch_size
        items = [
            build_item(self.recipe.seed, index, self.phase.weights)
            for index in range(start, start + self.recipe.batch_size)
        ]
        encoded = sorted((self.encoder.encode(item) for item in items), key=len)
        cut = sum(len(item) < LONG for item in encoded)
        parts = [part for part in (encoded[:cut], encoded[cut:]) if part]
        return [collate(part, self.encoder) for part in parts]


def _vision_batch(
    processor: Any, recipe: Recipe, step: int
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    rng = random.Random(f"vision:{recipe.seed}:{step}")
    scenes = [draw_scene(rng) for _ in range(recipe.batch_size)]
    names = [[(s.at(cell) or None) for cell in CELLS] for s in scenes]
    targets = [[CELL_CLASSES.index(item.name if item else "none") for item in row] for row in names]
    inputs = processor.image_processor(images=[render(s) for s in scenes], return_tensors="pt")
    return dict(inputs), torch.tensor(targets).flatten()


def train_vision(
    model: Any, processor: Any, recipe: Recipe, report: Callable[[int, float, float], None]
) -> None:
    """Teach each merged visual token to name its own cell, through a linear head thrown away."""
    visual = model.model.visual
    head = nn.Linear(model.config.text_config.hidden_size, len(CELL_CLASSES))
    parameters = [*visual.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.vision_learning_rate)
    for step in range(recipe.vision_steps):
        inputs, targets = _vision_batch(processor, recipe, step)
        tokens = visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        logits = head(tokens)
        loss = nn.functional.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        accuracy = (logits.argmax(-1) == targets).float().mean()
        report(step + 1, loss.item(), accuracy.item())


def batches(encoder: Encoder, recipe: Recipe, phase: Phase) -> Iterator[list[Batch]]:
    """The phase's batches in order, prepared by one worker ahead of the model."""
    dataset = BlendBatches(encoder, recipe, phase)
    return iter(DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=4))


def visual_places(grids: torch.Tensor, merge_size: int) -> torch.Tensor:
    """Row and column of every visual token, in order: (tokens, 2), from `image_grid_thw`."""
    places = [
        torch.cartesian_prod(torch.arange(height), torch.arange(width))
        for _, height, width in (grids // torch.tensor([1, merge_size, merge_size])).tolist()
    ]
    return torch.cat(places)


def place_loss(head: nn.Module, hidden: torch.Tensor, part: Batch, merge_size: int) -> torch.Tensor:
    """Cross-entropy of every visual token's row and column, read from its hidden state.

    Args:
        head: width of the model -> GRID rows and GRID columns.
        hidden: (B, T, width) after layer PLACE_LAYER.
        part: with `mm_token_type_ids` and `image_grid_thw`.
        merge_size: patches a side that make one visual token.
    """
    places = visual_places(part["image_grid_thw"], merge_size)
    rows, columns = head(hidden[part["mm_token_type_ids"] == 1]).split(GRID, dim=-1)
    by_row = nn.functional.cross_entropy(rows, places[:, 0])
    by_column = nn.functional.cross_entropy(columns, places[:, 1])
    return by_row + by_column


def sum_losses(
    model: Any, head: nn.Module, parts: list[Batch], place_weight: float
) -> tuple[float, float]:
    """Backward through every part; returns the language loss and the place loss.

    The language loss is the mean over the supervised tokens of all parts.
    """
    merge_size = model.config.vision_config.spatial_merge_size
    count = sum(int((part["labels"][:, 1:] != IGNORE_INDEX).sum()) for part in parts)
    total = placed = 0.0
    for part in parts:
        labels = part.pop("labels")
        outputs = model(**part, output_hidden_states=True)
        loss = nn.functional.cross_entropy(
            outputs.logits[:, :-1].flatten(0, 1),
            labels[:, 1:].flatten(),
            ignore_index=IGNORE_INDEX,
            reduction="sum",
        )
        place = place_loss(head, outputs.hidden_states[PLACE_LAYER], part, merge_size) / len(parts)
        # Nothing, not even a zero, is added where the place loss is off.
        (loss / count + place_weight * place if place_weight else loss / count).backward()
        total += loss.item() / count
        placed += place.item()
    return total, placed


def train_blend(
    model: Any,
    encoder: Encoder,
    recipe: Recipe,
    phase: Phase,
    report: Callable[[int, float, float], None],
) -> None:
    """Train every weight on a phase: AdamW, one cycle of the learning rate, clipping at 1.

    Beside the language loss, a linear head (thrown away) reads each visual token's row and column
    from an early layer, with the phase's `place_weight`: rotary positions are relative, and the
    language loss alone takes thousands of steps to find out where a visual token stands.
    """
    head = nn.Linear(model.config.text_config.hidden_size, 2 * GRID)
    decayed = [p for p in (*model.parameters(), *head.parameters()) if p.ndim > 1]
    plain = [p for p in (*model.parameters(), *head.parameters()) if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}]
    groups.append({"params": plain, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=phase.learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=phase.learning_rate,
        total_steps=phase.steps,
        pct_start=recipe.warmup_share,
    )
    model.train()
    for step, parts in enumerate(batches(encoder, recipe, phase)):
        optimizer.zero_grad()
        total, placed = sum_losses(model, head, parts, phase.place_weight)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report(step + 1, total, placed)
