"""Rollouts: the model speaks, the operation it calls runs on the pixels, the result goes back in.

Only an example's question and images are given; its trajectory and answer are never seen, but for
a planted start: there the wrong step that the trajectory holds stands in the conversation.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from PIL import Image

from pixelis.data.chat import response_message
from pixelis.data.encode import Encoder
from pixelis.data.example import Example
from pixelis.evaluation.conversation import (
    Conversation,
    act,
    encode_prompt,
    encode_response,
    planted_steps,
    shared_prefix,
)
from pixelis.evaluation.decoder import Decoder, Utterance
from pixelis.evaluation.turns import (
    ANSWER,
    ANSWERED,
    CALL,
    ERROR,
    FAILURES,
    MAX_OPERATIONS,
    NO_ANSWER,
    OUTCOMES,
    TURN_KINDS,
    Rollout,
    Turn,
)

__all__ = [
    "ANSWER",
    "ANSWERED",
    "CALL",
    "ERROR",
    "FAILURES",
    "MAX_OPERATIONS",
    "NO_ANSWER",
    "OUTCOMES",
    "TURN_KINDS",
    "Conversation",
    "Rollout",
    "Turn",
    "converse",
    "encode_response",
    "hold",
    "planted_steps",
    "roll_out",
    "shared_prefix",
]


class Speaker(Protocol):
    """Who takes the assistant's turns in several conversations (`decoder.Decoder`)."""

    def clear(self, slot: int, seed: int = 0) -> None:
        """Begin a new conversation in a slot, with the seed of its draws."""

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
    num_samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    progress: Callable[[int, Rollout], None] | None = None,
) -> list[Rollout]:
    """Let a model solve examples; the pixels answer its calls. See `hold`.

    Args:
        model: see `hold`.
        encoder: see `hold`.
        examples: each is solved `num_samples` times.
        max_operations: see `hold`.
        max_new_tokens: see `hold`.
        batch_size: see `hold`.
        num_samples: rollouts of each example.
        temperature: see `hold`.
        seed: see `hold`.
        progress: called with a rollout's place in the result and the rollout, as each ends.

    Returns:
        the rollouts by example, then by sample.
    """
    conversations = [Conversation(e, sample) for e in examples for sample in range(num_samples)]
    return hold(
        model,
        encoder,
        conversations,
        max_operations=max_operations,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        temperature=temperature,
        seed=seed,
        progress=progress,
    )


def hold(
    model: Any,
    encoder: Encoder,
    conversations: Sequence[Conversation],
    *,
    max_operations: int,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    seed: int = 0,
    progress: Callable[[int, Rollout], None] | None = None,
) -> list[Rollout]:
    """Hold conversations with a model, the most likely token each time or drawn ones.

    Which others are held beside one changes nothing in what is said (in fp32, ties to about six
    digits aside), drawn tokens included: each conversation has a generator of its own.

    Args:
        model: a Qwen2-VL style model, plain or with a PEFT adapter (switched off by the caller with
            `disable_adapter` for the base); its training mode is left as it was.
        encoder: of the model's processor.
        conversations: what is to be rolled out.
        max_operations: operations that are run for one conversation (a turn that is neither call
            nor answer counts as one); the model may answer after the last.
        max_new_tokens: of one turn.
        batch_size: conversations side by side; it changes the speed, not what is said.
        temperature: 0: greedy; else tokens are drawn from softmax(logits / temperature).
        seed: of the draws.
        progress: called with a conversation's place and its rollout, as each ends.

    Raises:
        CheckpointError: when the model has no three-dimensional positions.
        DataError: when a prompt cannot be encoded, naming the example.
    """
    was_training = model.training
    model.eval()
    try:
        num_slots = max(1, min(batch_size, len(conversations)))
        decoder = Decoder(
            model,
            encoder,
            num_slots=num_slots,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            prefix=shared_prefix(encoder),
        )
        return converse(
            decoder,
            encoder,
            conversations,
            num_slots=num_slots,
            max_operations=max_operations,
            seed=seed,
            progress=progress,
        )
    finally:
        model.train(was_training)


def converse(
    speaker: Speaker,
    encoder: Encoder,
    conversations: Sequence[Conversation],
    *,
    num_slots: int,
    max_operations: int,
    seed: int = 0,
    progress: Callable[[int, Rollout], None] | None = None,
) -> list[Rollout]:
    """Hold the conversations of `hold` with whoever takes the assistant's turns."""
    prompts = [encode_prompt(encoder, conversation) for conversation in conversations]
    # From the longest: neighbours in the queue are fed in one pass, and no long one comes last.
    queue = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    running: dict[int, tuple[int, list[Turn]]] = {}
    due: dict[int, float] = {}  # when a slot's turn began
    finished: dict[int, Rollout] = {}

    def begin(slot: int) -> None:
        if not queue:
            speaker.clear(slot)
            return
        index = queue.pop()
        running[slot] = index, []
        speaker.clear(slot, conversations[index].seed(seed))
        due[slot] = time.perf_counter()
        speaker.hear(slot, prompts[index].input_ids, prompts[index].images)

    for slot in range(num_slots):
        begin(slot)
    while running:
        spoken = list(speaker.speak())
        assert spoken, "a conversation is open and nobody speaks"
        now = time.perf_counter()
        for utterance in spoken:
            index, turns = running[utterance.slot]
            images = conversations[index].example.images
            limit = len(turns) == max_operations
            seconds = now - due[utterance.slot]
            turns.append(act(encoder, utterance, images, turns, limit=limit, seconds=seconds))
            turn = turns[-1]
            if turn.fed_back is not None:
                response = response_message(turn.fed_back, turn.image)
                heard = encode_response(encoder, response)
                due[utterance.slot] = time.perf_counter()
                speaker.hear(utterance.slot, heard.input_ids, heard.images)
                continue
            finished[index] = _rollout(conversations[index], turns)
            if progress is not None:
                progress(index, finished[index])
            del running[utterance.slot]
            begin(utterance.slot)
    return [finished[index] for index in range(len(conversations))]


def _rollout(conversation: Conversation, turns: Sequence[Turn]) -> Rollout:
    example, last = conversation.example, turns[-1]
    outcome = {ANSWER: ANSWERED, CALL: MAX_OPERATIONS, ERROR: NO_ANSWER}[last.kind]
    return Rollout(
        example_id=example.id,
        difficulty=example.difficulty,
        task=example.task,
        sample_type=example.sample_type,
        turns=tuple(turns),
        answer=last.answer,
        outcome=outcome,
        sample=conversation.sample,
        planted=conversation.planted,
    )
