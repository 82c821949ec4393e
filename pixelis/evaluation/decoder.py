"""Decoding of many conversations side by side, over one cache that is kept across turns.

Each conversation has a slot with its own length, so that one can listen while others speak, and a
finished one gives its place away at once: the idea of iteration-level scheduling (Yu et al. 2022,
"Orca", section 3). Only new tokens are ever fed to the model, and what all conversations begin with
only once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from pixelis.data.encode import Encoder
from pixelis.errors import CheckpointError
from pixelis.evaluation.sampling import choose_tokens
from pixelis.evaluation.slot_cache import SlotCache

# Tokens, padding included, that are listened to in one pass. More is no faster on any device that
# these fill, and much slower where they leave a processor's cache.
MAX_HEARD = 2048


@dataclass(frozen=True)
class Utterance:
    """One turn as the model said it.

    Attributes:
        slot: which conversation.
        tokens: what was said, without the token that ends the turn.
        ended: whether the model ended its turn; False where the token limit did.
    """

    slot: int
    tokens: tuple[int, ...]
    ended: bool


@dataclass
class _Slot:
    """One conversation: what the cache holds of it, what it is to hear, what it says.

    Attributes:
        length: columns of the cache that are filled.
        position: of the next token, in the model's own count.
        unheard: tokens to feed before the model's next turn, and their images.
        said: the tokens of the model's current turn; the last is not in the cache yet.
        unfed: the end of a finished turn, fed together with what comes next.
        speaking: whether the model is in the middle of its turn.
        generator: what its tokens are drawn with, where they are drawn.
    """

    length: int = 0
    position: int = 0
    unheard: list[int] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    said: list[int] = field(default_factory=list)
    unfed: list[int] = field(default_factory=list)
    speaking: bool = False
    generator: torch.Generator | None = None


class Decoder:
    """The model as a speaker in several conversations: `hear` what others say, then `speak`.

    The most likely token is taken each time, or one is drawn (`pixelis.evaluation.sampling`). Image
    tokens are never said: they would stand for images that are not there. Equal up to the rounding
    of sums of different shapes to decoding each conversation alone, so in fp32 the tokens agree
    unless two are tied to about six digits.
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
        """Open `num_slots` empty conversations; the model must be in evaluation mode.

        Args:
            model: of the Qwen2-VL family, plain or with an adapter.
            encoder: of the model's processor.
            num_slots: conversations side by side.
            max_new_tokens: tokens that the model may say in one turn.
            temperature: 0: the most likely token; else tokens are drawn.
            prefix: text tokens with which conversations begin; fed to the model once.

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

    def clear(self, slot: int, seed: int = 0) -> None:
        """Forget a slot's conversation, so that another can begin there, with its own seed."""
        generator = torch.Generator().manual_seed(seed) if self._temperature else None
        self._slots[slot] = _Slot(generator=generator)

    def hear(self, slot: int, tokens: Sequence[int], images: Sequence[Image.Image]) -> None:
        """Tell a slot what comes before the model's next turn there."""
        state = self._slots[slot]
        if state.length == 0 and self._begins_as_all(tokens):
            self._recall_prefix(slot)
            tokens = tokens[len(self._prefix) :]
        state.unheard += [*state.unfed, *tokens]
        state.unfed = []
        state.images += images

    @torch.inference_mode()
    def speak(self) -> list[Utterance]:
        """Let all that have heard something speak, until at least one turn is over.

        Returns:
            the turns that are over, by slot; empty when nobody has anything to answer to.
        """
        while True:
            waiting = [slot for slot, state in enumerate(self._slots) if state.unheard]
            speaking = [slot for slot, state in enumerate(self._slots) if state.speaking]
            if waiting and (not speaking or len(waiting) > len(self._slots) // 4):
                active = self._listen(waiting)
            elif speaking:
                self._continue(active := speaking)
            else:
                return []
            over = [u for slot in active if (u := self._finish(slot)) is not None]
            if over:
                return over

    def _begins_as_all(self, tokens: Sequence[int]) -> bool:
        length = len(self._prefix)
        return 0 < length < len(tokens) and list(tokens[:length]) == self._prefix

    @torch.inference_mode()
    def _recall_prefix(self, slot: int) -> None:
        """Put the cache and the positions of a slot where the common beginning ends."""
        state = self._slots[slot]
        if self._prefix_states:
            self._cache.put(slot, self._prefix_states)
        else:
            self._forward([slot], [self._prefix], [])
            self._prefix_states = self._cache.take(slot, len(self._prefix))
        state.length = state.position = len(self._prefix)

    def _continue(self, speaking: list[int]) -> None:
        """Let all that speak say one more token.

        The cache's rows are used where they are. Where only some in between are silent, these are
        computed as well and forgotten, which costs less than to copy all the others together.
        """
        rows = list(range(speaking[0], speaking[-1] + 1))
        if 2 * len(rows) > 3 * len(speaking):
            rows = speaking
        states = [self._slots[slot] for slot in rows]
        last = [state.said[-1:] if state.speaking else [0] for state in states]
        self._forward(rows, last, [])

    def _listen(self, waiting: list[int]) -> list[int]:
        """Feed what was heard, in one pass of similar lengths, the longest first."""
        ranked = sorted(waiting, key=lambda slot: (-len(self._slots[slot].unheard), slot))
        longest = len(self._slots[ranked[0]].unheard)
        ranked = ranked[: max(1, MAX_HEARD // longest)]
        chosen = sorted(s for s in ranked if 4 * len(self._slots[s].unheard) >= 3 * longest)
        states = [self._slots[slot] for slot in chosen]
        tokens = [state.unheard for state in states]
        images = [image for state in states for image in state.images]
        for state in states:
            state.unheard, state.images, state.said, state.speaking = [], [], [], True
        self._forward(chosen, tokens, images)
        return chosen

    def _forward(
        self, slots: list[int], tokens: list[list[int]], images: list[Image.Image]
    ) -> None:
        """Feed new tokens to slots (padded on the right); those that speak say their next token."""
        states = [self._slots[slot] for slot in slots]
        lengths = torch.tensor([len(row) for row in tokens])
        starts = torch.tensor([state.length for state in states])
        steps = torch.arange(int(lengths.max()))
        input_ids = torch.zeros(len(slots), len(steps), dtype=torch.long)
        for row, new in enumerate(tokens):
            input_ids[row, : len(new)] = torch.tensor(new)
        columns = starts[:, None] + steps
        pixels = self._pixels(images)
        if len(steps) == 1 and not images:
            positions, advance = torch.zeros(3, len(slots), 1, dtype=torch.long), lengths
        else:
            positions, advance = self._positions(input_ids, lengths, pixels.get("image_grid_thw"))
        positions = positions + torch.tensor([state.position for state in states])[:, None]
        hidden = torch.arange(int(columns.max()) + 1) > columns[:, None, :, None]
        mask = torch.zeros(hidden.shape, dtype=self._dtype)
        mask.masked_fill_(hidden, torch.finfo(self._dtype).min)
        self._cache.aim(torch.tensor(slots).to(self._device), columns.to(self._device))
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
        said = choose_tokens(
            logits,
            temperature=self._temperature,
            generators=[state.generator if state.speaking else None for state in states],
        )
        for state, num, step, token in zip(
            states, lengths.tolist(), advance.tolist(), said, strict=True
        ):
            if state.speaking:
                state.length += num
                state.position += step
                state.said.append(token)

    def _pixels(self, images: list[Image.Image]) -> dict[str, torch.Tensor]:
        if not images:
            return {}
        rgb = [image.convert("RGB") for image in images]
        return dict(self.encoder.image_processor(images=rgb, return_tensors="pt"))

    def _positions(
        self, input_ids: torch.Tensor, lengths: torch.Tensor, grids: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions (3, n, Q) of new tokens counted from their first, and how far they reach (n,).

        Positions of a conversation's later part are those of the part alone, shifted by where the
        earlier part ended: `get_rope_index` counts on from image to text in the same way.
        """
        assert self._rope_index is not None
        positions, delta = self._rope_index(
            input_ids,
            mm_token_type_ids=(input_ids == self.encoder.image_token_id).long(),
            image_grid_thw=grids,
            attention_mask=(torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
        )
        return positions, lengths + delta[:, 0]

    def _finish(self, slot: int) -> Utterance | None:
        """The turn, when its last token ends it."""
        state = self._slots[slot]
        ended = state.said[-1] in self._stops
        if not ended and len(state.said) < self.max_new_tokens:
            return None
        state.speaking = False
        said = state.said[:-1] if ended else state.said
        # A turn that was cut off is closed as well; else the next one would run on in it.
        state.unfed = [*([] if ended else said[-1:]), self.encoder.end_of_turn_id]
        return Utterance(slot, tuple(said), ended)
