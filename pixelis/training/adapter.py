"""The adapter that a training starts or resumes with."""

import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, prepare_model_for_kbit_training, set_peft_model_state_dict
from safetensors.torch import load_file

from pixelis.config import CHANGING_INITS, EVA, ModelConfig
from pixelis.data.dataset import CurriculumDataset
from pixelis.data.encode import IGNORE_INDEX
from pixelis.errors import ConfigError
from pixelis.figures import as_figure, as_page, layer_ranks, layer_spectra
from pixelis.files import write_atomic
from pixelis.models.eva import Spectrum, fit_eva, largest_spectrum, positions_needed
from pixelis.models.load import best_device, load_model, on_best_device
from pixelis.models.lora import (
    WEIGHTS_FILE,
    add_lora,
    apply_lora_config,
    initial_factors,
    load_adapter,
    split_plain_lora,
    subtract_from_base,
)
from pixelis.recorder import Recorder

RANKS_FILE = "lora_ranks.json"
Load = Callable[[], Any]
Tensors = dict[str, torch.Tensor]
FOLDER = "lora"  # in the run's artifacts


def load_base(model: ModelConfig) -> Any:
    """Load the base of a configuration: on the CPU, or on the GPU if it is in 4 bits."""
    base = load_model(
        model.model_name,
        torch_dtype=model.torch_dtype,
        trust_remote_code=model.trust_remote_code,
        load_in_4bit=model.load_in_4bit,
        attn_implementation=model.attn_implementation,
    )
    if model.load_in_4bit:
        # Puts the norms in fp32. The trainer enables gradient checkpointing itself.
        prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]
    return base


def load_trained(config: ModelConfig, folder: Path) -> PeftModel:
    """Load the base of a configuration with a saved adapter, on the best device."""
    model = load_adapter(load_base(config), folder, model_name=config.model_name)
    return model if config.load_in_4bit else model.to(best_device())


def build_adapter(
    config: ModelConfig,
    dataset: CurriculumDataset,
    load: Load,
    *,
    seed: int,
    batch_size: int,
    output_dir: Path,
    recorder: Recorder,
    resume_from: Path | None = None,
) -> tuple[PeftModel, Tensors | None]:
    """Load the base and put the adapter of a configuration on it.

    A resumed training takes the ranks and the factors of the base from its checkpoint; the trainer
    loads the weights themselves later.

    Args:
        config: section `model`.
        dataset: the training split; EVA reads some of its examples.
        load: returns the base.
        seed: seed of the adapter's first weights and of EVA's choice of examples.
        batch_size: examples in one forward pass.
        output_dir: folder that the ranks are written to.
        recorder: records the ranks.
        resume_from: a complete checkpoint.

    Returns:
        The adapted base, and the factors that were taken from the base's weights (PiSSA, OLoRA) by
        their names in the adapter's file; None where the base is unchanged.

    Raises:
        ConfigError: when the model has no layer to adapt, or EVA gets too few examples or too few
            directions.
    """
    by_data = config.lora_r == "auto" or config.init_lora_weights == EVA
    if by_data and resume_from is not None:
        saved = LoraConfig.from_pretrained(str(resume_from))
        saved.inference_mode, saved.base_model_name_or_path = False, None
        return apply_lora_config(load(), saved, model_name=config.model_name, seed=seed), None
    if config.init_lora_weights in CHANGING_INITS:
        return _split_base(config, load, seed=seed, resume_from=resume_from)
    if not by_data:
        return _add(config, config.init_lora_weights, load, seed=seed), None
    spread = config.lora_auto_spread if config.lora_r == "auto" else 1.0
    model = _add(config, EVA, load, seed=seed, eva_spread=spread)
    batches = _draw_batches(dataset, model, config, seed=seed, batch_size=batch_size, spread=spread)
    with on_best_device(model) as device:
        spectra = fit_eva(model, [{k: x.to(device) for k, x in each.items()} for each in batches])
    _record(spectra, output_dir, recorder)
    return model, None


def _rank(config: ModelConfig) -> int:
    return config.lora_auto_rank if config.lora_r == "auto" else config.lora_r


def _add(
    config: ModelConfig, init: str, load: Load, *, seed: int, eva_spread: float = 1.0
) -> PeftModel:
    return add_lora(
        load(),
        model_name=config.model_name,
        lora_r=_rank(config),
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        seed=seed,
        init_lora_weights=init,
        use_dora=config.use_dora,
        use_rslora=config.use_rslora,
        train_vision=config.train_vision,
        train_merger=config.train_merger,
        eva_spread=eva_spread,
    )


def _split_base(
    config: ModelConfig, load: Load, *, seed: int, resume_from: Path | None
) -> tuple[PeftModel, Tensors]:
    """Move a part of the base's weights into the adapter (PiSSA, OLoRA).

    A fresh training loads the base twice and changes the second one by the factors alone, because
    a resumed training can only do that: so both train on the same rounded numbers.
    """
    if resume_from is None:
        initial = initial_factors(_add(config, config.init_lora_weights, load, seed=seed))
    else:
        _, initial = split_plain_lora(load_file(resume_from / WEIGHTS_FILE))
    model = _add(config, "default", load, seed=seed)
    subtract_from_base(model, initial)
    set_peft_model_state_dict(model, initial)
    return model, initial


def _draw_batches(
    dataset: CurriculumDataset,
    model: PeftModel,
    config: ModelConfig,
    *,
    seed: int,
    batch_size: int,
    spread: float,
) -> list[dict[str, torch.Tensor]]:
    """Draw batches of training examples of all difficulties, whatever the stage."""
    rank, most = _rank(config), largest_spectrum(model)
    positions = positions_needed(rank, spread)
    if positions > most:
        raise ConfigError(
            f"the largest rank that EVA may give must be <= {most // 2} for this model, got "
            f"{round(rank * spread)} (model.lora_auto_rank x lora_auto_spread, or lora_r)"
        )
    keys = [key for key in sorted(dataset.all_keys()) if key not in dataset.excluded]
    chosen = random.Random(f"eva {seed}").sample(keys, min(config.lora_auto_examples, len(keys)))
    # Each batch has at least `batch_size` examples and `positions` supervised tokens.
    batches, items, count = [], [], 0
    for key in chosen:
        items.append(dataset[key])
        count += sum(label != IGNORE_INDEX for label in items[-1].labels)
        is_last = key == chosen[-1]
        if count >= positions and (len(items) >= batch_size or is_last):
            batches.append(dataset.collate(items))
            items, count = [], 0
    if not batches:
        raise ConfigError(
            f"model.lora_auto_examples must give {positions} supervised tokens, got {len(chosen)} "
            "examples with fewer"
        )
    return batches


def _record(spectra: list[Spectrum], output_dir: Path, recorder: Recorder) -> None:
    """Record ranks and spectra as JSON and as figures."""
    rows = [asdict(one) for one in spectra]
    file = output_dir / RANKS_FILE
    write_atomic(file, json.dumps(rows, indent=1))
    recorder.artifact(file, FOLDER)
    for name, chart in (("ranks", layer_ranks(rows)), ("spectra", layer_spectra(rows))):
        recorder.figure(f"{FOLDER}/{name}.png", as_figure(chart))
        page = output_dir / f"lora_{name}.html"
        write_atomic(page, as_page(chart, f"lora {name}"))
        recorder.artifact(page, FOLDER)
