"""Encoding: chat messages -> token ids, with labels on the assistant's turns, and batches of them.

The chat template is rendered with a sentinel in place of each text, and the texts are tokenised
separately with special tokens switched off. So a question that contains `<|im_start|>` stays text,
and the supervised ids are exactly the assistant's texts and the end of each of its turns.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from pixelis.data.chat import CALL, CALL_OPEN, Message, example_messages
from pixelis.data.coordinates import as_seen, frames_of
from pixelis.data.example import Example
from pixelis.errors import DataError, in_one_line

IGNORE_INDEX = -100
# Rendered templates in the cache; there are about as many as different trajectory lengths.
MAX_RENDERED = 1000
# Private-use characters: they are in no special token, and the data may not have them.
_OPEN, _CLOSE = "\ue000", "\ue001"
OPERATION = 1
# Batches of known positions are padded to a multiple of this: on a CPU, oneDNN keeps code and
# memory for every shape. With 16 a training takes a fifth less memory, in the same time.
PAD_TO = 16
_SENTINEL = re.compile(f"{_OPEN}(\\d+){_CLOSE}")


class RefusedImageError(DataError):
    """An image that the model's processor refuses, for its shape or its size."""


@dataclass(frozen=True)
class Encoded:
    """One conversation as model inputs (before padding)."""

    input_ids: Sequence[int]  # list of length T
    labels: Sequence[int]  # list of length T; IGNORE_INDEX where no loss is taken
    answer_start: int  # index of the first token of the last supervised turn
    # One for each run of image tokens, in order; empty where `features` is given.
    images: tuple[Image.Image, ...]
    # List of length T; OPERATION on the tokens of a supervised call, else 0.
    kinds: Sequence[int] = ()
    positions: torch.Tensor | None = None  # (3, T) M-RoPE positions, or None if they are not cached
    # (visual tokens, hidden size), the vision tower's output, or None if not cached.
    features: torch.Tensor | None = None

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.input_ids)


class Encoder:
    """Encodes conversations with one processor."""

    def __init__(self, processor: Any, max_length: int | None = None) -> None:
        """Take a processor with a tokenizer, an image processor and a chat template."""
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_processor = processor.image_processor
        self.max_length = max_length
        self.image_token_id: int = processor.image_token_id
        self.end_of_turn_id: int = self.tokenizer.eos_token_id
        self._grids: dict[tuple[int, int], list[int]] = {}
        self._rendered: dict[str, str] = {}
        # Tokens of the template's own text between the messages' texts.
        self._pieces: dict[str, list[int]] = {}

    def process_images(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """Return the vision tower's inputs: `pixel_values`, and `image_grid_thw` (N, 3)."""
        rgb = [image.convert("RGB") for image in images]
        return dict(self.image_processor(images=rgb, return_tensors="pt"))

    def image_grid(self, image: Image.Image) -> list[int]:
        """Return the number of the image's patches: frames, rows, columns.

        It depends only on the size, so it is computed from a blank image, once per size.

        Raises:
            RefusedImageError: when the processor refuses it.
        """
        if image.size not in self._grids:
            with _convert_refusal(image):
                inputs = self.process_images([Image.new("RGB", image.size)])
                self._grids[image.size] = inputs["image_grid_thw"][0].tolist()
        return self._grids[image.size]

    def seen_size(self, image: Image.Image) -> tuple[int, int]:
        """Return the width and height to which the processor resizes the image."""
        _, rows, columns = self.image_grid(image)
        side = int(self.image_processor.patch_size)
        return columns * side, rows * side

    def num_image_tokens(self, image: Image.Image) -> int:
        """Return the number of the image's visual tokens, by the processor's own resizing rule.

        Raises:
            RefusedImageError: when the processor refuses it.
        """
        width, height = image.size
        with _convert_refusal(image):
            patches = self.image_processor.get_number_of_image_patches(height, width, {})
        return int(patches) // int(self.image_processor.merge_size) ** 2

    def encode(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = False
    ) -> Encoded:
        """Encode a conversation.

        Raises:
            DataError: when it is longer than `max_length`, or a text holds a private-use sentinel.
            RefusedImageError: when the processor refuses an image.
        """
        texts: list[tuple[str, bool]] = []
        chat = []
        for message in messages:
            content = []
            for part in message.parts:
                if not isinstance(part, str):
                    content.append({"type": "image"})
                    continue
                if _OPEN in part or _CLOSE in part:
                    raise DataError(f"a text may not hold U+E000 or U+E001, got {part!r:.60}")
                content.append({"type": "text", "text": f"{_OPEN}{len(texts)}{_CLOSE}"})
                texts.append((part, message.supervised))
            chat.append({"role": message.role, "content": content})
        rendered = self._render(chat, add_generation_prompt)
        images = tuple(image for message in messages for image in message.images)
        return self._assemble(rendered, texts, images)

    def _render(self, chat: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        # With sentinels for texts, most conversations have the same rendering, which is cached.
        key = json.dumps([chat, add_generation_prompt])
        if key not in self._rendered:
            if len(self._rendered) >= MAX_RENDERED:
                self._rendered.clear()
                self._pieces.clear()
            self._rendered[key] = self.processor.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        return self._rendered[key]

    def _assemble(
        self, rendered: str, texts: list[tuple[str, bool]], images: tuple[Image.Image, ...]
    ) -> Encoded:
        counts = iter([self.num_image_tokens(image) for image in images])
        ids: list[int] = []
        labels: list[int] = []
        kinds: list[int] = []
        answer_start = 0
        open_turn = False
        for position, piece in enumerate(_SENTINEL.split(rendered)):
            if position % 2:
                text, supervised = texts[int(piece)]
                tokens = self._tokenize(text, special=False)
                if supervised and not open_turn:
                    answer_start = len(ids)
                open_turn = supervised
                ids += tokens
                labels += tokens if supervised else [IGNORE_INDEX] * len(tokens)
                has_call = supervised and CALL_OPEN in text
                kinds += self._call_kinds(text) if has_call else [0] * len(tokens)
                continue
            if piece not in self._pieces:
                self._pieces[piece] = self._tokenize(piece, special=True)
            for token in self._pieces[piece]:
                repeat = next(counts) if token == self.image_token_id else 1
                closes = open_turn and token == self.end_of_turn_id
                ids += [token] * repeat
                labels += [token if closes else IGNORE_INDEX] * repeat
                kinds += [0] * repeat
                open_turn = open_turn and not closes
        if next(counts, None) is not None:
            raise DataError("the chat template rendered fewer images than the messages hold")
        if self.max_length is not None and len(ids) > self.max_length:
            raise DataError(f"{len(ids)} tokens, more than max_length {self.max_length}")
        return Encoded(ids, labels, answer_start, images, kinds)

    def _call_kinds(self, text: str) -> list[int]:
        """Return OPERATION for each token of the text that is inside a call, 0 for the others."""
        encoded = self.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
        )
        spans = [match.span(1) for match in CALL.finditer(text)]
        return [
            OPERATION if any(start < high and low < end for low, high in spans) else 0
            for start, end in encoded["offset_mapping"]
        ]

    def _tokenize(self, text: str, *, special: bool) -> list[int]:
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=not special)
        return list(encoded["input_ids"])


