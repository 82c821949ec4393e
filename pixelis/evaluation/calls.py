"""How a model's calls go: well-formed, valid, failed, repeated; of each rollout its share."""

from collections.abc import Sequence

from pixelis.evaluation.intervals import Fraction
from pixelis.evaluation.turns import ANSWER, CALL, Rollout
from pixelis.operations import OPERATIONS, UNKNOWN_OPERATION, WRONG_ARGUMENTS


def num_valid(rollout: Rollout) -> int:
    """Calls of a rollout that are valid.

    A call is valid when it parses, names a known operation, its arguments pass the operation's
    schema (`Operation.takes`) and, where it was run, the operation did not refuse them
    (`wrong_arguments`, such as a box outside of the image). One that keeps every rule and finds
    nothing is valid and failed. A repeated call is as valid as the first of its kind.
    """
    calls = [turn for turn in rollout.turns if turn.kind == CALL]
    refused = {
        turn.call_key for turn in calls if turn.failure in (UNKNOWN_OPERATION, WRONG_ARGUMENTS)
    }
    return sum(
        turn.operation in OPERATIONS
        and OPERATIONS[turn.operation].takes(turn.arguments)
        and turn.call_key not in refused
        for turn in calls
    )


def call_fractions(rollouts: Sequence[Rollout]) -> dict[str, list[Fraction]]:
    """Rates of the calls as ratios of sums: every act or call weighs the same.

    An act is a turn that is not an answer, so that a turn without call and answer counts as an act
    that went wrong. As function calling is scored elsewhere, it is told apart whether a call
    parses, whether its name and arguments are of the schema, and whether it runs (Patil et al.
    2023, "Gorilla", whose calls are checked as syntax trees, and their Berkeley Function-Calling
    Leaderboard, with checks of syntax and of execution); the ratios are this project's.

    Returns:
        `valid_call_rate`: valid calls (`num_valid`) among all acts;
        `well_formed_call_rate`: calls that parse as `{"name": ..., "arguments": ...}`, whatever
        they name, among all acts; at least the valid call rate;
        `failed_operation_rate`: operations that gave an error among those run (unknown operation,
        wrong arguments, nothing found);
        `repeated_call_rate`: calls equal to an earlier one of their rollout among all calls.
        A rollout without such turns says nothing of the rate.
    """
    fractions: dict[str, list[Fraction]] = {}
    for rollout in rollouts:
        num_acts = sum(turn.kind != ANSWER for turn in rollout.turns)
        num_calls = sum(turn.kind == CALL for turn in rollout.turns)
        for name, part, whole in (
            ("valid_call_rate", num_valid(rollout), num_acts),
            ("well_formed_call_rate", num_calls, num_acts),
            ("failed_operation_rate", rollout.num_failed, rollout.num_operations),
            ("repeated_call_rate", rollout.num_repeated, num_calls),
        ):
            fractions.setdefault(name, []).append((part, whole) if whole else None)
    return fractions
