"""Which examples a step gets: up to date with the curriculum, restorable, shared by any ranks."""

import json

import pytest
import torch

from pixelis.curriculum import CurriculumConfig, CurriculumManager, MixtureSampler
from pixelis.data import loader as loader_module
from pixelis.data.loader import CurriculumLoader
from pixelis.errors import DataError

SIZES = {"simple": 13, "medium": 11, "hard": 7}
NAMES = list(SIZES)
SCORES = {name: [(7 * i + 3) % size / size for i in range(size)] for name, size in SIZES.items()}
# Harder examples are longer, with some overlap.
LENGTHS = {
    (name, i): 10 * NAMES.index(name) + (5 * i) % 13 for name in NAMES for i in range(SIZES[name])
}
GOOD = dict.fromkeys(SIZES, 0.9)
NUM_STEPS = 14

STAGED = {"advancement_interval": 3, "rollback_cooldown": 0}
STRATEGIES = {
    "staged": STAGED,
    "rolled back": STAGED | {"min_performance_for_advance": 1.0, "rollback_factor": 1.0},
    "trials": STAGED | {"trial_steps": 2, "min_performance_for_advance": 1.0},
    "schedule": {"strategy": "schedule", "schedule": {"steps": [4, 9]}},
    "competence": {"strategy": "competence", "competence": {"c0": 0.3, "steps": 10}},
    "self_paced": {"strategy": "self_paced", "advancement_interval": 3},
    "adaptive": {"strategy": "adaptive", "advancement_interval": 3},
    "active": {
        "strategy": "adaptive",
        "advancement_interval": 3,
        "adaptive": {"active_fraction": 0.4},
    },
    "disabled": {"enabled": False},
}


class Keys:
    """A dataset whose batches are their own keys."""

    excluded = frozenset()
    sizes = SIZES

    def __getitem__(self, key):
        return torch.tensor([NAMES.index(key[0]), key[1]])

    def collate(self, batch):
        return {"keys": torch.stack(batch)}

    def length(self, key):
        return LENGTHS[key]


def build(settings, dataset=None, **shape):
    manager = CurriculumManager(CurriculumConfig.from_dict(settings), max_steps=NUM_STEPS)
    manager.bind(SCORES)
    shape = {"batch_size": 3, "accumulation_steps": 2} | shape
    sampler = MixtureSampler(SIZES, manager.mix, seed=4)
    return manager, CurriculumLoader(dataset or Keys(), sampler, manager, **shape)


def decide(manager, step):
    """What the trainer's callback does after a step, and before the first."""
    if manager.needs_losses(step):
        losses = {name: dict(enumerate(values)) for name, values in SCORES.items()}
        manager.observe_losses(step, losses)
    if manager.attempt_due(step):
        manager.attempt(step, GOOD)


def train(manager, loader, first, last, batches=None, after=lambda step: None):
    """Steps `first` to `last` as a trainer would do them: (difficulty, index) pairs by step."""
    batches = iter(loader) if batches is None else batches
    seen = {}
    if first == 1:
        decide(manager, 0)
    for step in range(first, last + 1):
        drawn = [next(batches)["keys"] for _ in range(loader.accumulation_steps)]
        seen[step] = [(NAMES[name], index) for name, index in torch.cat(drawn).tolist()]
        manager.step()
        decide(manager, step)
        after(step)
    return seen


@pytest.mark.parametrize("settings", STRATEGIES.values(), ids=STRATEGIES)
def test_every_step_draws_what_the_manager_says_for_it(settings):
    manager, loader = build(settings)
    sampler = MixtureSampler(SIZES, manager.mix, seed=4)
    visit, batches = manager.visit, iter(loader)
    decide(manager, 0)
    for step in range(1, NUM_STEPS + 1):
        # Asked just before the step, when nothing can be out of date.
        entered, visit = manager.visit != visit, manager.visit
        sampler.set_mix(manager.mix, new_visit=entered)
        sampler.set_pool(manager.pool)
        expected = {step: sorted(sampler.draw(6), key=LENGTHS.get)}
        assert train(manager, loader, step, step, batches) == expected


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(num_workers):
    alone = train(*build(STAGED), 1, NUM_STEPS)
    assert train(*build(STAGED, num_workers=num_workers), 1, NUM_STEPS) == alone


@pytest.mark.parametrize("settings", STRATEGIES.values(), ids=STRATEGIES)
def test_restored_after_any_step_it_goes_on_with_exactly_the_next_example(settings):
    states = {}
    manager, loader = build(settings)

    def save(step):
        states[step] = json.dumps([manager.state_dict(), loader.state_dict()])

    whole = train(manager, loader, 1, NUM_STEPS, after=save)
    for step, text in states.items():
        curriculum, state = json.loads(text)
        manager, loader = build(settings)
        manager.load_state_dict(curriculum)
        loader.load_state_dict(state)
        last = min(step + 4, NUM_STEPS)  # over the next decision
        rest = train(manager, loader, step + 1, last)
        assert rest == {later: whole[later] for later in range(step + 1, last + 1)}
        assert json.loads(json.dumps(loader.state_dict())) == json.loads(states[last])[1]


def test_what_was_read_ahead_is_not_counted():
    manager, loader = build({"enabled": False}, num_workers=2)
    fresh = loader.state_dict()
    batches = iter(loader)
    train(manager, loader, 1, 2, batches)
    state = loader.state_dict()
    assert state["step"] == 2 and sum(state["sampler"]["counts"].values()) == 12
    loader.load_state_dict(fresh)
    assert loader.state_dict() == fresh


