"""Rollouts: the model generates a turn, its call runs on the pixels, the result is appended.

Of an example only question and images are used, not trajectory and answer. After a planted error,
the prompt also holds the trajectory up to its wrong step.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pixelis.data.chat import response_message
from pixelis.data.encode import Encoder
from pixelis.evaluation.conversation import (
    Conversation,
    encode_prompt,
    encode_response,
    process_turn,
    shared_prefix,
)
from pixelis.evaluation.decoder import Decoder
from pixelis.evaluation.turns import (
    ANSWER,
    ANSWERED,
    CALL,
    ERROR,
    MAX_OPERATIONS,
    NO_ANSWER,
    Rollout,
    Turn,
)


@dataclass(frozen=True)
class RolloutSettings:
    """The settings of rollouts.

    Attributes:
        max_operations: limit of operations in one rollout (a turn that is neither call nor answer
            counts as one); the model may answer after the last one.
        max_new_tokens: limit of tokens in one turn.
        batch_size: rollouts in one batch; it changes the speed but not the tokens (in fp32, except
            for ties to about six digits).
        temperature: 0 takes the most likely token; otherwise tokens are drawn from softmax(logits /
            temperature).
        seed: seed of the draws.
    """

    max_operations: int = 8
    max_new_tokens: int = 96
    batch_size: int = 40
    temperature: float = 0.0
    seed: int = 0


def roll_out(
    model: Any,
    encoder: Encoder,
    conversations: Sequence[Conversation],
    settings: RolloutSettings,
    *,
    progress: Callable[[int, Rollout], None] | None = None,
) -> list[Rollout]:
    """Roll out a model on examples, with its calls run on the pixels.

    Args:
        model: a model of the Qwen2-VL family, plain or with a PEFT adapter (which the caller
            disables with `disable_adapter` for the base); its training mode is restored.
        encoder: encoder with the model's processor.
        conversations: the start of each rollout.
        settings: limits and sampling.
        progress: called with the index of a conversation and its rollout when it ends.

    Returns:
        The rollouts in the order of the conversations.

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
            num_slots=_num_slots(conversations, settings),
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            prefix=shared_prefix(encoder),
        )
        return run_conversations(decoder, encoder, conversations, settings, progress=progress)
    finally:
        model.train(was_training)


def _num_slots(conversations: Sequence[Conversation], settings: RolloutSettings) -> int:
    return max(1, min(settings.batch_size, len(conversations)))


def run_conversations(
    decoder: Decoder,
    encoder: Encoder,
    conversations: Sequence[Conversation],
    settings: RolloutSettings,
    *,
    progress: Callable[[int, Rollout], None] | None = None,
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

    for slot in range(_num_slots(conversations, settings)):
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
            if turn.response is not None:
                message = response_message(turn.response, turn.image)
                response = encode_response(encoder, message)
                requested[slot] = time.perf_counter()
                decoder.append(slot, response.input_ids, response.images)
                continue
            finished[index] = _rollout(conversations[index], turns)
            if progress is not None:
                progress(index, finished[index])
            del running[slot]
            start(slot)
    return [finished[index] for index in range(len(conversations))]


def _rollout(conversation: Conversation, turns: Sequence[Turn]) -> Rollout:
    last = turns[-1]
    outcome = {ANSWER: ANSWERED, CALL: MAX_OPERATIONS, ERROR: NO_ANSWER}[last.kind]
    return Rollout(
        example_id=conversation.example.id,
        turns=tuple(turns),
        answer=last.answer,
        outcome=outcome,
        sample=conversation.sample,
        planted=conversation.planted,
    )
