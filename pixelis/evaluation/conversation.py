"""One conversation of a rollout: how it begins, how a turn is read, what is fed back."""

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
    result_as_seen,
    text_as_seen,
)
from pixelis.data.encode import Encoded, Encoder
from pixelis.data.example import Example, Step
from pixelis.errors import DataError
from pixelis.evaluation.decoder import Utterance
from pixelis.evaluation.sampling import sample_seed
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
    """What is to be rolled out.

    Attributes:
        example: only `question` and `images` are read, what names it, and its planted step.
        sample: number of the rollout among those of its example; other numbers draw other tokens.
        planted: begin after the wrong step that the example's trajectory holds.
    """

    example: Example
    sample: int = 0
    planted: bool = False

    def seed(self, seed: int) -> int:
        """Of the tokens that are drawn: a function of the run's seed and what this is."""
        name = f"{self.example.id}:planted" if self.planted else self.example.id
        return sample_seed(seed, name, self.sample)


def planted_steps(example: Example) -> tuple[Step, ...]:
    """The trajectory up to its planted wrong step, that included; empty where it has none."""
    planted = [i for i, step in enumerate(example.trajectory) if not step.supervised]
    return example.trajectory[: planted[0] + 1] if planted else ()


@lru_cache(maxsize=4)
def shared_prefix(encoder: Encoder) -> tuple[int, ...]:
    """The tokens with which every prompt begins, whatever the question and its images."""
    first, second = (
        encoder.encode(prompt_messages(question, ()), add_generation_prompt=True).input_ids
        for question in ("a", "1")
    )
    same = [a == b for a, b in zip(first, second, strict=False)]
    return tuple(first[: same.index(False)]) if False in same else ()


@lru_cache(maxsize=4)
def _before_response(encoder: Encoder) -> tuple[tuple[Message, ...], int]:
    """A conversation up to an assistant's turn, and how many tokens it has to that turn's end."""
    said = (*prompt_messages("", ()), Message("assistant", ("",)))
    ids = encoder.encode(said).input_ids
    # The template writes the same before a response, whatever follows the assistant's turn.
    return said, len(ids) - ids[::-1].index(encoder.end_of_turn_id)


def encode_response(encoder: Encoder, response: Message) -> Encoded:
    """The tokens between the end of one assistant's turn and the start of the next."""
    said, start = _before_response(encoder)
    whole = encoder.encode([*said, response], add_generation_prompt=True)
    return Encoded(whole.input_ids[start:], whole.labels[start:], 0, whole.images)


def encode_prompt(encoder: Encoder, conversation: Conversation) -> Encoded:
    """What stands before the model's first turn; a DataError names the example."""
    example = conversation.example
    example = as_seen(example, frames_of(example.images, encoder.seen_size))
    messages = prompt_messages(example.question, example.images)
    for step in planted_steps(example) if conversation.planted else ():
        said = format_step(step.thought, step.operation, step.arguments)
        messages += [Message("assistant", (said,)), response_message(step.result, step.image)]
    try:
        return encoder.encode(messages, add_generation_prompt=True)
    except DataError as error:
        raise DataError(f"example {example.id}: {error}") from error


def act(
    encoder: Encoder,
    utterance: Utterance,
    images: Sequence[Image.Image],
    earlier: Sequence[Turn],
    *,
    limit: bool,
    seconds: float = 0.0,
) -> Turn:
    """Read a turn and run its call, unless the limit is reached; `seconds` are those of its words.

    The model counts the pixels that it sees; the operation runs on those that are stored.
    """
    text = encoder.tokenizer.decode(list(utterance.tokens), clean_up_tokenization_spaces=False)
    reply = parse_reply(text)
    kind = ERROR if reply.error else CALL if reply.answer is None else ANSWER
    frames = frames_of(images, encoder.seen_size)
    observation, stored = None, reply.arguments
    began = time.perf_counter()
    try:
        stored = call_as_stored(reply.operation, reply.arguments, frames)
    except OperationError as error:  # in the model's own pixels
        if not limit:
            observation = Observation({"error": str(error)}, problem=error.problem)
    else:
        if not limit and kind != ANSWER:
            observation = _observe(encoder, replace(reply, arguments=stored), images)
    operation_seconds = time.perf_counter() - began if observation is not None else 0.0
    told = None
    if observation is not None and stored is not reply.arguments:
        result = result_as_seen(
            reply.operation, stored, reply.arguments, observation.result, frames
        )
        told = None if result == observation.result else result
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
        num_new_tokens=len(utterance.tokens),
        ended=utterance.ended,
        told=told,
        seconds=seconds,
        operation_seconds=operation_seconds if kind == CALL else 0.0,
    )
    return replace(turn, failure=_failure(turn, earlier, observation))


def _failure(turn: Turn, earlier: Sequence[Turn], observation: Observation | None) -> str:
    """The kind of failure of a turn (`Turn.failure`)."""
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
            # A processor refuses extreme shapes; the model asked for one, so it is told.
            message = f"the image cannot be shown: {error}"
            return Observation({"error": message}, problem=FAILED_OPERATION)
    return observation