def encode_example(example: Example, encoder: Encoder) -> Encoded:
    """Encode the complete conversation of an example in seen pixels.

    Raises:
        DataError: as `Encoder.encode`, with the example's id.
    """
    with naming_example(example):
        frames = frames_of(example.images, encoder.seen_size)
        return encoder.encode(example_messages(as_seen(example, frames)))


@contextmanager
def naming_example(example: Example) -> Iterator[None]:
    """Put an example's id before the text of a DataError."""
    try:
        yield
    except DataError as error:
        raise type(error)(f"example {example.id}: {error}") from error


@contextmanager
def _convert_refusal(image: Image.Image) -> Iterator[None]:
    """Convert the errors of processors, which are of many types, into RefusedImageError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        why = in_one_line(error) or type(error).__name__
        width, height = image.size
        raise RefusedImageError(
            f"the model's processor refuses an image of {width} x {height} pixels: {why}"
        ) from error


def collate(encoded: Sequence[Encoded], encoder: Encoder) -> dict[str, torch.Tensor]:
    """Pad a batch on the right and process its images.

    Returns:
        `input_ids`, `attention_mask`, `labels`, `kinds` and `mm_token_type_ids` of shape (B, T);
        `position_ids` (3, B, T), if all positions are known; for a batch with images either
        `image_features` (visual tokens, hidden size), if they are known, or `pixel_values`
        (patches, values of a patch) and `image_grid_thw` (N, 3).
    """
    num_tokens = max(len(item) for item in encoded)
    positions = [item.positions for item in encoded if item.positions is not None]
    has_positions = len(positions) == len(encoded)
    if has_positions:
        num_tokens = -(-num_tokens // PAD_TO) * PAD_TO

    def padded(rows: Sequence[Any], value: int) -> torch.Tensor:
        filled = torch.full((len(rows), num_tokens), value, dtype=torch.long)
        for row, values in enumerate(rows):
            filled[row, : len(values)] = torch.as_tensor(values)
        return filled

    input_ids = padded([item.input_ids for item in encoded], encoder.tokenizer.pad_token_id)
    batch = {
        "input_ids": input_ids,
        "attention_mask": padded([torch.ones(len(item), dtype=torch.long) for item in encoded], 0),
        "labels": padded([item.labels for item in encoded], IGNORE_INDEX),
        "kinds": padded([item.kinds for item in encoded], 0),
        # Without these the model falls back to one-dimensional positions without a warning.
        "mm_token_type_ids": (input_ids == encoder.image_token_id).long(),
    }
    if has_positions:
        batch["position_ids"] = torch.ones((3, *input_ids.shape), dtype=torch.long)
        for row, known in enumerate(positions):
            batch["position_ids"][:, row, : known.shape[1]] = known
    images = [image for item in encoded for image in item.images]
    features = [item.features for item in encoded if item.features is not None]
    if features:
        batch["image_features"] = torch.cat(features)
    elif images:
        batch |= encoder.process_images(images)
    return batch
