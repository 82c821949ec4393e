"""Rollouts: the model speaks, the operation it calls runs on the pixels, the result goes back in.

Only an example's question and images are given; its trajectory and answer are never seen.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from pixelis.data.chat import (
    Message,
    Reply,
    observation_message,
    parse_reply,
    prompt_messages,
)
from pixelis.data.encode import Encoded, Encoder
from pixelis.data.example import Example
from pixelis.errors import DataError
from pixelis.evaluation.decoder import Decoder, Utterance
from pixelis.operations import Observation, execute

ANSWERED, MAX_OPERATIONS, NO_ANSWER = OUTCOMES = ("answered", "max_operations", "no_answer")
CALL, ANSWER, ERROR = TURN_KINDS = ("call", "answer", "error")


@dataclass(frozen=True)
class Turn:
    """One turn of the model and what came back.

    Attributes:
        text: what the model said, special tokens included, without the end of the turn.
        kind: `call`, `answer`, or `error` where the turn was neither.
        operation: the operation called, as the model wrote it.
        arguments: the call's arguments as parsed JSON, right or wrong.
        answer: what it answered, where it did.
        result: the observation's JSON object; None where nothing was fed back (an answer, or the
            limit).
        image: the observation's image, where it has one.
        num_new_tokens: tokens that the model said, without the end of the turn.
        ended: False where max_new_tokens cut the turn off.
    """

    text: str
    kind: str
    operation: str
    arguments: Any
    answer: str | None
    result: Mapping[str, Any] | None
    image: Image.Image | None
    num_new_tokens: int
    ended: bool


@dataclass(frozen=True)
class Rollout:
    """What a model did with one example.

    Attributes:
        turns: every turn of the model, in order.
        answer: what it answered, or None.
        outcome: `answered`; `max_operations`: it still called when the limit was reached;
            `no_answer`: the limit was reached with a turn that was neither call nor answer.
    """

    example_id: str
    difficulty: str
    task: str
    sample_type: str
    turns: tuple[Turn, ...]
    answer: str | None
    outcome: str

    @property
    def num_operations(self) -> int:
        """Calls that were run."""
        return sum(turn.kind == CALL and turn.result is not None for turn in self.turns)

    @property
    def num_malformed(self) -> int:
        """Turns that were neither a well-formed call nor an answer."""
        return sum(turn.kind == ERROR for turn in self.turns)

    @property
    def num_failed(self) -> int:
        """Calls that gave an error: unknown operation, wrong arguments, nothing found there."""
        return sum(
            turn.kind == CALL and turn.result is not None and "error" in turn.result
            for turn in self.turns
        )

    @property
    def num_repeated(self) -> int:
        """Calls equal to an earlier one in operation and arguments."""
        calls = [
            (turn.operation, json.dumps(turn.arguments, sort_keys=True))
            for turn in self.turns
            if turn.kind == CALL
        ]
        return len(calls) - len(set(calls))


class Speaker(Protocol):
    """Who takes the assistant's turns in several conversations (`decoder.Decoder`)."""

    def clear(self, slot: int) -> None:
        """Begin a new conversation in a slot."""

    def hear(self, slot: int, tokens: Sequence[int], images: Sequence[Image.Image]) -> None:
        """Take in what comes before the next turn."""

    def speak(self) -> Iterable[Utterance]:
        """Say at least one turn that is due; none when no turn is due."""


def roll_out(
    model: Any,
    encoder: Encoder,
    examples: Sequence[Example],
    *,
    max_operations: int,
    max_new_tokens: int,
    batch_size: int,
    progress: Callable[[int, Rollout], None] | None = None,
) -> list[Rollout]:
    """Let a model solve examples by greedy decoding; the pixels answer its calls.

    Args:
        model: a Qwen2-VL style model, plain or with a PEFT adapter (switched off by the caller with
            `disable_adapter` for the base); its training mode is left as it was.
        encoder: of the model's processor.
        examples: only `question` and `images` are read, and what names the example.
        max_operations: so many calls and malformed turns are answered; the model then has one more
            turn for its answer.
        max_new_tokens: tokens of one turn.
        batch_size: conversations side by side; no part of the result (see `Decoder`).
        progress: called with the example's index and its rollout, as rollouts finish.

    Returns:
        one rollout an example, in the order of `examples`.

    Raises:
        DataError: when a question is longer than the encoder allows, naming the example.
    """
    was_training = model.training
    model.eval()
    try:
        num_slots = max(1, min(batch_size, len(examples)))
        decoder = Decoder(model, encoder, num_slots=num_slots, max_new_tokens=max_new_tokens)
        return converse(
            decoder,
            encoder,
            examples,
            num_slots=num_slots,
            max_operations=max_operations,
            progress=progress,
        )
    finally:
        model.train(was_training)


