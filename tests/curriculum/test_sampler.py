import json
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.curriculum import ConfigError, MixtureSampler, draw_scored
from pixelis.curriculum.sampler import Quota

SIZES = {"simple": 10, "medium": 7, "hard": 5}
BALANCED = {"simple": 0.4, "medium": 0.4, "hard": 0.2}
MIXES = (
    st.lists(st.integers(0, 9), min_size=3, max_size=3)
    .filter(any)
    .map(
        lambda weights: {
            name: weight / sum(weights) for name, weight in zip(SIZES, weights, strict=True)
        }
    )
)
POOLS = st.fixed_dictionaries(
    {},
    optional={
        name: st.sets(st.integers(0, size - 1), min_size=1).map(sorted)
        for name, size in SIZES.items()
    },
)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("draw"), st.integers(0, 40)),
        st.tuples(st.just("set_mix"), MIXES),
        st.tuples(st.just("set_pool"), st.none() | POOLS),
    ),
    max_size=12,
)


def run(sampler, actions):
    return [getattr(sampler, name)(argument) for name, argument in actions]


@given(st.lists(st.tuples(MIXES, st.integers(0, 60)), min_size=1, max_size=6), st.integers(0, 99))
def test_over_any_prefix_of_a_visit_the_counts_are_within_one(visits, seed):
    sampler = MixtureSampler(SIZES, visits[0][0], seed)
    for mix, num_draws in visits:
        sampler.set_mix(mix)
        counts = Counter()
        for drawn in range(1, num_draws + 1):
            counts[sampler.draw(1)[0][0]] += 1
            assert all(abs(counts[name] - mix[name] * drawn) < 1 for name in mix)


@given(ACTIONS, st.integers(0, 99))
def test_every_example_is_drawn_once_before_any_is_drawn_again(actions, seed):
    sampler = MixtureSampler(SIZES, BALANCED, seed)
    pools = {name: set(range(size)) for name, size in SIZES.items()}
    left = {name: set(pool) for name, pool in pools.items()}
    for action, argument in actions:
        result = getattr(sampler, action)(argument)
        if action == "set_pool":
            for name, size in SIZES.items():
                pool = set((argument or {}).get(name, range(size)))
                if pool != pools[name]:
                    pools[name], left[name] = pool, set(pool)
        for name, index in result or []:
            left[name] = left[name] or set(pools[name])
            left[name].remove(index)


@given(ACTIONS, ACTIONS, st.integers(0, 99))
def test_restored_it_continues_with_exactly_the_next_example(before, after, seed):
    sampler = MixtureSampler(SIZES, BALANCED, seed)
    run(sampler, before)
    state = json.loads(json.dumps(sampler.state_dict()))
    assert state == sampler.state_dict()
    restored = MixtureSampler(SIZES, {"simple": 1.0}, seed + 1)
    restored.draw(3)
    restored.load_state_dict(state)
    copied = sampler.copy()
    after = [*after, ("draw", 30)]
    expected = run(sampler, after)
    assert run(restored, after) == expected
    assert run(copied, after) == expected
    assert restored.state_dict() == sampler.state_dict()


@given(st.lists(st.integers(0, 20), max_size=8))
def test_the_size_of_a_draw_changes_nothing(sizes):
    pieces, whole = MixtureSampler(SIZES, BALANCED), MixtureSampler(SIZES, BALANCED)
    assert [pair for size in sizes for pair in pieces.draw(size)] == whole.draw(sum(sizes))


def test_what_a_copy_drew_ahead_is_not_lost():
    sampler = MixtureSampler(SIZES, {"simple": 1.0})
    sampler.copy().draw(5)
    assert {index for _, index in sampler.draw(10)} == set(range(10))


def test_the_seed_decides_the_order_and_each_pass_has_its_own():
    first = MixtureSampler({"a": 50}, {"a": 1.0}, seed=1).draw(100)
    assert first == MixtureSampler({"a": 50}, {"a": 1.0}, seed=1).draw(100)
    assert first != MixtureSampler({"a": 50}, {"a": 1.0}, seed=2).draw(100)
    assert first[:50] != first[50:]


