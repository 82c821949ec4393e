"""Dense supervision before language training: the content and the position of cells, and lookups.

With the language loss alone, the model would have to learn the content of a visual token, its
position, and the reference of a word to it at the same time, and makes no progress for a thousand
steps. Here all of this is trained for every cell directly. Hidden states are read through the
model's own tied embeddings (like a logit lens), so that a cell and its words get similar
directions.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from pixelis.data.encode import IGNORE_INDEX, Encoded, Encoder, collate
from pixelis.data_prep.scenes import CELLS, Cell, render
from pixelis.models.forward import model_inputs
from pixelis.operations.pixels import PALETTE, SHAPES
from recipes.nano.blend import draw_scene

# After two of four layers a visual token must encode its position; after the third, a name or a
# position in the text must encode its referent. The last layer is left for the answer.
PLACE_LAYER, LOOKUP_LAYER = 2, 3
CELL_CLASSES = ("none", "text", "digit", *(f"{c} {s}" for c in PALETTE for s in SHAPES))
PLACES = tuple(f"row {row + 1} column {col + 1}" for row, col in CELLS)
PLACES_ASKED = 12

Batch = dict[str, torch.Tensor]
Report = Callable[[int, float, float], None]


def word_ids(tokenizer: Any, words: Sequence[str]) -> torch.Tensor:
    """Return the token of each word, name or place as it is inside a sentence."""
    ids = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
    assert all(len(tokens) == 1 for tokens in ids), "every looked-up word is one token"
    return torch.tensor([tokens[0] for tokens in ids])


def class_words(tokenizer: Any) -> torch.Tensor:
    """Return the target distribution of each cell class: (classes, vocabulary), rows sum to 1.

    `red circle` is its name, `red` and `circle`, in equal shares.
    """
    targets = torch.zeros(len(CELL_CLASSES), len(tokenizer))
    for row, name in enumerate(CELL_CLASSES):
        words = [name, *name.split()] if " " in name else [name]
        targets[row, word_ids(tokenizer, words)] = 1 / len(words)
    return targets


def read_out(model: Any, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Compute the logits (N, len(ids)) of tokens from hidden states (N, width) of a layer."""
    normed = model.model.language_model.norm(hidden)
    return nn.functional.linear(normed, model.lm_head.weight[ids])


def _scenes(seed: str, batch_size: int) -> list[Any]:
    rng = random.Random(seed)
    return [draw_scene(rng) for _ in range(batch_size)]


def train_vision(
    model: Any, processor: Any, *, seed: int, steps: int, batch_size: int, lr: float, report: Report
) -> None:
    """Train each merged visual token to encode the colour and shape in its cell.

    Args:
        model: the base; its vision tower and embeddings are trained.
        processor: the base's processor.
        seed: seed of the scenes.
        steps: optimiser steps.
        batch_size: scenes a step.
        lr: learning rate.
        report: called with step, loss and the share of cells that are right.
    """
    words = class_words(processor.tokenizer)
    names = word_ids(processor.tokenizer, CELL_CLASSES)
    everything = torch.arange(len(processor.tokenizer))
    parameters = [*model.model.visual.parameters(), model.lm_head.weight]
    optimizer = torch.optim.AdamW(parameters, lr=lr)
    for step in range(1, steps + 1):
        scenes = _scenes(f"vision:{seed}:{step}", batch_size)
        cells = [scene.at(cell) for scene in scenes for cell in CELLS]
        classes = torch.tensor([CELL_CLASSES.index(i.name if i else "none") for i in cells])
        inputs = processor.image_processor(images=[render(s) for s in scenes], return_tensors="pt")
        grid = inputs["image_grid_thw"]
        tokens = model.model.visual(inputs["pixel_values"], grid_thw=grid).pooler_output
        logits = read_out(model, tokens, everything)
        loss = cross_entropy(logits, words[classes])
        _step(optimizer, parameters, loss)
        right = (logits[:, names].argmax(-1) == classes).float().mean()
        report(step, loss.item(), right.item())


class Lookups:
    """A finder of the tokens that refer to the image: names of single objects, and positions."""

    def __init__(self, tokenizer: Any) -> None:
        """Look up the tokens of CELL_CLASSES and PLACES."""
        self.names = word_ids(tokenizer, CELL_CLASSES)
        self.places = word_ids(tokenizer, PLACES)
        self._class_of = {int(token): index for index, token in enumerate(self.names)}
        for index, name in enumerate(CELL_CLASSES):
            tokens = tokenizer(name, add_special_tokens=False)["input_ids"]
            if " " in name and len(tokens) == 1:  # without a space, at the start of an answer
                self._class_of[tokens[0]] = index
        self._cell_of = {int(token): index for index, token in enumerate(self.places)}

    def targets(self, encoded: Encoded, contents: Mapping[Cell, str]) -> list[tuple[int, int]]:
        """Return for each token the cell of the object that it names, and the class at its place.

        IGNORE_INDEX for all other tokens, and for positions in the assistant's own answers, which
        follow the content.

        Args:
            encoded: a conversation about one scene.
            contents: cell -> name of the object there; empty where places have no fixed content,
                as in several frames.
        """
        names = list(contents.values())
        cells = {
            name: CELLS.index(cell) for cell, name in contents.items() if names.count(name) == 1
        }
        pairs = []
        for token, label in zip(encoded.input_ids, encoded.labels, strict=True):
            name = CELL_CLASSES[self._class_of[token]] if token in self._class_of else ""
            class_there = IGNORE_INDEX
            if contents and token in self._cell_of and label == IGNORE_INDEX:
                cell = CELLS[self._cell_of[token]]
                class_there = CELL_CLASSES.index(contents.get(cell, "none"))
            pairs.append((cells.get(name, IGNORE_INDEX), class_there))
        return pairs

    def add_targets(self, batch: Batch, targets: Sequence[Sequence[tuple[int, int]]]) -> None:
        """Add `find` (cells) and `look` (classes), both (B, T), to a batch."""
        for key, column in (("find", 0), ("look", 1)):
            batch[key] = torch.full_like(batch["input_ids"], IGNORE_INDEX)
            for row, pairs in enumerate(targets):
                batch[key][row, : len(pairs)] = torch.tensor([pair[column] for pair in pairs])


