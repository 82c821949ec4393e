"""Ranks from the data: EVA (Paischer et al. 2024, "Explained Variance Adaptation"), by peft.

Each layer's A begins as the directions in which its inputs vary most over training examples. A
budget of directions is dealt out over all layers by the share of variance that each explains, so
that layers get ranks of their own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel, get_eva_state_dict, initialize_lora_eva_weights
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.eva import SVDHook, prepare_layer_inputs_fn_language_modeling

from pixelis.models.feed import feed
from pixelis.models.targets import is_vision

PREFIX = "base_model.model."
Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Spectrum:
    """What EVA found in the inputs of one layer.

    Attributes:
        layer: its path in the base.
        rank: directions that it was given; with 0 it has no adapter.
        singular_values: of the inputs, the largest first, as many as were looked for.
        explained: share of the inputs' variance that each of these directions explains.
    """

    layer: str
    rank: int
    singular_values: tuple[float, ...]
    explained: tuple[float, ...]


def fit_eva(model: PeftModel, batches: Sequence[Batch]) -> list[Spectrum]:
    """Give each layer its rank and first directions, from the inputs at supervised positions.

    Args:
        model: with an adapter of `add_lora(..., init_lora_weights="eva")`; changed in place.
        batches: of the collate function; in each, at least as many positions with a label as the
            largest rank that a layer may get (`positions_needed`).

    Returns:
        a spectrum a layer, in the model's order.
    """
    hooks: dict[str, SVDHook] = {}

    def forward(adapted: Any, inputs: Batch) -> None:
        for module in adapted.modules():
            for hook in module._forward_hooks.values():
                if isinstance(hook, SVDHook):  # peft keeps what they measured to itself
                    hooks[hook.name] = hook
        given = {name: value for name, value in inputs.items() if name != "labels"}
        adapted(**given, logits_to_keep=1)

    found = get_eva_state_dict(
        model,
        [{**feed(batch), "labels": batch["labels"]} for batch in batches],
        forward_fn=forward,
        prepare_layer_inputs_fn=_layer_inputs,
        gather_distributed_inputs=False,  # every process looks at the same examples
        show_progress_bar=False,
    )
    spectra = [_spectrum(name, directions, hooks) for name, directions in found.items()]
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    spectra.sort(key=lambda one: order[PREFIX + one.layer])
    initialize_lora_eva_weights(model, eva_state_dict=found, show_progress_bar=False)
    for parameter in model.parameters():
        if parameter.requires_grad:  # layers of a new rank have the base's type
            parameter.data = parameter.data.to(torch.float32)
    # From here on it is a plain adapter: whoever loads it needs no data.
    config: Any = model.peft_config["default"]
    config.init_lora_weights, config.eva_config = True, None
    # peft leaves the shortest endings of names that are unique in this model, in no fixed order.
    adapted = [one.layer for one in spectra if one.rank]
    config.target_modules = "|".join(re.escape(layer) for layer in adapted)
    return spectra


def positions_needed(lora_r: int, eva_spread: float) -> int:
    """Positions with a label that a batch must have: twice the directions that are looked for.

    peft skips a smaller batch for ever, and its randomised SVD oversamples by as many again.
    """
    return 2 * round(lora_r * eva_spread)


def largest_spectrum(model: PeftModel) -> int:
    """The smallest number of inputs of an adapted layer, which `positions_needed` may not pass."""
    return min(int(m.in_features) for m in model.modules() if isinstance(m, LoraLayer))  # type: ignore[arg-type]


def _layer_inputs(layer_input: Any, positions: Any, name: str) -> torch.Tensor:
    if is_vision(name):  # patches, not text positions
        patches = layer_input[0] if isinstance(layer_input, tuple) else layer_input
        return patches.reshape(-1, patches.shape[-1])  # type: ignore[no-any-return]
    chosen: torch.Tensor = prepare_layer_inputs_fn_language_modeling(layer_input, positions, name)
    return chosen


def _spectrum(name: str, directions: torch.Tensor, hooks: Mapping[str, SVDHook]) -> Spectrum:
    """Layers with equal inputs (query, key and value) share one measurement."""
    rank = len(directions)
    own = hooks.get(name)
    if own is None and rank:
        same = (h.svd for h in hooks.values() if h.svd.components_.shape[1] == directions.shape[1])
        measured = next(
            s for s in same if torch.equal(s.components_[:rank].cpu(), directions.cpu())
        )
    elif own is None:
        return Spectrum(name.removeprefix(PREFIX), 0, (), ())
    else:
        measured = own.svd
    return Spectrum(
        layer=name.removeprefix(PREFIX),
        rank=rank,
        singular_values=tuple(measured.singular_values_.tolist()),
        explained=tuple(measured.explained_variance_ratio_.tolist()),
    )
