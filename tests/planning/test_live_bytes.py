import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pixelis.planning.live_bytes import LiveBytes

KIB = 1024


def test_what_lives_is_counted_from_its_making_to_its_end():
    with FakeTensorMode(), LiveBytes() as live:
        one = torch.empty(KIB, dtype=torch.uint8)
        view = one.view(2, -1)
        assert live.live == KIB  # a view has no bytes of its own
        two = torch.empty(3 * KIB, dtype=torch.uint8)
        del one
        assert live.live == 4 * KIB
        del view
        assert live.live == 3 * KIB
        del two
        assert (live.live, live.peak) == (0, 4 * KIB)


def test_what_backward_needs_lives_until_then():
    with FakeTensorMode(), LiveBytes() as live:
        weight = torch.empty(64, 64, requires_grad=True)
        before = live.live
        kept = (weight @ weight).exp().sum()
        assert live.live == before + 64 * 64 * 4 + 4  # the result of exp, and the sum
        kept.backward()
        del kept
        assert live.live == before + 64 * 64 * 4  # the gradient
