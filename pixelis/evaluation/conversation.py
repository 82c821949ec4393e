"""The conversation of one rollout: its prompt, the parsing of turns, the responses to calls."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image

from pixelis.data.chat import (
    CALL_OPEN,
    Message,
    Reply,
    format_step,
    parse_reply,
    prompt_messages,
    response_message,
)
from pixelis.data.coordinates import (
    all_same,
    as_seen,
    call_as_stored,
    frames_of,
    text_as_seen,
    values_as_seen,
)
from pixelis.data.encode import Encoded, Encoder
from pixelis.data.example import Example, Step
from pixelis.errors import DataError
from pixelis.evaluation.decoder import GeneratedTurn
from pixelis.evaluation.turns import (
    ANSWER,
    CALL,
    CUT_OFF,
    ERROR,
    MALFORMED_CALL,
    NO_CALL,
    REPEATED_CALL,
    Turn,
)
from pixelis.operations import FAILED_OPERATION, Observation, OperationError, execute


@dataclass(frozen=True)
class Conversation:
    """The start of one rollout.

    Attributes:
        example: only its question, images, id and planted wrong step are read.
        sample: index of the rollout among those of its example; each draws different tokens.
        planted: whether the rollout starts after the planted wrong step of the trajectory.
    """

    example: Example
    sample: int = 0
    planted: bool = False

    def seed(self, seed: int) -> int:
        """Return the seed for drawing tokens: 63 bits of SHA-256 of seed, example and sample."""
        example_id = f"{self.example.id}:planted" if self.planted else self.example.id
        name = f"rollout:{seed}:{example_id}:{self.sample}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def planted_steps(example: Example) -> tuple[Step, ...]:
    """Return the trajectory up to and including its planted wrong step; empty without one."""
    planted = [i for i, step in enumerate(example.trajectory) if not step.supervised]
    return example.trajectory[: planted[0] + 1] if planted else ()


@lru_cache(maxsize=4)
def shared_prefix(encoder: Encoder) -> tuple[int, ...]:
    """Return the tokens with which every prompt starts, independent of question and images."""
    first, second = (
        encoder.encode(prompt_messages(question, ()), add_generation_prompt=True).input_ids
        for question in ("a", "1")
    )
    same = [a == b for a, b in zip(first, second, strict=False)]
    return tuple(first[: same.index(False)]) if False in same else ()


@lru_cache(maxsize=4)
def _before_response(encoder: Encoder) -> tuple[tuple[Message, ...], int]:
    """Return a conversation up to an assistant's turn, and its tokens up to that turn's end."""
    messages = (*prompt_messages("", ()), Message("assistant", ("",)))
    ids = encoder.encode(messages).input_ids
    # The template writes the same tokens before a response, whatever the assistant's turn holds.
    return messages, len(ids) - ids[::-1].index(encoder.end_of_turn_id)


def encode_response(encoder: Encoder, response: Message) -> Encoded:
    """Encode the tokens between the end of one assistant's turn and the start of the next."""
    messages, start = _before_response(encoder)
    whole = encoder.encode([*messages, response], add_generation_prompt=True)
    return Encoded(whole.input_ids[start:], whole.labels[start:], 0, whole.images)


def encode_prompt(encoder: Encoder, conversation: Conversation) -> Encoded:
    """Encode the messages before the model's first turn.

    Raises:
        DataError: when they cannot be encoded, naming the example.
    """
    example = conversation.example
    example = as_seen(example, frames_of(example.images, encoder.seen_size))
    messages = prompt_messages(example.question, example.images)
    for step in planted_steps(example) if conversation.planted else ():
        text = format_step(step.thought, step.operation, step.arguments)
        messages += [Message("assistant", (text,)), response_message(step.result, step.image)]
    try:
        return encoder.encode(messages, add_generation_prompt=True)
    except DataError as error:
        raise DataError(f"example {example.id}: {error}") from error


def process_turn(
    encoder: Encoder,
    generated: GeneratedTurn,
    images: Sequence[Image.Image],
    earlier: Sequence[Turn],
    *,
    limit: bool,
    seconds: float = 0.0,
) -> Turn:
    """Parse a generated turn and run its call, unless the `limit` of operations is reached.

    The model's coordinates are pixels of the resized image; the operation runs on the stored one.
    `seconds` is the duration of the generation.
    """
    text = encoder.tokenizer.decode(list(generated.tokens), clean_up_tokenization_spaces=False)
    reply = parse_reply(text)
    kind = ERROR if reply.error else CALL if reply.answer is None else ANSWER
    frames = frames_of(images, encoder.seen_size)
    observation, stored = None, reply.arguments
    began = time.perf_counter()
    try:
        stored = call_as_stored(reply.operation, reply.arguments, frames)
    except OperationError as error:  # in pixels of the resized image
        if not limit:
            observation = Observation({"error": str(error)}, problem=error.problem)
    else:
        if not limit and kind != ANSWER:
            observation = _observe(encoder, replace(reply, arguments=stored), images)
    operation_seconds = time.perf_counter() - began if observation is not None else 0.0
    resized_result = None
    if observation is not None and stored is not reply.arguments:
        result = values_as_seen(observation.result, stored, frames)
        resized_result = None if result == observation.result else result
    answer = reply.answer
    if answer is not None and not all_same(frames):
        answer = text_as_seen(answer, frames[0].inverse)
    turn = Turn(
        text=text,
        kind=kind,
        operation=reply.operation,
        arguments=stored,
        answer=answer,
        result=observation.result if observation else None,
        image=observation.image if observation else None,
        num_new_tokens=len(generated.tokens),
        ended=generated.ended,
        resized_result=resized_result,
        seconds=seconds,
        operation_seconds=operation_seconds if kind == CALL else 0.0,
    )
    return replace(turn, failure=_failure(turn, earlier, observation))


def _failure(turn: Turn, earlier: Sequence[Turn], observation: Observation | None) -> str:
    """Return how a turn failed (`Turn.failure`)."""
    if turn.kind == ERROR:
        if not turn.ended:
            return CUT_OFF
        return MALFORMED_CALL if CALL_OPEN in turn.text else NO_CALL
    if turn.kind == CALL and turn.call_key in {t.call_key for t in earlier if t.kind == CALL}:
        return REPEATED_CALL
    return observation.problem if observation else ""


def _observe(encoder: Encoder, reply: Reply, images: Sequence[Image.Image]) -> Observation:
    if reply.error:
        return Observation({"error": reply.error})
    observation = execute(reply.operation, reply.arguments, images)
    if observation.image is not None:
        try:
            encoder.num_image_tokens(observation.image)
        except ValueError as error:
            # The processor refuses extreme shapes, such as a thin crop: the model gets the error.
            message = f"the image cannot be shown: {error}"
            return Observation({"error": message}, problem=FAILED_OPERATION)
    return observation