def test_the_order_is_the_same_in_every_process():
    code = (
        "from pixelis.curriculum import MixtureSampler;"
        f"print(MixtureSampler({SIZES}, {BALANCED}, seed=3).draw(40))"
    )
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert shown.stdout.strip() == str(MixtureSampler(SIZES, BALANCED, seed=3).draw(40))


def test_an_unchanged_pool_goes_on_with_its_pass():
    sampler = MixtureSampler(SIZES, {"simple": 1.0})
    sampler.set_pool({"simple": [8, 3, 5]})
    drawn = sampler.draw(2)
    sampler.set_pool({"simple": [3, 5, 8]})
    assert {index for _, index in drawn + sampler.draw(1)} == {3, 5, 8}


def test_a_drifting_mix_keeps_what_is_owed():
    sampler, counts = MixtureSampler(SIZES, {"simple": 1.0}), Counter()
    for step in range(200):
        hard = 0.02 + step * 1e-5
        sampler.set_mix({"simple": 1 - hard, "hard": hard}, new_visit=False)
        counts.update(name for name, _ in sampler.draw(8))
    assert counts["hard"] == pytest.approx(1600 * 0.021, abs=1.5)


def test_the_mix_is_read_but_not_changed_from_outside():
    sampler = MixtureSampler(SIZES, BALANCED)
    sampler.mix["simple"] = 9
    assert sampler.mix == BALANCED
    sampler.draw(7)
    sampler.set_mix(BALANCED, new_visit=False)
    assert sampler.state_dict()["counts"] == {"simple": 3, "medium": 3, "hard": 1}


def test_an_empty_pool_that_the_mix_takes_from_is_an_error():
    sampler = MixtureSampler(SIZES, BALANCED)
    sampler.set_pool({"hard": []})
    with pytest.raises(ValueError, match="the mix takes 0.2 from the empty pool 'hard'"):
        sampler.draw(1)
    sampler.set_mix({"simple": 1.0})
    assert len(sampler.draw(3)) == 3


@pytest.mark.parametrize("sizes", [{"a": 0}, {"b": 1}])
def test_a_mix_takes_only_from_difficulties_with_examples(sizes):
    text = "mix: the fraction of 'a', which has no training examples, must be 0, got 1"
    with pytest.raises(ConfigError, match=text):
        MixtureSampler(sizes, {"a": 1})


def test_a_state_of_other_examples_is_rejected():
    state = MixtureSampler({"simple": 11}, {"simple": 1.0}).state_dict()
    with pytest.raises(ConfigError, match="sampler state: sizes must be those of the training exa"):
        MixtureSampler(SIZES, BALANCED).load_state_dict(state)


def test_the_order_is_that_of_the_sizes_whatever_the_mix_names_first():
    sizes = {"b": 9, "a": 9}
    first = MixtureSampler(sizes, {"a": 0.5, "b": 0.5})
    assert first.draw(6) == MixtureSampler(sizes, {"b": 0.5, "a": 0.5}).draw(6)
    # A state survives a writer that sorts its keys.
    second = MixtureSampler(sizes, {"b": 0.5, "a": 0.5})
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), sort_keys=True)))
    assert second.draw(7) == first.draw(7)


# The quota


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=5), st.integers(1, 200))
def test_every_prefix_is_within_one_of_any_float_mix(weights, num_draws):
    mix = {str(place): weight / sum(weights) for place, weight in enumerate(weights)}
    quota, counts = Quota(mix), dict.fromkeys(mix, 0)
    for drawn in range(1, num_draws + 1):
        counts[quota.next()] += 1
        # The fractions are exact, the floats of this test are not.
        assert all(abs(counts[name] - mix[name] * drawn) < 1 + 1e-9 for name in mix)


def test_credit_of_a_difficulty_that_leaves_the_mix():
    quota = Quota({"a": 0.5, "b": 0.5}, credits={"a": -(10**9), "b": -(10**9)})
    assert {quota.next() for _ in range(4)} == {"a", "b"}


# The examples whose losses are measured


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 40), min_size=1),
    st.none() | st.integers(1, 90),
    st.integers(0, 9),
    st.integers(0, 9),
)
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
