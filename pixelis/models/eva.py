"""Choose LoRA ranks from the data: EVA (Paischer et al. 2024, "Explained Variance Adaptation").

The A matrix of each layer starts as the directions in which the layer's inputs vary most over the
training examples. A fixed total number of directions is shared between all layers by the variance
that each direction explains, so that every layer gets its own rank. PEFT does the computation.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel, get_eva_state_dict, initialize_lora_eva_weights
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.eva import SVDHook, prepare_layer_inputs_fn_language_modeling

from pixelis.errors import ConfigError
from pixelis.models.families import is_vision_module
from pixelis.models.forward import model_inputs

PREFIX = "base_model.model."
Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Spectrum:
    """What EVA measured on the inputs of one layer."""

    layer: str  # the layer's path in the base
    rank: int  # the number of its directions; a layer with 0 has no adapter
    # The computed singular values of the inputs, the largest first.
    singular_values: tuple[float, ...]
    # Share of the inputs' variance that each of these directions explains.
    explained: tuple[float, ...]


def fit_eva(model: PeftModel, batches: Sequence[Batch]) -> list[Spectrum]:
    """Set the rank and the initial A of every layer, from its inputs at supervised positions.

    Args:
        model: with an adapter that `add_lora` prepared for eva; changed in place.
        batches: collated batches, each with at least `positions_needed` labelled positions.

    Returns:
        One spectrum for each layer, in the model's order.
    """
    hooks: dict[str, SVDHook] = {}

    def forward(adapted: Any, inputs: Batch) -> None:
        for module in adapted.modules():
            for hook in module._forward_hooks.values():
                if isinstance(hook, SVDHook):  # the only access to the singular values
                    hooks[hook.name] = hook
        kwargs = {name: value for name, value in inputs.items() if name != "labels"}
        adapted(**kwargs, logits_to_keep=1)

    directions = get_eva_state_dict(
        model,
        [{**model_inputs(batch), "labels": batch["labels"]} for batch in batches],
        forward_fn=forward,
        prepare_layer_inputs_fn=_layer_inputs,
        gather_distributed_inputs=False,  # all processes use the same examples
        show_progress_bar=False,
    )
    spectra = [_spectrum(name, chosen, hooks) for name, chosen in directions.items()]
    order = {name: index for index, (name, _) in enumerate(model.named_modules())}
    spectra.sort(key=lambda spectrum: order[PREFIX + spectrum.layer])
    initialize_lora_eva_weights(model, eva_state_dict=directions, show_progress_bar=False)
    for parameter in model.parameters():
        if parameter.requires_grad:  # peft gives layers of a new rank the base's dtype
            parameter.data = parameter.data.to(torch.float32)
    # From now on it is a plain adapter, which can be loaded without data.
    config: Any = model.peft_config["default"]
    config.init_lora_weights, config.eva_config = True, None
    # peft would save the shortest unique endings of the names, in no fixed order.
    adapted = [spectrum.layer for spectrum in spectra if spectrum.rank]
    config.target_modules = "|".join(re.escape(layer) for layer in adapted)
    return spectra


def positions_needed(model: PeftModel) -> int:
    """Return how many labelled positions a batch needs: twice the directions that are computed.

    peft would skip a smaller batch forever, and its randomised SVD needs as many again.

    Raises:
        ConfigError: when that is more than the smallest input size of an adapted layer.
    """
    config: Any = model.peft_config["default"]
    largest: int = round(config.r * config.eva_config.rho)
    most = min(int(m.in_features) for m in model.modules() if isinstance(m, LoraLayer)) // 2  # type: ignore[arg-type]
    if largest > most:
        raise ConfigError(
            f"the largest rank that EVA may give must be <= {most} for this model, got {largest} "
            "(model.lora_auto_rank x lora_auto_spread, or lora_r)"
        )
    return 2 * largest


def _layer_inputs(layer_input: Any, positions: Any, name: str) -> torch.Tensor:
    if is_vision_module(name):  # rows are patches, not text positions
        patches = layer_input[0] if isinstance(layer_input, tuple) else layer_input
        return patches.reshape(-1, patches.shape[-1])  # type: ignore[no-any-return]
    selected: torch.Tensor = prepare_layer_inputs_fn_language_modeling(layer_input, positions, name)
    return selected


def _spectrum(name: str, directions: torch.Tensor, hooks: Mapping[str, SVDHook]) -> Spectrum:
    layer, rank = name.removeprefix(PREFIX), len(directions)
    if name in hooks:
        svd = hooks[name].svd
    elif rank:  # layers with equal inputs (query, key and value) share one measurement
        same_width = (
            h.svd for h in hooks.values() if h.svd.components_.shape[1] == directions.shape[1]
        )
        svd = next(
            s for s in same_width if torch.equal(s.components_[:rank].cpu(), directions.cpu())
        )
    else:
        return Spectrum(layer, 0, (), ())
    return Spectrum(
        layer=layer,
        rank=rank,
        singular_values=tuple(svd.singular_values_.tolist()),
        explained=tuple(svd.explained_variance_ratio_.tolist()),
    )
