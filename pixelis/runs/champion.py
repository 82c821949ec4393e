"""The comparison of a registered adapter with the champion of its name, on the test split."""

from typing import Any

from pixelis.config import EvaluateConfig
from pixelis.data.encode import Encoder
from pixelis.evaluation.evaluate import BASE, EvaluationResult
from pixelis.evaluation.metrics import ALL, paired_comparison
from pixelis.evaluation.rollout import Conversation, RolloutSettings, roll_out
from pixelis.models.lora import temporary_adapter
from pixelis.tracking import (
    CHAMPION,
    MlflowRecorder,
    ModelVersion,
    find_champion,
    resolve_adapter,
    set_champion,
)


def compare_with_champion(
    recorder: MlflowRecorder,
    candidate: ModelVersion,
    result: EvaluationResult,
    model: Any,
    encoder: Encoder,
    config: EvaluateConfig,
    *,
    model_name: str,
) -> bool:
    """Move the alias `champion` to a version that wins by more than its interval.

    The candidate's adapter is on `model`. It is compared with the champion on the same examples, or
    with the base if there is no champion yet, and wins if the 95 % interval of the paired gain is
    above 0.

    Returns:
        Whether the candidate is the champion now.
    """
    name, number = candidate.name, candidate.version
    champion = find_champion(recorder.client, name)
    if champion is not None and champion.version == number:
        print(f"{name} version {number} is the {CHAMPION} already", flush=True)
        return True
    if champion is None:
        rival = "the base"
        if BASE not in result.comparisons:
            print(f"{name} has no {CHAMPION} yet: compare_base=true lets it be decided", flush=True)
            return False
        comparison = result.comparisons[BASE][ALL]
    else:
        rival = f"version {champion.version}"
        folder = resolve_adapter(f"models:/{name}/{champion.version}", config.experiment)
        # Greedily, on the same examples.
        settings = RolloutSettings(config.max_operations, config.max_new_tokens, config.batch_size)
        conversations = [Conversation(example) for example in result.examples]
        with temporary_adapter(model, folder, model_name=model_name) as rival_model:
            rollouts = roll_out(rival_model, encoder, conversations, settings)
        comparison = paired_comparison(
            rollouts,
            result.adapter.rollouts,
            result.examples,
            num_samples=config.bootstrap_samples,
            seed=config.seed,
        )[ALL]
    gain = comparison.gain
    wins = gain.low > 0
    verdict = (
        f"{name} version {number} against {rival} on {gain.num} test examples: "
        f"{100 * gain.value:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
    )
    outcome = "the champion stays"
    if wins:
        beaten = None if champion is None else str(champion.version)
        moved = recorder.attempt(
            f"moving the alias {CHAMPION}",
            lambda: set_champion(recorder.client, candidate, beaten, verdict),
        )
        wins = bool(moved)
        outcome = "it is the champion now" if wins else "it won, but the alias was not moved"
    print(f"{verdict}: {outcome}", flush=True)
    values = {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
    recorder.metrics({f"{CHAMPION}/{key}": value for key, value in values.items()}, 0)
    recorder.tags({f"pixelis.{CHAMPION}": "won" if wins else "stays"})
    return wins
