"""Batched decoding of many conversations with one key and value cache that is kept across turns.

Each conversation has a slot of its own length. Therefore one can be prefilled while others
generate, and a finished one frees its slot at once: iteration-level scheduling (Yu et al. 2022,
"Orca", section 3). The model computes each token once, and the common prefix of all prompts once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from transformers import Cache

from pixelis.data.encode import Encoder
from pixelis.errors import CheckpointError

# Tokens of one prefill pass with padding. More tokens are not faster, and much slower if they do
# not fit into a processor's cache.
MAX_PREFILL_TOKENS = 2048
# The cache's length grows by this many columns.
COLUMNS = 128


@dataclass(frozen=True)
class GeneratedTurn:
    """The tokens of one turn in the conversation of a slot, without the one that ends it."""

    slot: int
    tokens: tuple[int, ...]
    ended: bool  # by the model, and not by the token limit


@dataclass
class _Slot:
    """The state of one conversation."""

    length: int = 0  # filled columns of the cache
    position: int = 0  # of the next token in the model (M-RoPE)
    pending: list[int] = field(default_factory=list)  # prefilled before the model's next turn
    images: list[Image.Image] = field(default_factory=list)  # of the pending tokens
    generated: list[int] = field(default_factory=list)  # the last one is not in the cache yet
    turn_end: list[int] = field(default_factory=list)  # prefilled together with the next tokens
    generating: bool = False
    generator: torch.Generator | None = None  # None: the most likely tokens


def choose_tokens(
    logits: torch.Tensor,
    *,
    temperature: float,
    generators: Sequence[torch.Generator | None],
) -> list[int]:
    """Choose the next token of every row.

    At a temperature of 0 this is the most likely one. Otherwise it is drawn from softmax(logits /
    temperature) by inverting the distribution function at one uniform number of the row's own
    generator. Therefore a conversation's tokens do not depend on others in the batch, unless the
    number is within rounding (about 1e-6 of the probability) of the border between two tokens.
    Logits are (n, V); the generator is None for a row whose token is not used.
    """
    if temperature == 0:
        return list(logits.argmax(-1).tolist())
    drawn = [
        0.0 if g is None else torch.rand((), generator=g, dtype=torch.float64).item()
        for g in generators
    ]
    # Double precision, because a sum over 150,000 tokens rounds too much in single precision.
    heights = torch.tensor(drawn, dtype=torch.float64).to(logits.device)
    reached = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
    chosen = torch.searchsorted(reached, heights[:, None] * reached[:, -1:], right=True)
    return list(chosen.clamp(max=logits.shape[-1] - 1).squeeze(1).tolist())


class SlotCache(Cache):
    """Keys and values of several conversations, each with its own length.

    A slot's tokens are in columns 0 to length - 1. Later columns hold padding, which the mask hides
    and the next tokens overwrite.
    """

    def __init__(self, num_slots: int) -> None:
        """Create an empty cache; the first forward pass allocates its tensors."""
        super().__init__(layers=[])
        self.num_slots = num_slots
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []

    def select(self, slots: torch.Tensor, columns: torch.Tensor) -> None:
        """Set where the next forward pass writes: slots (n,), ascending, and columns (n, Q)."""
        self._rows = slots
        self._target = slots[:, None], columns
        self._end = int(columns.max()) + 1
        first, last = int(slots[0]), int(slots[-1])
        # Adjacent rows are read in place; others are copied together.
        self._side_by_side = slice(first, last + 1) if last - first + 1 == len(slots) else None

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store a layer's new states (n, heads, Q, width) and return all states of these slots."""
        return (
            self._store(self._keys, key_states, layer_idx),
            self._store(self._values, value_states, layer_idx),
        )

    def _store(self, layers: list[torch.Tensor], new: torch.Tensor, layer: int) -> torch.Tensor:
        if layer == len(layers):
            layers.append(new.new_zeros(self.num_slots, new.shape[1], 0, new.shape[3]))
        kept = layers[layer]
        if kept.shape[2] < self._end:
            # Zeros, because a masked NaN would still make the sum over the columns NaN.
            missing = -(-(self._end - kept.shape[2]) // COLUMNS) * COLUMNS
            grown = kept.new_zeros(*kept.shape[:2], missing, kept.shape[3])
            kept = layers[layer] = torch.cat([kept, grown], dim=2)
        slots, columns = self._target
        kept[slots, :, columns] = new.transpose(1, 2)
        if self._side_by_side is not None:
            return kept[self._side_by_side, :, : self._end]
        return kept[self._rows, :, : self._end]

    def copy_states(self, slot: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Copy a slot's first columns: keys and values (heads, length, width) by layer."""
        return [
            (keys[slot, :, :length].clone(), values[slot, :, :length].clone())
            for keys, values in zip(self._keys, self._values, strict=True)
        ]

    def write_states(self, slot: int, states: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Write copied states to the first columns of a slot."""
        for kept, new in zip(self._keys, (keys for keys, _ in states), strict=True):
            kept[slot, :, : new.shape[1]] = new
        for kept, new in zip(self._values, (values for _, values in states), strict=True):
            kept[slot, :, : new.shape[1]] = new


class Decoder:
    """A generator of the model's turns in several conversations: `append` a prompt, `generate`.

    Image tokens are never generated, because they would stand for images that do not exist. The
    result is equal to decoding each conversation alone, up to the rounding of sums of different
    shapes: in fp32 the tokens agree unless two are tied to about six digits.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        *,
        num_slots: int,
        max_new_tokens: int,
        temperature: float = 0.0,
        prefix: Sequence[int] = (),
    ) -> None:
        """Create `num_slots` empty conversations of a model that is in evaluation mode.

        Args:
            model: a model of the Qwen2-VL family, plain or with an adapter.
            encoder: encoder with the model's processor.
            num_slots: number of conversations in the batch.
            max_new_tokens: limit of one turn.
            temperature: see `choose_tokens`.
            prefix: text tokens with which conversations begin, computed once.

        Raises:
            CheckpointError: when the model has no three-dimensional positions (M-RoPE).
        """
        core = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._rope_index = getattr(getattr(core, "model", None), "get_rope_index", None)
        if self._rope_index is None:
            raise CheckpointError(
                "rollouts need a model of the Qwen2-VL family (with get_rope_index), "
                f"got {type(core).__name__}"
            )
        self.model = model
        self.encoder = encoder
        self.max_new_tokens = max_new_tokens
        self._device = next(model.parameters()).device
        self._dtype = core.get_input_embeddings().weight.dtype
        self._stops = {encoder.end_of_turn_id, encoder.tokenizer.pad_token_id}
        self._slots = [_Slot() for _ in range(num_slots)]
        self._cache = SlotCache(num_slots)
        self._temperature = temperature
        self._prefix = list(prefix)
        self._prefix_states: list[tuple[torch.Tensor, torch.Tensor]] = []

    def reset(self, slot: int, seed: int = 0) -> None:
        """Clear a slot for a new conversation; its tokens are drawn with this seed."""
        generator = torch.Generator().manual_seed(seed) if self._temperature else None
        self._slots[slot] = _Slot(generator=generator)

    def append(self, slot: int, tokens: Sequence[int], images: Sequence[Image.Image]) -> None:
        """Append tokens and their images to a conversation before the model's next turn."""
        state = self._slots[slot]
        if state.length == 0 and self._has_prefix(tokens):
            self._restore_prefix(slot)
            tokens = tokens[len(self._prefix) :]
        state.pending += [*state.turn_end, *tokens]
        state.turn_end = []
        state.images += images

    @torch.inference_mode()
    def generate(self) -> list[GeneratedTurn]:
        """Generate in all conversations with pending tokens until at least one turn is finished.

        Returns:
            The finished turns in the order of slots; empty without pending tokens.
        """
        while True:
            pending = [slot for slot, state in enumerate(self._slots) if state.pending]
            generating = [slot for slot, state in enumerate(self._slots) if state.generating]
            if pending and (not generating or len(pending) > len(self._slots) // 4):
                active = self._prefill(pending)
            elif generating:
                self._generate_token(active := generating)
            else:
                return []
            finished = [turn for slot in active if (turn := self._finish(slot)) is not None]
            if finished:
                return finished

    def _has_prefix(self, tokens: Sequence[int]) -> bool:
        length = len(self._prefix)
        return 0 < length < len(tokens) and list(tokens[:length]) == self._prefix

    @torch.inference_mode()
    def _restore_prefix(self, slot: int) -> None:
        """Fill an empty slot with the states of the common prefix."""
        state = self._slots[slot]
        if self._prefix_states:
            self._cache.write_states(slot, self._prefix_states)
        else:
            self._forward([slot], [self._prefix], [])
            self._prefix_states = self._cache.copy_states(slot, len(self._prefix))
        state.length = state.position = len(self._prefix)

    def _generate_token(self, generating: list[int]) -> None:
        """Generate one more token in every slot that is generating.

        The cache's rows are used in place. If only a few rows in between are idle, they are
        computed too and ignored, which costs less than copying the other rows together.
        """
        rows = list(range(generating[0], generating[-1] + 1))
        if 2 * len(rows) > 3 * len(generating):
            rows = generating
        states = [self._slots[slot] for slot in rows]
        last = [state.generated[-1:] if state.generating else [0] for state in states]
        self._forward(rows, last, [])

    def _prefill(self, pending: list[int]) -> list[int]:
        """Compute the longest pending prompts of similar lengths in one pass."""
        ranked = sorted(pending, key=lambda slot: (-len(self._slots[slot].pending), slot))
        longest = len(self._slots[ranked[0]].pending)
        ranked = ranked[: max(1, MAX_PREFILL_TOKENS // longest)]
        chosen = sorted(s for s in ranked if 4 * len(self._slots[s].pending) >= 3 * longest)
        states = [self._slots[slot] for slot in chosen]
        tokens = [state.pending for state in states]
        images = [image for state in states for image in state.images]
        for state in states:
            state.pending, state.images, state.generated, state.generating = [], [], [], True
        self._forward(chosen, tokens, images)
        return chosen

    def _forward(
        self, slots: list[int], tokens: list[list[int]], images: list[Image.Image]
    ) -> None:
        """Compute new tokens of slots, padded on the right, and choose the next ones."""
        states = [self._slots[slot] for slot in slots]
        lengths = torch.tensor([len(row) for row in tokens])
        starts = torch.tensor([state.length for state in states])
        steps = torch.arange(int(lengths.max()))
        input_ids = torch.zeros(len(slots), len(steps), dtype=torch.long)
        for row, new in enumerate(tokens):
            input_ids[row, : len(new)] = torch.tensor(new)
        columns = starts[:, None] + steps
        pixels: dict[str, torch.Tensor] = {}
        if images:
            rgb = [image.convert("RGB") for image in images]
            pixels = dict(self.encoder.image_processor(images=rgb, return_tensors="pt"))
        if len(steps) == 1 and not images:
            positions, advance = torch.zeros(3, len(slots), 1, dtype=torch.long), lengths
        else:
            positions, advance = self._positions(input_ids, lengths, pixels.get("image_grid_thw"))
        positions = positions + torch.tensor([state.position for state in states])[:, None]
        hidden = torch.arange(int(columns.max()) + 1) > columns[:, None, :, None]
        mask = torch.zeros(hidden.shape, dtype=self._dtype)
        mask.masked_fill_(hidden, torch.finfo(self._dtype).min)
        self._cache.select(torch.tensor(slots).to(self._device), columns.to(self._device))
        logits = self.model(
            input_ids=input_ids.to(self._device),
            attention_mask=mask.to(self._device),
            position_ids=positions.to(self._device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=(lengths - 1)[:, None].to(self._device),
            **{name: value.to(self._device) for name, value in pixels.items()},
        ).logits[:, 0]
        logits[:, self.encoder.image_token_id] = -torch.inf
        chosen = choose_tokens(
            logits,
            temperature=self._temperature,
            generators=[state.generator if state.generating else None for state in states],
        )
        for state, num, step, token in zip(
            states, lengths.tolist(), advance.tolist(), chosen, strict=True
        ):
            if state.generating:
                state.length += num
                state.position += step
                state.generated.append(token)

    def _positions(
        self, input_ids: torch.Tensor, lengths: torch.Tensor, grids: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return positions (3, n, Q) of new tokens from 0, and the number of positions (n,).

        The positions of a later part of a conversation are those of the part alone, shifted by the
        end of the earlier part, because `get_rope_index` continues after an image in the same way.
        """
        assert self._rope_index is not None
        positions, delta = self._rope_index(
            input_ids,
            mm_token_type_ids=(input_ids == self.encoder.image_token_id).long(),
            image_grid_thw=grids,
            attention_mask=(torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
        )
        return positions, lengths + delta[:, 0]

    def _finish(self, slot: int) -> GeneratedTurn | None:
        """Return a slot's turn if its last token ends it."""
        state = self._slots[slot]
        ended = state.generated[-1] in self._stops
        if not ended and len(state.generated) < self.max_new_tokens:
            return None
        state.generating = False
        tokens = state.generated[:-1] if ended else state.generated
        # A turn that was cut off is closed too; otherwise the next one would continue it.
        state.turn_end = [*([] if ended else tokens[-1:]), self.encoder.end_of_turn_id]
        return GeneratedTurn(slot, tuple(tokens), ended)
