"""Rollouts: the model generates a turn, its call runs on the pixels, the result is appended.

Of an example only question and images are used, not trajectory and answer. After a planted error,
the prompt also holds the trajectory up to its wrong step.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

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
    Frame,
    all_same,
    as_seen,
    call_as_stored,
    frames_of,
    text_as_seen,
    values_as_seen,
)
from pixelis.data.encode import Encoded, Encoder, RefusedImageError, naming_example
from pixelis.data.example import Example, Step
from pixelis.evaluation.decoder import Decoder, GeneratedTurn
from pixelis.evaluation.turns import (
    ANSWER,
    ANSWERED,
    CALL,
    CUT_OFF,
    ERROR,
    MALFORMED_CALL,
    MAX_OPERATIONS,
    NO_ANSWER,
    NO_CALL,
    REPEATED_CALL,
    Rollout,
    Turn,
)
from pixelis.operations import FAILED_OPERATION, Observation, OperationError, execute


@dataclass(frozen=True)
class RolloutSettings:
    """The settings of rollouts.

    A turn that is neither call nor answer counts as an operation; the model may answer after the
    last one. The batch size changes the speed but not the tokens (in fp32, except for ties to about
    six digits).
    """

    max_operations: int = 8  # in one rollout
    max_new_tokens: int = 96  # in one turn
    batch_size: int = 40  # rollouts
    temperature: float = 0.0  # 0: the most likely token (`decoder.choose_tokens`)
    seed: int = 0  # of the draws


@dataclass(frozen=True)
class Conversation:
    """The start of one rollout; of the example, the answers and right steps are not read."""

    example: Example
    sample: int = 0  # index among the rollouts of the example; each draws different tokens
    planted: bool = False  # whether it starts after the trajectory's planted wrong step

    def seed(self, seed: int) -> int:
        """Return the seed for drawing tokens: 63 bits of SHA-256 of seed, example and sample."""
        example_id = f"{self.example.id}:planted" if self.planted else self.example.id
        name = f"rollout:{seed}:{example_id}:{self.sample}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def planted_steps(example: Example) -> tuple[Step, ...]:
    """Return the trajectory up to and including its planted wrong step; empty without one."""
    planted = [i for i, step in enumerate(example.trajectory) if not step.supervised]
    return example.trajectory[: planted[0] + 1] if planted else ()


def roll_out(
    model: Any,
    encoder: Encoder,
    conversations: Sequence[Conversation],
    settings: RolloutSettings,
    *,
    progress: Callable[[int, Rollout], None] = lambda _, __: None,
    on_turn: Callable[[int, Turn], None] = lambda _, __: None,
) -> list[Rollout]:
    """Roll out a model on examples, with its calls run on the pixels, in their order.

    Args:
        model: a model of the Qwen2-VL family, plain or with a PEFT adapter; its training mode is
            restored.
        encoder: encoder with the model's processor.
        conversations: the start of each rollout.
        settings: limits and sampling.
        progress: called with the index of a conversation and its rollout when it ends.
        on_turn: called with the index of a conversation and each of its turns when it ends.

    Raises:
        CheckpointError: when the model has no three-dimensional positions.
        DataError: when a prompt cannot be encoded, naming the example.
    """
    was_training = model.training
    model.eval()
    try:
        decoder = Decoder(
            model,
            encoder,
            num_slots=min(settings.batch_size, len(conversations)),
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            prefix=shared_prefix(encoder),
        )
        return run_conversations(
            decoder, encoder, conversations, settings, progress=progress, on_turn=on_turn
        )
    finally:
        model.train(was_training)


def run_conversations(
    decoder: Decoder,
    encoder: Encoder,
    conversations: Sequence[Conversation],
    settings: RolloutSettings,
    *,
    progress: Callable[[int, Rollout], None] = lambda _, __: None,
    on_turn: Callable[[int, Turn], None] = lambda _, __: None,
) -> list[Rollout]:
    """Run the conversations of `roll_out` in the slots of a decoder."""
    prompts = [encode_prompt(encoder, conversation) for conversation in conversations]
    # The longest prompts run first, and neighbours in the queue can be prefilled in one pass.
    queue = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    running: dict[int, tuple[int, list[Turn]]] = {}
    requested: dict[int, float] = {}  # when the turn of a slot was requested
    finished: dict[int, Rollout] = {}

    def start(slot: int) -> None:
        if not queue:
            decoder.reset(slot)
            return
        index = queue.pop()
        running[slot] = index, []
        decoder.reset(slot, conversations[index].seed(settings.seed))
        requested[slot] = time.perf_counter()
        decoder.append(slot, prompts[index].input_ids, prompts[index].images)

    for slot in range(min(settings.batch_size, len(conversations))):
        start(slot)
    while running:
        batch = decoder.generate()
        assert batch, "a conversation is open and no turn was generated"
        now = time.perf_counter()
        for generated in batch:
            slot = generated.slot
            index, turns = running[slot]
            images = conversations[index].example.images
            limit = len(turns) == settings.max_operations
            seconds = now - requested[slot]
            turn = process_turn(encoder, generated, images, turns, limit=limit, seconds=seconds)
            turns.append(turn)
            on_turn(index, turn)
            if turn.response is not None:
                message = response_message(turn.response, turn.image)
                response = encode_response(encoder, message)
                requested[slot] = time.perf_counter()
                decoder.append(slot, response.input_ids, response.images)
                continue
            outcome = {ANSWER: ANSWERED, CALL: MAX_OPERATIONS, ERROR: NO_ANSWER}[turn.kind]
            begun = conversations[index]
            finished[index] = Rollout(
                begun.example.id, tuple(turns), turn.answer, outcome, begun.sample, begun.planted
            )
            progress(index, finished[index])
            del running[slot]
            start(slot)
    return [finished[index] for index in range(len(conversations))]


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
    with naming_example(example):
        example = as_seen(example, frames_of(example.images, encoder.seen_size))
        messages = prompt_messages(example.question, example.images)
        for step in planted_steps(example) if conversation.planted else ():
            text = format_step(step.thought, step.operation, step.arguments)
            messages += [
                Message("assistant", (text,)),
                response_message(step.result, step.image),
            ]
        return encoder.encode(messages, add_generation_prompt=True)


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
    began = time.perf_counter()
    observation, arguments = _observe(encoder, reply, kind, images, frames, limit=limit)
    operation_seconds = time.perf_counter() - began
    result = observation.result if observation else None
    resized_result = None
    if result is not None and arguments is not reply.arguments:
        seen = values_as_seen(result, arguments, frames)
        resized_result = None if seen == result else seen
    answer = reply.answer
    if answer is not None and not all_same(frames):
        answer = text_as_seen(answer, frames[0].inverse)
    turn = Turn(
        text=text,
        kind=kind,
        operation=reply.operation,
        arguments=arguments,
        answer=answer,
        result=result,
        image=observation.image if observation else None,
        num_new_tokens=len(generated.tokens),
        ended=generated.ended,
        resized_result=resized_result,
        seconds=seconds,
        operation_seconds=operation_seconds if kind == CALL and observation else 0.0,
    )
    return replace(turn, failure=_failure(turn, earlier, observation))


def _observe(
    encoder: Encoder,
    reply: Reply,
    kind: str,
    images: Sequence[Image.Image],
    frames: Sequence[Frame],
    *,
    limit: bool,
) -> tuple[Observation | None, Any]:
    """Return the observation of a turn, and its arguments in stored pixels."""
    try:
        arguments = call_as_stored(reply.operation, reply.arguments, frames)
    except OperationError as error:  # in pixels of the resized image
        refused = Observation({"error": str(error)}, problem=error.problem)
        return None if limit else refused, reply.arguments
    if limit or kind == ANSWER:
        return None, arguments
    if kind == ERROR:
        return Observation({"error": reply.error}), arguments
    observation = execute(reply.operation, arguments, images)
    if observation.image is not None:
        try:
            encoder.num_image_tokens(observation.image)
        except RefusedImageError as error:  # such as a thin crop: the model gets the error
            message = f"the image cannot be shown: {error}"
            observation = Observation({"error": message}, problem=FAILED_OPERATION)
    return observation, arguments


def _failure(turn: Turn, earlier: Sequence[Turn], observation: Observation | None) -> str:
    """Return how a turn failed (`Turn.failure`)."""
    if turn.kind == ERROR:
        if not turn.ended:
            return CUT_OFF
        return MALFORMED_CALL if CALL_OPEN in turn.text else NO_CALL
    if turn.kind == CALL and turn.call_key in {t.call_key for t in earlier if t.kind == CALL}:
        return REPEATED_CALL
    return observation.problem if observation else ""
