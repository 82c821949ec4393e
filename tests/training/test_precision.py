"""bf16 where the machine is fast with it, and said how."""

import pytest
import torch

from pixelis.models.load import load_model
from pixelis.models.lora import add_lora
from pixelis.training.precision import (
    CPU_ATTENTION,
    LONGEST_WHOLE,
    _attend,
    halve_base,
    resolve_precision,
    skip_input_casts,
)


@pytest.mark.parametrize(
    ("wanted", "gpu", "capabilities", "expected"),
    [
        ("auto", None, {"avx512_bf16": True}, "bf16"),
        ("auto", None, {"amx_bf16": True}, "bf16"),
        ("auto", None, {"bf16": True}, "bf16"),
        ("auto", None, {"avx512_f": True, "avx512_bf16": False}, "fp32"),
        ("auto", None, {}, "fp32"),
        ("auto", "native", {}, "bf16"),
        ("auto", "emulated", {"bf16": True}, "fp32"),
        ("fp32", "native", {}, "fp32"),
        ("bf16", None, {}, "bf16"),
    ],
)
def test_auto_asks_the_hardware(monkeypatch, wanted, gpu, capabilities, expected):
    def is_supported(including_emulation=True):
        return gpu == "native" or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision(wanted) == expected


def test_the_embedded_base_is_the_same_base_in_bf16():
    """Its weights are bf16 on disk: nothing of them is lost."""
    whole, half = (load_model("pixelis-nano", torch_dtype="float32") for _ in range(2))
    halve_base(half)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    for (name, one), two in zip(whole.named_parameters(), half.parameters(), strict=True):
        assert torch.equal(one, two.float()), name
    assert half.config._attn_implementation == CPU_ATTENTION
    ids = torch.arange(5, 45).reshape(2, 20)
    with torch.inference_mode():
        expected, found = whole(input_ids=ids).logits, half(input_ids=ids).logits.float()
    # A bf16 number has 8 bits: some hundredths of the largest logit after four layers.
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.8


class Causal(torch.nn.Module):
    """What transformers hands to an attention function: a decoder's layer."""

    is_causal = True
    num_key_value_groups = 2


def queries_keys_values(length, dtype, heads=4):
    generator = torch.Generator().manual_seed(length)
    shapes = ((3, heads, length, 16), (3, 2, length, 16), (3, 2, length, 16))
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def by_definition(query, key, value):
    """softmax(q k^T / sqrt(width)) v over what came before, head by head."""
    length, width = query.shape[2:]
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    heads = []
    for head in range(query.shape[1]):
        scores = query[:, head] @ key[:, head // 2].transpose(1, 2) / width**0.5
        heads.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value[:, head // 2])
    return torch.stack(heads, dim=2)


@pytest.mark.parametrize("length", [2, 37, LONGEST_WHOLE, LONGEST_WHOLE + 1])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_attention_is_what_its_formula_says_and_so_are_its_gradients(length, dtype, close):
    given = queries_keys_values(length, dtype)
    found, _ = _attend(Causal(), *given, None, scaling=16**-0.5)
    assert found.dtype == dtype and found.shape == (3, length, 4, 16)
    gradients = torch.autograd.grad(found.float().square().sum(), given)
    exact = [x.detach().float().requires_grad_() for x in given]
    expected = by_definition(*exact)
    torch.testing.assert_close(found.float(), expected, atol=close, rtol=close)
    for one, two in zip(
        gradients, torch.autograd.grad(expected.square().sum(), exact), strict=True
    ):
        torch.testing.assert_close(one.float(), two, atol=4 * close, rtol=4 * close)


def test_a_mask_and_the_vision_tower_are_served_as_well():
    query, key, value = queries_keys_values(9, torch.bfloat16, heads=2)
    layer = Causal()
    layer.is_causal, layer.num_key_value_groups = False, 1
    found, _ = _attend(layer, query, key, value, None)
    scores = query.float() @ key.float().transpose(2, 3) / 4
    expected = (scores.softmax(-1) @ value.float()).transpose(1, 2)
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)
    seen = torch.ones(3, 1, 9, 9, dtype=torch.bool)
    seen[..., 4:] = False
    found, _ = _attend(layer, query, key, value, seen)
    cut = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value.float()
    torch.testing.assert_close(found.float(), cut.transpose(1, 2), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("use_dora", [False, True])
def test_fewer_casts_give_the_same_bits(use_dora):
    ids = torch.arange(5, 45).reshape(2, 20)

    def loss_and_gradients(spare):
        base = load_model("pixelis-nano", torch_dtype="float32")
        halve_base(base)
        lora = {"lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "use_dora": use_dora}
        model = add_lora(base, model_name="pixelis-nano", seed=0, **lora)
        if spare:
            skip_input_casts(model)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        return loss, [p.grad for p in model.parameters() if p.requires_grad]

    (one, first), (two, second) = loss_and_gradients(False), loss_and_gradients(True)
    assert torch.equal(one, two)
    assert any(gradient.abs().max() > 0 for gradient in first)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