@pytest.mark.parametrize(
    "shape",
    [
        {"batch_size": 3, "accumulation_steps": 2, "world_size": 2},
        {"batch_size": 2, "accumulation_steps": 2, "world_size": 3},
        {"batch_size": 1, "accumulation_steps": 4, "world_size": 3},
        {"batch_size": 6, "accumulation_steps": 1, "world_size": 2, "num_workers": 2},
    ],
)
def test_processes_together_draw_what_one_draws(shape):
    alone = train(*build(STAGED, batch_size=12, accumulation_steps=1), 1, NUM_STEPS)
    ranks = []
    for rank in range(shape["world_size"]):
        manager, loader = build(STAGED, rank=rank, **shape)
        assert loader.examples_per_step == 12
        ranks.append((manager, train(manager, loader, 1, NUM_STEPS)))
    for step, examples in alone.items():
        shares = [seen[step] for _, seen in ranks]
        assert {len(share) for share in shares} == {12 // shape["world_size"]}
        assert sorted(sum(shares, [])) == sorted(examples)
    assert len({json.dumps(manager.state_dict()) for manager, _ in ranks}) == 1
    # What a rank saves is what any other would: one checkpoint serves all.
    assert len({rank_state(shape, rank) for rank in range(shape["world_size"])}) == 1


def rank_state(shape, rank):
    manager, loader = build(STAGED, rank=rank, **shape)
    train(manager, loader, 1, 5)
    return json.dumps(loader.state_dict())


def test_a_long_stretch_without_decisions_is_planned_in_pieces(monkeypatch):
    whole = train(*build({"enabled": False}), 1, NUM_STEPS)
    monkeypatch.setattr(loader_module, "MAX_SEGMENT_STEPS", 3)
    assert train(*build({"enabled": False}), 1, NUM_STEPS) == whole


@pytest.mark.parametrize("num_workers", [0, 2])
def test_torch_s_generator_is_left_alone(num_workers):
    # A number drawn from it at each rebuilt loader would change dropout after a resume.
    manager, loader = build(STAGED, num_workers=num_workers)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    train(manager, loader, 1, NUM_STEPS)
    assert torch.equal(torch.get_rng_state(), before)


class Broken(Keys):
    def __getitem__(self, key):
        if key[0] == "medium":
            raise DataError(f"example {key[1]}: an image does not open")
        return super().__getitem__(key)


class Buggy(Keys):
    def __getitem__(self, key):
        raise ZeroDivisionError("a bug of ours")


class Excluding(Keys):
    excluded = frozenset({("simple", 0), ("simple", 1), ("medium", 3)})


@pytest.mark.parametrize("settings", STRATEGIES.values(), ids=STRATEGIES)
def test_excluded_examples_are_never_drawn(settings):
    manager, loader = build(settings, Excluding())
    steps = train(manager, loader, 1, NUM_STEPS)
    assert not Excluding.excluded & {key for keys in steps.values() for key in keys}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_user_s_error_is_the_same_with_workers(num_workers):
    manager, loader = build(STAGED, Broken(), num_workers=num_workers)
    batches = iter(loader)
    train(manager, loader, 1, 3, batches)  # simple alone
    with pytest.raises(DataError, match=r"^example \d+: an image does not open$"):
        train(manager, loader, 4, 4, batches)


def test_our_own_bugs_are_not_swallowed():
    _, loader = build(STAGED, Buggy())
    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        next(iter(loader))


# Like lengths together


def micro_batches(loader, number):
    """Their keys, in order."""
    stream = iter(loader)
    found = [next(stream)["keys"].tolist() for _ in range(number)]
    return [[(NAMES[name], i) for name, i in batch] for batch in found]


MIXED = {
    "enabled": False,
    "stages": [{"name": "all", "difficulty_mix": dict.fromkeys(SIZES, 1 / 3)}],
}


def test_like_lengths_come_together_inside_a_step_and_its_mix_stays_exact():
    _, loader = build(MIXED, batch_size=3, accumulation_steps=4)
    found = micro_batches(loader, 4 * NUM_STEPS)
    _, plain = build(MIXED, batch_size=12, accumulation_steps=1)
    drawn = micro_batches(plain, NUM_STEPS)
    padded = []
    for step, expected in enumerate(drawn):
        batches = found[4 * step : 4 * step + 4]
        examples = sum(batches, [])
        # The sampler's own draw of this step, nothing of another.
        assert sorted(examples) == sorted(expected)
        lengths = [LENGTHS[key] for key in examples]
        assert lengths == sorted(lengths)
        assert {name: sum(key[0] == name for key in examples) for name in NAMES} == (
            dict.fromkeys(NAMES, 4)
        )
        padded.append(sum(3 * max(LENGTHS[key] for key in batch) for batch in batches))
    unsorted = sum(
        3 * max(LENGTHS[key] for key in step[i : i + 3]) for step in drawn for i in range(0, 12, 3)
    )
    assert sum(padded) < 0.8 * unsorted


def test_a_step_in_one_batch_stays_in_the_sampler_s_order():
    manager, loader = build(MIXED, batch_size=12, accumulation_steps=1)
    sampler = MixtureSampler(SIZES, manager.mix, seed=4)
    assert micro_batches(loader, 1) == [sampler.draw(12)]