class LookupBatches(Dataset[Batch]):
    """Batches for lookups: an image, then the names in it and some places in random order."""

    def __init__(self, encoder: Encoder, *, seed: int, steps: int, batch_size: int) -> None:
        """Store what a worker needs to build any batch."""
        self.encoder, self.seed, self.steps, self.batch_size = encoder, seed, steps, batch_size
        self.lookups = Lookups(encoder.tokenizer)
        to_id = encoder.tokenizer.convert_tokens_to_ids
        self.start, self.end = to_id("<|vision_start|>"), to_id("<|vision_end|>")

    def __len__(self) -> int:
        """Return the number of steps."""
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Build one batch, a function of the seed and the step."""
        rng = random.Random(f"lookup:{self.seed}:{step}")
        encoded, targets = [], []
        for scene in _scenes(f"lookup scenes:{self.seed}:{step}", self.batch_size):
            contents = {item.cell: item.name for item in scene.items}
            asked = [
                int(self.lookups.names[CELL_CLASSES.index(name)]) for name in contents.values()
            ]
            asked += rng.sample(self.lookups.places.tolist(), PLACES_ASKED)
            rng.shuffle(asked)
            image = render(scene)
            visual = [self.encoder.image_token_id] * self.encoder.num_image_tokens(image)
            ids = [self.start, *visual, self.end, *asked]
            encoded.append(Encoded(ids, [IGNORE_INDEX] * len(ids), 0, (image,)))
            targets.append(self.lookups.targets(encoded[-1], contents))
        batch = collate(encoded, self.encoder)
        del batch["labels"]
        self.lookups.add_targets(batch, targets)
        return batch


def lookup_loss(
    model: Any, states: Sequence[torch.Tensor], batch: Batch, lookups: Lookups
) -> tuple[torch.Tensor, float]:
    """Sum three cross-entropies: the place of visual tokens and of names, the content of places.

    Args:
        model: the base.
        states: hidden states (B, T, width), of the embeddings and after each layer.
        batch: with `mm_token_type_ids`, `image_grid_thw`, and what `Lookups.add_targets` adds.
        lookups: the lookups of the model's tokenizer.

    Returns:
        The sum, and the share of names and places that were looked up correctly.
    """
    sizes = batch["image_grid_thw"].prod(-1) // model.config.vision_config.spatial_merge_size**2
    # The tokens of a close-up are in no cell.
    in_scene = (sizes == len(CELLS)).repeat_interleave(sizes)
    visual = states[PLACE_LAYER][batch["mm_token_type_ids"] == 1][in_scene]
    cells = torch.arange(len(visual)) % len(CELLS)
    hidden = states[LOOKUP_LAYER]
    at_name, at_place = batch["find"] != IGNORE_INDEX, batch["look"] != IGNORE_INDEX
    asked = (
        (read_out(model, visual, lookups.places), cells),
        (read_out(model, hidden[at_name], lookups.places), batch["find"][at_name]),
        (read_out(model, hidden[at_place], lookups.names), batch["look"][at_place]),
    )
    losses = [cross_entropy(x, y, reduction="sum") / max(1, len(y)) for x, y in asked]
    right = torch.cat([x.argmax(-1) == y for x, y in asked[1:]])
    return torch.stack(losses).sum(), right.float().mean().item() if len(right) else 1.0


def train_lookup(
    model: Any,
    encoder: Encoder,
    *,
    seed: int,
    steps: int,
    batch_size: int,
    lr: float,
    report: Report,
) -> None:
    """Train the language model to look up names and places among the visual tokens.

    Args:
        model: every weight is trained; lr in one cycle.
        encoder: the encoder of the base's processor.
        seed: seed of scenes and questions.
        steps: optimiser steps.
        batch_size: scenes a step.
        lr: peak learning rate.
        report: called with step, loss and the share of correct lookups.
    """
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=steps, pct_start=0.1
    )
    dataset = LookupBatches(encoder, seed=seed, steps=steps, batch_size=batch_size)
    batches = DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=4)
    for step, batch in enumerate(batches, 1):
        inputs = {
            key: value for key, value in model_inputs(batch).items() if key not in ("find", "look")
        }
        states = model.model(**inputs, output_hidden_states=True).hidden_states
        loss, right = lookup_loss(model, states, batch, dataset.lookups)
        _step(optimizer, parameters, loss)
        schedule.step()
        report(step, loss.item(), right)


def _step(optimizer: Any, parameters: Sequence[nn.Parameter], loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
