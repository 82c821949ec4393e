"""Choosing the next token: the most likely one, or one drawn by a conversation's own generator.

A conversation draws one number a token from a generator that is seeded by what the conversation is
(`sample_seed`). So what it says does not depend on who is spoken to beside it.
"""

import hashlib
from collections.abc import Sequence

import torch


def sample_seed(seed: int, example_id: str, sample: int) -> int:
    """The seed of a conversation's generator: 63 bits of SHA-256 of run seed, example, number."""
    name = f"rollout:{seed}:{example_id}:{sample}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def choose_tokens(
    logits: torch.Tensor,
    *,
    temperature: float,
    generators: Sequence[torch.Generator | None],
) -> list[int]:
    """The next token of every row.

    At a temperature of 0 it is the most likely one. Else it is drawn from softmax(logits /
    temperature) by inverting the distribution function at one uniform number of the row's
    generator: the same number gives the same token, unless it falls within rounding (about 1e-6 of
    the probability) of the border between two.

    Args:
        logits: (n, V); -inf for tokens that may not be said.
        temperature: at least 0.
        generators: one a row, on the CPU; rows without one get their most likely token.
    """
    likeliest = logits.argmax(-1).tolist()
    if temperature == 0:
        return list(likeliest)
    drawn = [
        None if g is None else torch.rand((), generator=g, dtype=torch.float64).item()
        for g in generators
    ]
    # In double precision on every device: a sum over 150,000 tokens rounds too much in single.
    heights = torch.tensor([value or 0.0 for value in drawn], dtype=torch.float64).to(logits.device)
    reached = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
    chosen = torch.searchsorted(reached, heights[:, None] * reached[:, -1:], right=True)
    tokens = chosen.clamp(max=logits.shape[-1] - 1).squeeze(1).tolist()
    return [
        token if value is not None else best
        for token, value, best in zip(tokens, drawn, likeliest, strict=True)
    ]
