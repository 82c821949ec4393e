"""evaluate: roll a trained adapter and its base out on a split, side by side."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pixelis.cli.arguments import ExtraFile, parse_arguments, run_cli
from pixelis.config import EvaluateConfig, ModelFileConfig, flatten


def main(argv: Sequence[str]) -> int:
    """Parse, fetch the adapter, open the run, roll out, record."""
    arguments = parse_arguments(
        argv,
        entry_point="evaluate",
        description="Roll out an adapter and its base: generate, run the operation, feed it back.",
        config_class=EvaluateConfig,
        default_config="configs/evaluate.yaml",
        extra_files={"model": ExtraFile(ModelFileConfig, "configs/model_arch.yaml")},
    )
    config, model_config = arguments.config, arguments.extra["model"].model

    from pixelis.data.encode import Encoder
    from pixelis.models.device import best_device
    from pixelis.models.load import load_model, load_processor, max_positions, silence_libraries
    from pixelis.models.lora import check_adapter, load_adapter, temporary_adapter
    from pixelis.runs.champion import contest
    from pixelis.runs.evaluation_identity import (
        check_sampling,
        evaluation_identity,
        kept_rollouts,
        told,
    )
    from pixelis.runs.evaluation_record import describe, record_evaluation, tell_result
    from pixelis.runs.rollouts import evaluate_and_record
    from pixelis.runs.subject import choose_subject, record_score
    from pixelis.tracking import (
        find_run,
        find_version,
        measured_model,
        open_run,
        resolve_adapter,
    )

    check_sampling(config)
    silence_libraries()
    name, trust = model_config.model_name, model_config.trust_remote_code
    pixels = {"min_pixels": model_config.min_pixels, "max_pixels": model_config.max_pixels}
    encoder = Encoder(load_processor(name, **pixels, trust_remote_code=trust))
    most = max_positions(name, trust_remote_code=trust)
    subject = choose_subject(config, encoder, most)
    print(*subject.lines, sep="\n", end="\n" * bool(subject.lines), flush=True)
    address = config.adapter
    if address is None:
        newest = find_run(config.experiment)
        address = f"runs:/{newest.run_id}"
        print(f"adapter: {address}, of the newest finished sft run ({newest.name})", flush=True)
    version = find_version(address)
    # By its number: an alias may move meanwhile.
    exact = f"models:/{version.name}/{version.version}" if version else address
    folders = {"adapter": resolve_adapter(exact, config.experiment)}
    if config.against is not None:
        folders["against"] = resolve_adapter(config.against, config.experiment)
        check_adapter(folders["against"], model_name=name)
    base = load_model(name, torch_dtype=model_config.torch_dtype, trust_remote_code=trust)
    model = load_adapter(base, folders["adapter"], model_name=name).to(best_device())
    against = None
    if config.against is not None:
        against = partial(temporary_adapter, model, folders["against"], model_name=name)
    identity = evaluation_identity(config, model_config, subject.digests, folders)
    with (
        kept_rollouts(config, identity) as kept,
        open_run(
            entry_point="evaluate",
            experiment=config.experiment,
            run_name=f"evaluate {config.adapter or 'newest sft'} on {subject.name}",
            params=flatten(config),
            tags={
                "pixelis.seed": str(config.seed),
                "pixelis.base_model": name,
                "pixelis.adapter": address,
                "pixelis.trust_remote_code": str(trust).lower(),
                **({"pixelis.against": config.against} if config.against else {}),
                **({"pixelis.resumed_rollouts": str(len(kept))} if len(kept) else {}),
            },
        ) as recorder,
        told(kept),
    ):
        dataset = subject.record(recorder)
        result = evaluate_and_record(
            recorder,
            model.eval(),
            encoder,
            examples=subject.examples,
            split=subject.name,
            title=subject.title,
            max_operations=config.max_operations,
            max_new_tokens=config.max_new_tokens,
            batch_size=config.batch_size,
            compare_base=config.compare_base,
            bootstrap_samples=config.bootstrap_samples,
            seed=config.seed,
            num_samples=config.num_samples,
            temperature=config.temperature,
            planted_errors=config.planted_errors,
            teacher_forced=config.teacher_forced,
            against=against,
            kept=kept,
            show_measures=True,
        )
        again = {"bootstrap_samples": config.bootstrap_samples, "seed": config.seed}
        record_score(recorder, subject, result, **again)
        tell_result(recorder, result, f"{address} on {subject.title}")
        record_evaluation(
            recorder,
            result,
            adapter=address,
            split=subject.name,
            step=0,
            seed=config.seed,
            model=measured_model(recorder, exact),
            dataset=dataset,
            about=describe(result, base=name, data=subject.where, seed=config.seed),
            num_traces=config.num_traces,
            num_reported=config.num_reported,
            report_folder=Path(config.output_dir),
        )
        if version is not None and subject.name == "test":
            contest(recorder, version, result, model, encoder, config, model_name=name)
        print(recorder.url_hint())
        kept.discard()
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
