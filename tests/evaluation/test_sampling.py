import pytest
import torch

from pixelis.evaluation.sampling import choose_tokens, sample_seed


def draw(logits, count, temperature=1.0, seed=0):
    rows = torch.tensor([logits])
    generator = torch.Generator().manual_seed(seed)
    return [
        choose_tokens(rows, temperature=temperature, generators=[generator])[0]
        for _ in range(count)
    ]


def test_zero_takes_the_likeliest():
    rows = torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert choose_tokens(rows, temperature=0.0, generators=[None, None]) == [1, 0]


def test_draws_follow_the_softmax():
    shares = torch.tensor([0.5, 0.2, 0.3])
    drawn = torch.tensor(draw(shares.log().tolist(), 4000))
    found = torch.bincount(drawn, minlength=3) / 4000
    assert torch.allclose(found, shares, atol=0.03)


def test_temperature_sharpens():
    drawn = torch.tensor(draw([1.0, 0.0], 2000, temperature=0.5))
    expected = torch.softmax(torch.tensor([2.0, 0.0]), 0)[0].item()
    assert (drawn == 0).float().mean().item() == pytest.approx(expected, abs=0.03)


def test_a_forbidden_token_is_never_drawn():
    forbidden = -float("inf")
    assert set(draw([forbidden, 0.0, forbidden, 0.0, forbidden], 500)) == {1, 3}


def test_rows_draw_from_their_own_generators():
    rows = torch.zeros(2, 50)
    alone = draw([0.0] * 50, 5, seed=7)
    generators = [torch.Generator().manual_seed(1), torch.Generator().manual_seed(7)]
    beside = [choose_tokens(rows, temperature=1.0, generators=generators)[1] for _ in range(5)]
    assert beside == alone


def test_a_row_without_a_generator_takes_its_likeliest():
    rows = torch.tensor([[0.0, 5.0], [5.0, 0.0]])
    assert choose_tokens(rows, temperature=9.0, generators=[None, None]) == [1, 0]


def test_seeds_differ_by_all_that_names_a_conversation():
    seeds = {sample_seed(s, e, n) for s in (0, 1) for e in ("a", "b") for n in (0, 1)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert sample_seed(0, "a", 0) == sample_seed(0, "a", 0)
