"""The data of a rollout: the model's turns, the results of its calls and how turns fail."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from pixelis.operations import PROBLEMS

ANSWERED, MAX_OPERATIONS, NO_ANSWER = OUTCOMES = ("answered", "max_operations", "no_answer")
CALL, ANSWER, ERROR = "call", "answer", "error"  # kinds of turns
# How a turn can fail: neither a call nor an answer; a call that cannot be parsed; no end before
# max_new_tokens; a call made before; and what an operation refuses.
NO_CALL, MALFORMED_CALL = "no_call", "malformed_call"
CUT_OFF, REPEATED_CALL = "cut_off", "repeated_call"
FAILURES = (NO_CALL, MALFORMED_CALL, CUT_OFF, REPEATED_CALL, *PROBLEMS)


@dataclass(frozen=True)
class Turn:
    """One turn of the model and the result of its call.

    Attributes:
        text: the generated text, special tokens included, without the end of the turn.
        kind: `call`, `answer`, or `error` where the turn was neither.
        operation: the operation called, as the model wrote it.
        arguments: the call's arguments as parsed JSON, valid or not.
        answer: the answer, where there is one.
        result: the observation's JSON object; None where there is none (an answer, or the limit).
        image: the observation's image, where it has one.
        num_new_tokens: generated tokens, without the end of the turn.
        ended: False where max_new_tokens cut the turn off.
        failure: one of `FAILURES`, or empty. One kind a turn, the first that holds: of a turn
            without call or answer `cut_off`, `malformed_call`, `no_call`; of a call
            `repeated_call` (equal in operation and arguments to an earlier one of the rollout),
            `unknown_operation`, `wrong_arguments`, `failed_operation` (nothing found there).
        resized_result: the result in the pixels of the resized image, which the model sees; None
            where that is equal to `result`. All else is in pixels of the stored image, but for the
            arguments of a call that was refused because it lies outside of the image.
        seconds: wall time from the request for the turn to its end; other rollouts of the batch
            share the device meanwhile. Not compared: turns are equal where their texts are.
        operation_seconds: wall time of the operation, 0 where none was run. Not compared.
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
    failure: str = ""
    resized_result: Mapping[str, Any] | None = None
    seconds: float = field(default=0.0, compare=False)
    operation_seconds: float = field(default=0.0, compare=False)

    @property
    def response(self) -> Mapping[str, Any] | None:
        """The result as the model gets it; None where it gets none."""
        return self.result if self.resized_result is None else self.resized_result

    @property
    def call_key(self) -> tuple[str, str]:
        """Operation and arguments, which are equal for equal calls."""
        return self.operation, json.dumps(self.arguments, sort_keys=True)


@dataclass(frozen=True)
class Rollout:
    """All turns of a model on one example.

    Attributes:
        turns: every turn of the model, in order; after a planted error only the model's own.
        answer: the answer, or None.
        outcome: `answered`; `max_operations`: it still called when the limit was reached;
            `no_answer`: the limit was reached with a turn that was neither call nor answer.
        sample: number of the rollout among those of its example, from 0.
        planted: whether it starts after the wrong step that the example's trajectory holds.
    """

    example_id: str
    turns: tuple[Turn, ...]
    answer: str | None
    outcome: str
    sample: int = 0
    planted: bool = False

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
        calls = [turn.call_key for turn in self.turns if turn.kind == CALL]
        return len(calls) - len(set(calls))

    @property
    def failures(self) -> Counter[str]:
        """How many turns failed, by kind (`FAILURES`)."""
        return Counter(turn.failure for turn in self.turns if turn.failure)
