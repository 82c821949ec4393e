"""Train the embedded base: the vision tower, lookups and decisions, then the blend.

With the language loss alone, the model would have to learn the content of a visual token, its
position, and the reference of a word to it at the same time, and makes no progress for a thousand
steps. So the phases of vision and lookup train all of this directly, for every cell. Hidden states
are read through the model's own tied embeddings (like a logit lens), so that a cell and its words
get similar directions. Decisions are rows of text whose decided words alone have a loss; some rows
stay in the blend, without which the skill is lost again.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from pixelis.data.encode import IGNORE_INDEX, Encoded, Encoder, collate
from pixelis.data_prep.scenes import CELLS, Cell, render
from pixelis.models.forward import model_inputs
from pixelis.operations.pixels import PALETTE, SHAPES
from recipes.nano.blend import build_lesson, draw_scene
from recipes.nano.decisions import LESSONS, STAGES, build_row

# After two of four layers a visual token must encode its position; after the third, a name or a
# position in the text must encode its referent. The last layer is left for the answer.
PLACE_LAYER, LOOKUP_LAYER = 2, 3
CELL_CLASSES = ("none", "text", "digit", *(f"{c} {s}" for c in PALETTE for s in SHAPES))
PLACES = tuple(f"row {row + 1} column {col + 1}" for row, col in CELLS)
PLACES_ASKED = 12
# Conversations with more tokens are in the second part of a batch.
LONG = 90
BETAS = (0.9, 0.98)
WARMUP_STEPS = 100  # up to the peak of a phase with one cycle of the learning rate

Batch = dict[str, torch.Tensor]
Report = Callable[[int, float, float], None]  # step, loss, share of right answers


@dataclass(frozen=True)
class Recipe:
    """All settings of the training."""

    seed: int = 0
    vision_steps: int = 120
    vision_learning_rate: float = 1e-3
    # The stages of the decisions in text (`decisions.STAGES`).
    comparison_steps: int = 600
    decision_steps: int = 3800
    recall_steps: int = 900
    review_steps: int = 1200
    decision_learning_rate: float = 1e-3
    decision_rows: int = 12  # of each process, as are image_rows and batch_size
    decision_length: int = 128  # tokens of a row; in shorter ones long lists are rare
    lookup_steps: int = 600
    lookup_learning_rate: float = 1.5e-3
    blend_steps: int = 1900
    blend_learning_rate: float = 1.2e-3
    lookup_weight: float = 0.3
    image_rows: int = 6  # rows of decisions behind an image, beside the conversations of a step
    decision_weight: float = 0.5
    batch_size: int = 16
    weight_decay: float = 0.01
    # Processes of one thread each, whose gradients are averaged: threads would wait for each other
    # at every operation.
    num_processes: int = 2


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


def train_vision(model: Any, encoder: Encoder, recipe: Recipe, report: Report) -> None:
    """Train each merged visual token to encode the colour and shape in its cell.

    The vision tower and the embeddings are trained; reported is the share of cells that are right.
    """
    words = class_words(encoder.tokenizer)
    names = word_ids(encoder.tokenizer, CELL_CLASSES)
    everything = torch.arange(len(encoder.tokenizer))
    parameters = [*model.model.visual.parameters(), model.lm_head.weight]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.vision_learning_rate)
    for step in range(recipe.vision_steps):
        scenes = _scenes(f"vision:{recipe.seed}:{_index(step)}", recipe.batch_size)
        cells = [scene.at(cell) for scene in scenes for cell in CELLS]
        classes = torch.tensor([CELL_CLASSES.index(i.name if i else "none") for i in cells])
        inputs = encoder.process_images([render(scene) for scene in scenes])
        grid = inputs["image_grid_thw"]
        tokens = model.model.visual(inputs["pixel_values"], grid_thw=grid).pooler_output
        logits = read_out(model, tokens, everything)
        optimizer.zero_grad()
        loss = cross_entropy(logits, words[classes])
        loss.backward()
        _average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        right = (logits[:, names].argmax(-1) == classes).float().mean()
        report(step + 1, loss.item(), right.item())


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


def behind_image(encoder: Encoder, image: Any, row: tuple[Sequence[int], Sequence[int]]) -> Encoded:
    """Put a row of token ids and labels behind an image, with the tokens that begin and end it."""
    to_id = encoder.tokenizer.convert_tokens_to_ids
    visual = [encoder.image_token_id] * encoder.num_image_tokens(image)
    visual = [to_id("<|vision_start|>"), *visual, to_id("<|vision_end|>")]
    ids, labels = row
    return Encoded([*visual, *ids], [*[IGNORE_INDEX] * len(visual), *labels], 0, (image,))


def build_lookups(encoder: Encoder, recipe: Recipe, lookups: Lookups, step: int) -> Batch:
    """Build a batch for lookups: an image, then the names in it and some places in random order.

    It is a function of the seed and the step, so that any worker can build it.
    """
    rng = random.Random(f"lookup:{recipe.seed}:{step}")
    encoded, targets = [], []
    for scene in _scenes(f"lookup scenes:{recipe.seed}:{step}", recipe.batch_size):
        contents = {item.cell: item.name for item in scene.items}
        asked = [int(lookups.names[CELL_CLASSES.index(name)]) for name in contents.values()]
        asked += rng.sample(lookups.places.tolist(), PLACES_ASKED)
        rng.shuffle(asked)
        no_labels = [IGNORE_INDEX] * len(asked)
        encoded.append(behind_image(encoder, render(scene), (asked, no_labels)))
        targets.append(lookups.targets(encoded[-1], contents))
    batch = collate(encoded, encoder)
    del batch["labels"]
    lookups.add_targets(batch, targets)
    return batch


def build_rows(encoder: Encoder, recipe: Recipe, step: int, stage: str) -> Batch:
    """Build rows of decisions: `input_ids` and `labels`, both (decision_rows, decision_length).

    The stage is a key of STAGES, or "lookup", which has the lessons of the last one.
    """
    lessons = LESSONS if stage == "lookup" else STAGES[stage]
    rng = random.Random(f"{stage}:{recipe.seed}:{step}")
    rows = [
        build_row(rng, encoder.tokenizer, recipe.decision_length, lessons)
        for _ in range(recipe.decision_rows)
    ]
    ids, labels = (torch.tensor(column) for column in zip(*rows, strict=True))
    return {"input_ids": ids, "labels": labels}


def build_image_rows(encoder: Encoder, recipe: Recipe, step: int) -> Batch:
    """Build rows of decisions, each behind a scene that has nothing to do with it."""
    rng = random.Random(f"image decisions:{recipe.seed}:{step}")
    encoded = []
    for scene in _scenes(f"image decisions:{recipe.seed}:{step}", recipe.image_rows):
        row = build_row(rng, encoder.tokenizer, recipe.decision_length, LESSONS)
        encoded.append(behind_image(encoder, render(scene), row))
    return collate(encoded, encoder)


def train_decisions(
    model: Any, encoder: Encoder, recipe: Recipe, report: Report, *, stage: str
) -> None:
    """Train the language model on a stage of decisions in text, a key of STAGES.

    Reported is the share of decided tokens that are right.
    """
    language = model.model.language_model

    def build(step: int) -> Batch:
        return build_rows(encoder, recipe, step, stage)

    def backward(rows: Batch) -> tuple[float, float]:
        embedded = language.embed_tokens(rows["input_ids"])
        hidden = language(inputs_embeds=embedded).last_hidden_state
        loss, right = decision_loss(model, hidden, rows["labels"])
        loss.backward()
        return loss.item(), right

    optimizer = torch.optim.AdamW(
        language.parameters(), lr=recipe.decision_learning_rate, betas=BETAS
    )
    _train(model, build, getattr(recipe, f"{stage}_steps"), optimizer, backward, report)


def decision_loss(
    model: Any, hidden: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Compute mean loss and accuracy of the decided tokens from hidden states (B, T, width)."""
    decided = labels[:, 1:] != IGNORE_INDEX
    logits, targets = model.lm_head(hidden[:, :-1][decided]), labels[:, 1:][decided]
    right = (logits.argmax(-1) == targets).float().mean()
    return cross_entropy(logits, targets), right.item()


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


