import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.curriculum import ConfigError, draw_scored
from pixelis.curriculum.scoring import check_losses, select_active

SIZES = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 40), min_size=1)
# Few different losses: ties are the rule.
LOSSES = st.dictionaries(st.integers(0, 50), st.sampled_from([0, 0.5, 1, 2, 3.5, 9]), min_size=1)
SHARES = st.floats(0, 1, exclude_min=True)


@given(SIZES, st.none() | st.integers(1, 90), st.integers(0, 9), st.integers(0, 9))
def test_the_scored_pool_is_bounded_and_has_every_difficulty(sizes, pool_size, seed, step):
    drawn = draw_scored(sizes, pool_size, seed=seed, step=step)
    assert drawn == draw_scored(sizes, pool_size, seed=seed, step=step)
    assert len(drawn) == len(set(drawn))
    assert all(index in range(sizes[name]) for name, index in drawn)
    total = sum(sizes.values())
    if pool_size is None or pool_size >= total:
        assert len(drawn) == total
        return
    assert len(drawn) <= pool_size + len(sizes)
    for name, size in sizes.items():
        count = sum(key[0] == name for key in drawn)
        share = pool_size * size / total
        assert min(size, 1) <= count <= max(1, share) and count > share - 1


def test_each_step_and_each_seed_has_its_own_pool_and_in_time_all_are_scored():
    sizes = {"simple": 30, "hard": 30}
    pools = [tuple(draw_scored(sizes, 20, seed=1, step=step)) for step in range(20)]
    assert len(set(pools)) == 20
    assert len({key for pool in pools for key in pool}) == 60
    assert draw_scored(sizes, 20, seed=2, step=0) != list(pools[0])


@given(LOSSES, SHARES, SHARES, st.integers(0, 9))
def test_the_active_are_the_highest_losses_below_the_cut(losses, fraction, cut, shuffle):
    scored = list(losses.items())
    Random(shuffle).shuffle(scored)
    active = select_active(scored, fraction, cut)
    assert active == select_active(list(losses.items()), fraction, cut), "the order matters"
    # Written out plainly: how many losses lie at or below one's own.
    total = len(losses)
    below = {i: sum(other <= loss for other in losses.values()) for i, loss in losses.items()}
    first = min(at for at in below.values() if at >= round(cut * total, 9))
    clean = [index for index, at in below.items() if at <= first]
    assert active.num_noisy == total - len(clean)
    wanted = max(1, math.ceil(round(fraction * total, 9)))
    assert len(active.chosen) == min(wanted, len(clean)) >= 1
    assert active.chosen == sorted(set(active.chosen)) and set(active.chosen) <= set(clean)
    left = set(clean) - set(active.chosen)
    for index in active.chosen:
        assert all((losses[index], -index) > (losses[other], -other) for other in left)


def test_the_active_by_hand():
    scored = [(0, 1.0), (1, 4.0), (2, 9.0), (3, 4.0), (4, 0.5)]
    assert select_active(scored, 0.4, 0.8).chosen == [1, 3]
    assert select_active(scored, 0.4, 0.8).num_noisy == 1
    assert select_active(scored, 0.2, 0.8).chosen == [1]  # of equal losses the lower index
    assert select_active(scored, 0.2, 1.0).chosen == [2]
    assert select_active(scored, 1.0, 0.4).chosen == [0, 4]
    ten = [(index, float(index)) for index in range(10)]
    assert select_active(ten, 0.1, 0.9).chosen == [8]


def test_losses_are_checked():
    assert check_losses("hard", {"hard": {3: 1, 0: 0.5}}) == [(3, 1.0), (0, 0.5)]
    with pytest.raises(ConfigError, match="the losses of difficulty 'hard' must be given for at"):
        check_losses("hard", {"simple": {0: 1.0}})
    for value in (-1.0, float("nan"), float("inf"), True):
        with pytest.raises(ConfigError, match="the loss of hard example 2 must be a finite number"):
            check_losses("hard", {"hard": {2: value}})
