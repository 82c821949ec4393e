"""One run of `evaluate`: roll out the model, record the results, compare with the champion."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pixelis import __version__
from pixelis.config import EvaluateConfig, ModelConfig, flatten
from pixelis.data.encode import Encoder
from pixelis.errors import ConfigError
from pixelis.evaluation.evaluate import BASE, EvaluationResult, EvaluationSettings
from pixelis.evaluation.metrics import ALL, paired_comparison
from pixelis.evaluation.rollout import Conversation, RolloutSettings, roll_out
from pixelis.evaluation.rollout_store import open_store
from pixelis.evaluation.tables import format_p_value, format_percent, result_markdown
from pixelis.models.load import (
    best_device,
    load_encoder,
    load_model,
    max_positions,
    resolve_model,
    silence_libraries,
)
from pixelis.models.lora import check_adapter, load_adapter, temporary_adapter
from pixelis.runs.evaluation_record import (
    RecordSettings,
    evaluate_and_record,
    evaluation_links,
    record_rollouts,
)
from pixelis.runs.evaluation_set import choose_evaluation_set, record_benchmark_scores
from pixelis.runs.run_params import place_tags, run_params
from pixelis.tracking import (
    CHAMPION,
    MlflowRecorder,
    ModelVersion,
    curriculum_of,
    find_adapter,
    find_champion,
    find_version,
    measured_model,
    open_run,
    resolve_adapter,
    set_champion,
)
from pixelis.tracking.lookup import ADAPTER_FILES

# Keys that do not change rollouts. In float32 the batch size only changes the speed.
NOT_IDENTITY = (
    *("adapter", "against", "experiment", "data"),  # paths and addresses; contents have digests
    *("input", "format", "image_folder", "max_rejected"),
    *("batch_size", "teacher_forced", "champion"),
    *("resume", "output_dir", "num_traces", "num_reported"),
)


def run_evaluation(config: EvaluateConfig, model_config: ModelConfig) -> None:
    """Roll out an adapter and its base, side by side, and record the result in a run.

    Raises:
        UserError: naming what is wrong, before a run is opened.
    """
    if config.num_samples > 1 and config.temperature == 0:
        raise ConfigError(
            "num_samples above 1 needs a temperature above 0, or all samples of an example are "
            f"equal; got num_samples={config.num_samples}, temperature={config.temperature}"
        )
    silence_libraries()
    name, trust = model_config.model_name, model_config.trust_remote_code
    encoder = load_encoder(model_config)
    max_tokens = max_positions(name, trust_remote_code=trust)
    evaluation_set = choose_evaluation_set(config, encoder, max_tokens)
    address = find_adapter(config.adapter, config.experiment)
    version = find_version(address)
    # Use the version's number, because an alias may move meanwhile.
    exact = f"models:/{version.name}/{version.version}" if version else address
    folders = {"adapter": resolve_adapter(exact)}
    if config.against is not None:
        folders["against"] = resolve_adapter(config.against)
        check_adapter(folders["against"], model_name=name)
    base = load_model(name, torch_dtype=model_config.torch_dtype, trust_remote_code=trust)
    model = load_adapter(base, folders["adapter"], model_name=name).to(best_device())
    against = None
    if config.against is not None:
        against = partial(temporary_adapter, model, folders["against"], model_name=name)
    keys = [field.name for field in fields(EvaluationSettings)]
    settings = EvaluationSettings(**{key: getattr(config, key) for key in keys})
    identity = evaluation_identity(config, model_config, evaluation_set.digests, folders)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = Path(config.output_dir) / digest[:16]
    with (
        open_store(folder, identity, resume=config.resume == "auto") as store,
        open_run(
            entry_point="evaluate",
            experiment=config.experiment,
            run_name=f"evaluate {config.adapter or 'newest sft'} on {evaluation_set.name}",
            params=run_params(flatten(config)),
            tags={
                **place_tags(flatten(config)),
                "pixelis.seed": str(config.seed),
                "pixelis.base_model": name,
                "pixelis.adapter": address,
                "pixelis.trust_remote_code": str(trust).lower(),
                **({"pixelis.against": config.against} if config.against else {}),
                **({"pixelis.resumed_rollouts": str(len(store))} if len(store) else {}),
            },
        ) as recorder,
    ):
        dataset = evaluation_set.record(recorder)
        result = evaluate_and_record(
            recorder,
            model.eval(),
            encoder,
            evaluation_set,
            settings,
            against=against,
            store=store,
            show_measures=True,
        )
        record_benchmark_scores(recorder, evaluation_set, result)
        told = result_markdown(result, evaluation_set.name)
        title = f"{address} on {evaluation_set.title}"
        recorder.note("\n\n".join([told, title, evaluation_links(recorder)]))
        measured = measured_model(recorder, exact)
        record_rollouts(
            recorder,
            result,
            evaluation_set,
            RecordSettings(
                adapter=address,
                base=name,
                seed=config.seed,
                num_traces=config.num_traces,
                num_reported=config.num_reported,
                report_folder=Path(config.output_dir),
                curriculum=curriculum_of(recorder, measured) if measured else "",
            ),
            model=measured,
            dataset=dataset,
        )
        if version is not None and evaluation_set.name == "test":
            compare_with_champion(
                recorder, version, result, model, encoder, config, model_name=name
            )
        print(recorder.url_hint())
        store.is_complete = True


def evaluation_identity(
    config: EvaluateConfig,
    model_config: ModelConfig,
    digests: Mapping[str, str],
    adapters: Mapping[str, Path],
) -> dict[str, Any]:
    """Return all values that change an evaluation's rollouts, as flat JSON.

    `digests` are the SHA-256 of data files; `adapters` the folders of `adapter` and `against`.
    """
    identity: dict[str, Any] = {
        key: value
        for key, value in flatten(config).items()
        if key.partition(".")[0] not in NOT_IDENTITY
    }
    identity |= {f"model.{key}": value for key, value in flatten(model_config).items()}
    identity |= {f"data {name}": digest for name, digest in digests.items()}
    for name, folder in adapters.items():
        contents = b"".join((folder / file).read_bytes() for file in ADAPTER_FILES)
        identity[f"{name} files"] = hashlib.sha256(contents).hexdigest()
    # Weights may be many gigabytes, so they are not hashed: a new file has another size or time.
    identity["model files"] = [
        [file.name, file.stat().st_size, file.stat().st_mtime_ns]
        for file in sorted(Path(resolve_model(model_config.model_name)).glob("*.safetensors"))
    ]
    if model_config.torch_dtype != "float32":
        # Other batch shapes round differently, and with fewer digits more tokens are tied.
        identity["batch_size"] = config.batch_size
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return identity | {"pixelis": __version__, "device": device}


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
    """Move the alias `champion` to a version whose gain is significant.

    The candidate's adapter is on `model`. It is compared with the champion on the same examples, or
    with the base if there is no champion yet. It wins if it answers more of them right, McNemar's
    exact p-value is below `champion.p_value`, and there are `champion.min_examples` or more.

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
        folder = resolve_adapter(f"models:/{name}/{champion.version}")
        # Greedily, on the same examples.
        settings = RolloutSettings(config.max_operations, config.max_new_tokens, config.batch_size)
        conversations = [Conversation(example) for example in result.examples]
        with temporary_adapter(model, folder, model_name=model_name) as rival_model:
            rollouts = roll_out(rival_model, encoder, conversations, settings)
        comparison = paired_comparison(rollouts, result.adapter.rollouts, result.examples)[ALL]
    gain, rules = comparison.gain, config.champion
    points = format_percent(gain, "+", " points").strip()
    verdict = (
        f"{name} version {number} against {rival} on {gain.num} test examples: "
        f"{points}, p {format_p_value(comparison.p_value)}"
    )
    outcome, wins = "the champion stays", False
    has_enough = gain.num >= rules.min_examples
    if gain.value > 0 and has_enough and comparison.p_value < rules.p_value:
        beaten = None if champion is None else str(champion.version)
        moved = recorder.attempt(
            f"moving the alias {CHAMPION}",
            lambda: set_champion(recorder.client, candidate, beaten, verdict),
        )
        wins = bool(moved)
        outcome = "it is the champion now" if wins else "it won, but the alias was not moved"
    elif gain.value > 0:
        rule = f"p must be below champion.p_value, {rules.p_value}"
        outcome += f" ({rule if has_enough else f'champion.min_examples is {rules.min_examples}'})"
    print(f"{verdict}: {outcome}", flush=True)
    values = {**gain.metrics("gain"), "p_value": comparison.p_value}
    recorder.metrics({f"{CHAMPION}/{key}": value for key, value in values.items()}, 0)
    recorder.tags({f"pixelis.{CHAMPION}": "won" if wins else "stays"})
    return wins
