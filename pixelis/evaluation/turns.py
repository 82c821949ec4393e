"""The data of a rollout: the model's turns, the results of its calls, the kinds of failures."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from pixelis.operations import PROBLEMS

ANSWERED, MAX_OPERATIONS, NO_ANSWER = OUTCOMES = ("answered", "max_operations", "no_answer")
CALL, ANSWER, ERROR = "call", "answer", "error"  # kinds of turns
# Kinds of failures: neither a call nor an answer; a call that cannot be parsed; no end before
# max_new_tokens; a call that was made before; and the problems of operations.
NO_CALL, MALFORMED_CALL = "no_call", "malformed_call"
CUT_OFF, REPEATED_CALL = "cut_off", "repeated_call"
FAILURES = (NO_CALL, MALFORMED_CALL, CUT_OFF, REPEATED_CALL, *PROBLEMS)


@dataclass(frozen=True)
class Turn:
    """One turn of the model and the result of its call.

    Attributes:
        text: the generated text with special tokens, without the end of the turn.
        kind: `call`, `answer`, or `error` if the turn is neither.
        operation: the called operation, as the model wrote it.
        arguments: the call's arguments as parsed JSON, valid or not.
        answer: the answer, or None.
        result: the observation's JSON object; None for an answer or at the limit.
        image: the observation's image, or None.
        num_new_tokens: number of generated tokens, without the end of the turn.
        ended: whether the model ended the turn, before max_new_tokens cut it off.
        failure: one of `FAILURES`, or empty. If several apply, it is the first one: without call or
            answer `cut_off`, `malformed_call`, `no_call`; for a call `repeated_call` (equal in
            operation and arguments to an earlier one of the rollout), `unknown_operation`,
            `wrong_arguments`, `failed_operation` (it found nothing).
        resized_result: the result in pixels of the resized image, which the model sees; None if it
            is equal to `result`. All other fields are in pixels of the stored image, except for the
            arguments of a call that was refused because it lies outside of the image.
        seconds: wall time from the request for the turn to its end, while other rollouts of the
            batch share the device. It is ignored when turns are compared.
        operation_seconds: wall time of the operation, or 0. It is ignored when turns are compared.
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
        """The result that the model sees, or None."""
        return self.result if self.resized_result is None else self.resized_result

    @property
    def call_key(self) -> tuple[str, str]:
        """A key of operation and arguments that is equal for equal calls."""
        return self.operation, json.dumps(self.arguments, sort_keys=True)


@dataclass(frozen=True)
class Rollout:
    """All turns of a model on one example.

    Attributes:
        turns: the model's turns in order, without the planted steps of the prompt.
        answer: the answer, or None.
        outcome: `answered`; `max_operations` if the last turn at the limit was a call; `no_answer`
            if it was neither call nor answer.
        sample: index of the rollout among those of its example.
        planted: whether it starts after the planted wrong step of the example's trajectory.
    """

    example_id: str
    turns: tuple[Turn, ...]
    answer: str | None
    outcome: str
    sample: int = 0
    planted: bool = False

    @property
    def operations(self) -> list[Turn]:
        """Calls that were run."""
        return [turn for turn in self.turns if turn.kind == CALL and turn.result is not None]

    @property
    def num_operations(self) -> int:
        """Number of calls that were run."""
        return len(self.operations)

    @property
    def num_malformed(self) -> int:
        """Number of turns that were neither a well-formed call nor an answer."""
        return sum(turn.kind == ERROR for turn in self.turns)

    @property
    def num_failed(self) -> int:
        """Number of calls with an error: unknown operation, wrong arguments, nothing found."""
        return sum("error" in (turn.result or {}) for turn in self.operations)

    @property
    def num_repeated(self) -> int:
        """Number of calls equal to an earlier one in operation and arguments."""
        calls = [turn.call_key for turn in self.turns if turn.kind == CALL]
        return len(calls) - len(set(calls))

    @property
    def failures(self) -> Counter[str]:
        """Number of failed turns by kind (`FAILURES`)."""
        return Counter(turn.failure for turn in self.turns if turn.failure)
