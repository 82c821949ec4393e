"""bf16 where the machine is fast with it, and said how."""

import pytest
import torch

from pixelis.models.load import load_model
from pixelis.training.precision import SDPA_FLOAT32, halve_base, resolve_precision


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"bf16": True}, "bf16"),
        ({"avx512_f": True, "avx512_bf16": False}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_auto_asks_the_processor(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision("auto") == expected


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_asks_the_gpu_and_wants_no_emulation(monkeypatch, supported, expected):
    def is_supported(including_emulation=True):
        return supported or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert resolve_precision("auto") == expected


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_what_is_named_is_taken(wanted):
    assert resolve_precision(wanted) == wanted


def test_the_embedded_base_is_the_same_base_in_bf16():
    """Its weights are bf16 on disk: nothing of them is lost; attention is computed in fp32."""
    whole, half = (load_model("pixelis-nano", torch_dtype="float32") for _ in range(2))
    halve_base(half)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    for (name, one), two in zip(whole.named_parameters(), half.parameters(), strict=True):
        assert torch.equal(one, two.float()), name
    assert half.config._attn_implementation == SDPA_FLOAT32
    ids = torch.arange(5, 45).reshape(2, 20)
    with torch.inference_mode():
        expected, found = whole(input_ids=ids).logits, half(input_ids=ids).logits.float()
    # A bf16 number has 8 bits: some hundredths of the largest logit after four layers.
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.8