def converse(
    speaker: Speaker,
    encoder: Encoder,
    examples: Sequence[Example],
    *,
    num_slots: int,
    max_operations: int,
    progress: Callable[[int, Rollout], None] | None = None,
) -> list[Rollout]:
    """Hold the conversations of `roll_out` with whoever takes the assistant's turns."""
    prompts = [_encode_prompt(encoder, example) for example in examples]
    # From the longest: neighbours in the queue are fed in one pass, and no long one comes last.
    queue = sorted(range(len(examples)), key=lambda index: len(prompts[index]))
    running: dict[int, tuple[int, list[Turn]]] = {}
    finished: dict[int, Rollout] = {}

    def begin(slot: int) -> None:
        speaker.clear(slot)
        if queue:
            index = queue.pop()
            running[slot] = index, []
            speaker.hear(slot, prompts[index].input_ids, prompts[index].images)

    for slot in range(num_slots):
        begin(slot)
    while running:
        spoken = list(speaker.speak())
        assert spoken, "a conversation is open and nobody speaks"
        for utterance in spoken:
            index, turns = running[utterance.slot]
            example = examples[index]
            turn = _act(encoder, utterance, example.images, limit=len(turns) == max_operations)
            turns.append(turn)
            if turn.result is not None:
                response = observation_message(Observation(dict(turn.result), turn.image))
                heard = encode_response(encoder, response)
                speaker.hear(utterance.slot, heard.input_ids, heard.images)
                continue
            finished[index] = _rollout(example, turns)
            if progress is not None:
                progress(index, finished[index])
            del running[utterance.slot]
            begin(utterance.slot)
    return [finished[index] for index in range(len(examples))]


def encode_response(encoder: Encoder, response: Message) -> Encoded:
    """The tokens between the end of one assistant's turn and the start of the next."""
    said = [*prompt_messages("", ()), Message("assistant", ("",))]
    ids = encoder.encode(said).input_ids
    # The template writes the same before a response, whatever follows the assistant's turn.
    start = len(ids) - ids[::-1].index(encoder.end_of_turn_id)
    whole = encoder.encode([*said, response], add_generation_prompt=True)
    return Encoded(whole.input_ids[start:], whole.labels[start:], 0, whole.images)


def _encode_prompt(encoder: Encoder, example: Example) -> Encoded:
    messages = prompt_messages(example.question, example.images)
    try:
        return encoder.encode(messages, add_generation_prompt=True)
    except DataError as error:
        raise DataError(f"example {example.id}: {error}") from error


def _act(
    encoder: Encoder, utterance: Utterance, images: Sequence[Image.Image], *, limit: bool
) -> Turn:
    """Read a turn and run its call, unless the limit is reached."""
    text = encoder.tokenizer.decode(list(utterance.tokens), clean_up_tokenization_spaces=False)
    reply = parse_reply(text)
    kind = ERROR if reply.error else CALL if reply.answer is None else ANSWER
    observation = None if limit or kind == ANSWER else _observe(encoder, reply, images)
    return Turn(
        text=text,
        kind=kind,
        operation=reply.operation,
        arguments=reply.arguments,
        answer=reply.answer,
        result=observation.result if observation else None,
        image=observation.image if observation else None,
        num_new_tokens=len(utterance.tokens),
        ended=utterance.ended,
    )


def _observe(encoder: Encoder, reply: Reply, images: Sequence[Image.Image]) -> Observation:
    if reply.error:
        return Observation({"error": reply.error})
    observation = execute(reply.operation, reply.arguments, images)
    if observation.image is not None:
        try:
            encoder.num_image_tokens(observation.image)
        except ValueError as error:
            # A processor refuses extreme shapes; the model asked for one, so it is told.
            return Observation({"error": f"the image cannot be shown: {error}"})
    return observation


def _rollout(example: Example, turns: Sequence[Turn]) -> Rollout:
    last = turns[-1]
    outcome = {ANSWER: ANSWERED, CALL: MAX_OPERATIONS, ERROR: NO_ANSWER}[last.kind]
    return Rollout(
        example_id=example.id,
        difficulty=example.difficulty,
        task=example.task,
        sample_type=example.sample_type,
        turns=tuple(turns),
        answer=last.answer,
        outcome=outcome,
    )
