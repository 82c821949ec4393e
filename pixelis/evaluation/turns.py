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

    If several failures apply, `failure` is the first one: without call or answer `cut_off`,
    `malformed_call`, `no_call`; for a call `repeated_call` (equal in operation and arguments to an
    earlier one of the rollout), `unknown_operation`, `wrong_arguments`, `failed_operation`.
    """

    text: str  # with special tokens, without the end of the turn
    kind: str  # `call`, `answer`, or `error` if the turn is neither
    operation: str  # as the model wrote it
    arguments: Any  # parsed JSON, valid or not; as written where they lie outside of the image
    answer: str | None
    result: Mapping[str, Any] | None  # the observation's JSON; None for an answer or at the limit
    image: Image.Image | None  # the observation's
    num_new_tokens: int  # without the end of the turn
    ended: bool  # by the model, before max_new_tokens cut it off
    failure: str = ""  # one of `FAILURES`, or empty
    # In pixels of the resized image, which the model sees; None if it is equal to `result`. All
    # other fields are in pixels of the stored image.
    resized_result: Mapping[str, Any] | None = None
    # Wall time of the turn, while other rollouts of the batch share the device, and of the call.
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

    The outcome is `answered`, `max_operations` if the last turn at the limit was a call, or
    `no_answer` if it was neither call nor answer.
    """

    example_id: str
    turns: tuple[Turn, ...]  # in order, without the planted steps of the prompt
    answer: str | None
    outcome: str
    sample: int = 0  # index among the rollouts of its example
    planted: bool = False  # whether it starts after the trajectory's planted wrong step

    @property
    def operations(self) -> list[Turn]:
        """Calls that were run."""
        return [turn for turn in self.turns if turn.kind == CALL and turn.result is not None]

    @property
    def num_operations(self) -> int:
        """Number of calls that were run."""
        return len(self.operations)

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