def train_lookup(model: Any, encoder: Encoder, recipe: Recipe, report: Report) -> None:
    """Train the language model to look up what is among the visual tokens, and to decide.

    Every weight is trained; reported is the share of correct lookups.
    """
    lookups = Lookups(encoder.tokenizer)
    language = model.model.language_model

    def build(step: int) -> tuple[Batch, Batch]:
        rows = build_rows(encoder, recipe, step, "lookup")
        return build_lookups(encoder, recipe, lookups, step), rows

    def backward(parts: tuple[Batch, Batch]) -> tuple[float, float]:
        batch, rows = parts
        embedded = language.embed_tokens(rows["input_ids"])
        hidden = language(inputs_embeds=embedded).last_hidden_state
        decision_loss(model, hidden, rows["labels"])[0].backward()
        states = model.model(**_inputs(batch), output_hidden_states=True).hidden_states
        loss, right = lookup_loss(model, states, batch, lookups)
        loss.backward()
        return loss.item(), right

    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lookup_learning_rate, betas=BETAS)
    _train(model, build, recipe.lookup_steps, optimizer, backward, report)


def build_blend(
    encoder: Encoder, recipe: Recipe, lookups: Lookups, step: int
) -> tuple[list[Batch], Batch]:
    """Build one batch of the blend, a function of the seed and the step.

    Returns:
        Short and long conversations apart (padded together, a third of the tokens would be
        padding; none is repeated), and rows of decisions.
    """
    start = step * recipe.batch_size
    lessons = [build_lesson(recipe.seed, i) for i in range(start, start + recipe.batch_size)]
    encoded = [(encoder.encode(lesson.messages), lesson.contents) for lesson in lessons]
    encoded.sort(key=lambda pair: len(pair[0]))
    cut = sum(len(item) < LONG for item, _ in encoded)
    batches = []
    for part in filter(None, (encoded[:cut], encoded[cut:])):
        batches.append(collate([item for item, _ in part], encoder))
        lookups.add_targets(batches[-1], [lookups.targets(*pair) for pair in part])
    return batches, build_image_rows(encoder, recipe, step)


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
        outputs = model(**_inputs(part), output_hidden_states=True)
        loss = cross_entropy(
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


def train_blend(model: Any, encoder: Encoder, recipe: Recipe, report: Report) -> None:
    """Train all weights on the blend; only matrices decay."""
    lookups = Lookups(encoder.tokenizer)

    def backward(batch: tuple[list[Batch], Batch]) -> tuple[float, float]:
        parts, rows = batch
        hidden = model.model(**_inputs(rows)).last_hidden_state
        decisions, _ = decision_loss(model, hidden, rows["labels"])
        (recipe.decision_weight * decisions).backward()
        return sum_losses(model, lookups, parts, recipe.lookup_weight)

    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}]
    groups.append({"params": plain, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=recipe.blend_learning_rate, betas=BETAS)
    model.train()
    build = partial(build_blend, encoder, recipe, lookups)
    _train(model, build, recipe.blend_steps, optimizer, backward, report)


def _train(
    model: Any,
    build_batch: Callable[[Any], Any],
    steps: int,
    optimizer: torch.optim.Optimizer,
    backward: Callable[[Any], tuple[float, float]],
    report: Report,
) -> None:
    """Train with a one-cycle learning rate and clipping at 1; one worker prepares the batches.

    Each process has batches of its own, and the mean of all gradients.
    """
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=optimizer.defaults["lr"],
        total_steps=steps,
        pct_start=min(0.5, WARMUP_STEPS / steps),
    )
    batches: Iterable[Any] = DataLoader(
        [_index(step) for step in range(steps)],  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=build_batch,
        num_workers=1,
        prefetch_factor=4,
    )
    for step, batch in enumerate(batches, 1):
        optimizer.zero_grad()
        loss, right = backward(batch)
        _average_gradients(model.parameters())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report(step, loss, right)


def _index(step: int) -> int:
    """Return the number of this process's batch at a step; no two processes share one."""
    return step * dist.get_world_size() + dist.get_rank() if dist.is_initialized() else step


def _average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over the processes."""
    if dist.is_initialized():
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = nn.utils.parameters_to_vector(gradients)
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        nn.utils.vector_to_parameters(flat, gradients)


def _inputs(batch: Batch) -> dict[str, Any]:
    return {name: x for name, x in model_inputs(batch).items() if name not in ("find", "look")}
