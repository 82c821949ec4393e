"""Through the real Trainer: what reaches the model, how tokens weigh, what a rollback undoes."""

import math

import pytest
import torch
from safetensors.torch import load_file

from pixelis.curriculum import MixtureSampler
from pixelis.data.encode import IGNORE_INDEX, OPERATION
from pixelis.data.store import load_split
from pixelis.evaluation.validation import Stratum, Tally, Validation
from pixelis.training.checkpoint import ADAPTER_FILE
from pixelis.training.trainer import compute_token_loss
from pixelis.training.weights import SNAPSHOT_FILE, TrainedWeights
from tests.training.conftest import moments_of

pytestmark = pytest.mark.integration

NANO = "pixelis-nano"
NAMES = ("simple", "medium", "hard")


# What reaches the model


@pytest.fixture
def sizes(data_dir):
    return {name: len(rows) for name, rows in load_split(data_dir, "train").items()}


ONE_BY_ONE = [
    {"name": "a", "difficulty_mix": {"simple": 1.0}},
    {"name": "b", "difficulty_mix": {"hard": 1.0}},
    {"name": "c", "difficulty_mix": {"simple": 0.5, "medium": 0.5}},
]


def drawn_without_a_trainer(sizes, mixes, per_step):
    """What a sampler alone gives; `mixes` are {step: mix}, each the start of a visit."""
    sampler = MixtureSampler(sizes, mixes[1], seed=0)
    drawn = {}
    for step in range(1, 7):
        if step in mixes and step > 1:
            sampler.set_mix(mixes[step])
        drawn[step] = sorted(sampler.draw(per_step))
    return drawn


def whole_steps(seen):
    """Inside a step, like lengths come together."""
    return {step: sorted(keys) for step, keys in seen.items()}


@pytest.mark.parametrize(
    "num_workers", [0, 2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 4))]
)
def test_the_first_step_after_an_event_has_the_new_mix_only(trained, advancing, sizes, num_workers):
    # Decisions at 2 and 4, evaluations without one at 3; a step is two micro-batches, and each
    # worker reads two ahead all the time.
    run = trained(
        advancing | {"stages": ONE_BY_ONE}, max_steps=6, num_workers=num_workers, eval_steps=3
    )
    seen, result = run.keys, run.result
    assert [e.step for e in result.events if e.kind == "advance"] == [2, 4]
    mixes = {step: ONE_BY_ONE[i]["difficulty_mix"] for i, step in enumerate((1, 3, 5))}
    assert {name for step in (1, 2) for name, _ in seen[step]} == {"simple"}
    assert {name for step in (3, 4) for name, _ in seen[step]} == {"hard"}
    # Nothing that was read ahead is lost to its pass: exactly what a sampler gives, step by step.
    assert whole_steps(seen) == drawn_without_a_trainer(sizes, mixes, per_step=4)


def test_a_rollback_goes_back_to_the_old_mix_at_once(trained, retreating, sizes):
    run = trained(retreating | {"stages": ONE_BY_ONE}, max_steps=6)
    seen, result = run.keys, run.result
    assert [(e.kind, e.step) for e in result.events] == [
        ("start", 0),
        ("trial", 2),
        ("rollback", 4),
        ("end", 6),
    ]
    mixes = {step: ONE_BY_ONE[i]["difficulty_mix"] for step, i in ((1, 0), (3, 1), (5, 0))}
    assert whole_steps(seen) == drawn_without_a_trainer(sizes, mixes, per_step=4)


# The loss


@pytest.fixture
def batch():
    """Two rows of five tokens, six of them supervised, three of these in a call."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, generator=generator)
    labels = torch.tensor([[IGNORE_INDEX, 3, 1, 6, 2], [IGNORE_INDEX, IGNORE_INDEX, 5, 0, -100]])
    kinds = torch.tensor([[0, 0, OPERATION, OPERATION, 0], [0, 0, 0, OPERATION, 0]])
    return logits, labels, kinds


def each_loss(logits, labels):
    """By the definition: (row, position) -> -log p."""
    logs = logits.log_softmax(-1)
    return {
        (row, t): -logs[row, t - 1, labels[row, t]].item()
        for row in range(2)
        for t in range(1, 5)
        if labels[row, t] != IGNORE_INDEX
    }


def test_the_mean_over_supervised_tokens(batch):
    logits, labels, _ = batch
    known = each_loss(logits, labels)
    assert len(known) == 6
    loss = compute_token_loss({"logits": logits}, labels)
    assert loss.item() == pytest.approx(sum(known.values()) / 6, abs=1e-6)
    # Of a step with more micro-batches: its share of the whole.
    part = compute_token_loss({"logits": logits}, labels, torch.tensor(10))
    assert part.item() == pytest.approx(sum(known.values()) / 10, abs=1e-6)


def test_logits_of_the_supervised_tokens_alone_give_the_same_number(batch):
    logits, labels, kinds = batch
    kept = logits[:, :-1][labels[:, 1:] != IGNORE_INDEX]
    for words in ({}, {"kinds": kinds, "operation_weight": 2.5}):
        whole = compute_token_loss({"logits": logits}, labels, **words)
        assert torch.equal(compute_token_loss({"logits": kept}, labels, **words), whole)


def test_tokens_of_a_call_weigh_what_they_are_said_to(batch):
    logits, labels, kinds = batch
    known = each_loss(logits, labels)
    in_call = {(0, 2), (0, 3), (1, 3)}
    expected = sum((2.5 if at in in_call else 1) * loss for at, loss in known.items()) / 6
    loss = compute_token_loss({"logits": logits}, labels, kinds=kinds, operation_weight=2.5)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert abs(expected - sum(known.values()) / 6) > 0.1


def test_a_weight_of_one_is_no_weight_to_the_bit(batch):
    logits, labels, kinds = batch
    weighed = compute_token_loss({"logits": logits}, labels, kinds=kinds, operation_weight=1.0)
    assert torch.equal(weighed, compute_token_loss({"logits": logits}, labels))


def test_the_trainer_steps_alike_however_a_step_is_cut(train, advancing, tmp_path):
    def run(name, training, model):
        model = {"lora_dropout": 0.0} | model
        usual = {"max_steps": 2, "logging_steps": 1, "output_dir": tmp_path / name}
        usual |= {"precision": "fp32"}  # sums of other shapes differ in bf16's third digit
        return train(advancing, model=model, **usual | training)[1].values

    two_and_two = run("two", {}, {})
    others = [
        run("one", {"batch_size": 4, "gradient_accumulation_steps": 1}, {}),
        # Recomputed activations (the 7B's setting) need gradients on frozen embeddings.
        run("again", {}, {"gradient_checkpointing": True}),
    ]
    for step in (1, 2):
        for name in ("train/loss", "train/grad_norm"):
            expected = two_and_two[name, step]
            assert expected > 0
            assert [v[name, step] for v in others] == pytest.approx([expected] * 2, rel=1e-4)


# Rolling weights back


class WatchedWeights(TrainedWeights):
    """Notes adapter, moments and learning rate around snapshot and restore."""

    notes: list

    def look(self, optimizer):
        rates = [group["lr"] for group in optimizer.param_groups]
        return self.tensors(), moments_of(optimizer), rates

    def take_snapshot(self, optimizer):
        super().take_snapshot(optimizer)
        self.notes.append(self.look(optimizer))

    def restore_snapshot(self, optimizer):
        self.notes.append(self.look(optimizer))
        super().restore_snapshot(optimizer)
        self.notes.append(self.look(optimizer))


def assert_equal(one, two):
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def watched(train, monkeypatch):
    monkeypatch.setattr("pixelis.training.sft.TrainedWeights", WatchedWeights)
    monkeypatch.setattr(WatchedWeights, "notes", [], raising=False)

    def run(curriculum, **training):
        return *train(curriculum, **training), WatchedWeights.notes

    return run


def test_weights_and_moments_go_back_to_the_trial_s_beginning(watched, retreating):
    # The trial ends at the last step: the final adapter is the one that it began with.
    result, recorder, _, notes = watched(retreating, max_steps=4)
    assert [e.kind for e in result.events] == ["start", "trial", "rollback", "end"]
    (adapter, moments, _), (tried, moved, rate), (restored, put_back, rate_after) = notes
    assert len(moments) == 3 * len(adapter)  # exp_avg, exp_avg_sq and step of every tensor
    assert any(not torch.equal(adapter[name], tried[name]) for name in adapter)
    assert any(not torch.equal(moments[name], moved[name]) for name in moments)
    assert_equal(restored, adapter)
    assert_equal(put_back, moments)
    assert rate_after == rate  # the schedule goes on
    saved = load_file(result.final_dir / ADAPTER_FILE)
    assert_equal(saved, {n.replace(".default", ""): value for n, value in adapter.items()})
    # What is said of the final weights was measured on them; what was measured stays recorded.
    before, after, put_back = result.evaluations
    assert [step for step, _ in result.evaluations] == [2, 4, 4]
    assert put_back[1] == before[1] == result.events[-1].strata
    for name, value in after[1].items():
        assert recorder.values[f"eval/{name}/likelihood", 4] == value


# Trials by progress

PROGRESS = {"decision": "progress", "performance_metric": "answer_likelihood"}


def test_progress_and_forgetting_are_of_the_examples_that_the_strata_are_of(train, retreating):
    result, recorder, _ = train(retreating | PROGRESS, max_steps=4)
    assert [e.kind for e in result.events] == ["start", "trial", "rollback", "end"]
    (_, before), (_, after), _ = result.evaluations
    assert after == {n: recorder.values[f"eval/{n}/answer_likelihood", 4] for n in after}
    rises = {name: after[name] - before[name] for name in after}
    event = result.events[2]
    assert event.progress == pytest.approx(min(rises["medium"], rises["hard"]))
    assert event.forgetting == pytest.approx(-rises["simple"])
    assert event.progress_standard_error > 0 and event.forgetting_standard_error > 0


def test_a_training_resumed_inside_an_extended_trial_is_the_same_to_the_bit(
    train, monkeypatch, retreating, tmp_path
):
    def script(levels):
        """Strata of two examples that come apart from one evaluation to the next."""

        def scripted(validation, model):
            low, high = next(told), next(told)
            tallies = tuple(Tally(5, 5, 1.0, True, -math.log(each)) for each in (low, high))
            return {name: Stratum(2, 10, 1.0, 0.5, 0.5, tallies) for name in NAMES}

        told = iter(levels)
        monkeypatch.setattr(Validation, "__call__", scripted)

    # Evaluations at 2, where the trial begins, at 4, 5, 6 and 8.
    levels = [0.5, 0.5, 0.45, 0.54, 0.4, 0.5, 0.45, 0.54, 0.5, 0.5]
    script(levels)
    whole, recorder, lines = train(retreating | PROGRESS, save_steps=5)
    kinds = [(event.kind, event.reason, event.step) for event in whole.events]
    assert kinds == [
        *[("start", None, 0), ("trial", None, 2), ("extend", "unclear", 4)],
        *[("rollback", "no_progress: medium", 6), ("end", None, 8)],
    ]
    assert lines[1] == (
        "🧪 Extended the trial of stage balanced at step 4: "
        "progress -0.0050 ± 0.0450, forgetting 0.0050 ± 0.0450"
    )
    checkpoint = whole.final_dir.with_name("checkpoint-5")
    assert (checkpoint / SNAPSHOT_FILE).is_file()
    script(levels[6:])
    resumed, rest, _ = train(
        retreating | PROGRESS, save_steps=5, resume_from=checkpoint, output_dir=tmp_path / "again"
    )
    assert resumed.events == whole.events and rest.events == recorder.events[3:]
    assert resumed.evaluations == whole.evaluations and resumed.losses == whole.losses
    one, two = (run.final_dir / ADAPTER_FILE for run in (whole, resumed))
    assert one.read_bytes() == two.read_bytes()
    # The rollback went back to the weights of step 2, whatever was saved in between.
    assert not (whole.final_dir.with_name("checkpoint-8") / SNAPSHOT_FILE).exists()


def test_a_trial_resumed_with_other_validation_examples_is_compared_by_the_strata(
    train, retreating, data_dir, tmp_path
):
    settings = {"max_steps": 4, "save_steps": 3}
    whole, _, _ = train(retreating | PROGRESS, **settings)
    checkpoint = whole.final_dir.with_name("checkpoint-3")
    unwanted = tuple(load_split(data_dir, "validation")["medium"]["id"][1:])
    for place, exclude in (("same", ()), ("other", unwanted)):
        resumed, _, _ = train(
            retreating | PROGRESS,
            **settings,
            exclude=exclude,
            resume_from=checkpoint,
            output_dir=tmp_path / place,
        )
        event = resumed.events[2]
        assert (event.kind, event.step) == (whole.events[2].kind, 4)
        assert (event.progress_standard_error is None) == bool(exclude)
    (_, before), (_, after), _ = resumed.evaluations
    rises = {name: after[name] - before[name] for name in after}
    assert event.progress == pytest.approx(min(rises["medium"], rises["hard"]))


class BestWeights(TrainedWeights):
    """Notes the adapter of every improvement."""

    notes: list

    def save_best(self):
        super().save_best()
        self.notes.append(self.tensors())


def test_the_best_adapter_is_the_one_that_was_measured(train, monkeypatch, retreating):
    monkeypatch.setattr("pixelis.training.sft.TrainedWeights", BestWeights)
    monkeypatch.setattr(BestWeights, "notes", [], raising=False)
    # The trial is good on the last mix, and yet rolled back. Two steps alone would not show it.
    told = iter((2.0, 1.0))

    def scripted(validation, model):
        loss = next(told)
        return {name: Stratum(2, 10, loss, 0.5, 0.5) for name in validation.difficulties}

    monkeypatch.setattr(Validation, "__call__", scripted)
    result, _, _ = train(retreating, max_steps=4)
    assert result.best == {"step": 4, "performance": pytest.approx(math.exp(-1))}
    _, measured = BestWeights.notes
    best = load_file(result.final_dir.with_name("best") / ADAPTER_FILE)
    assert_equal(best, {n.replace(".default", ""): v for n, v in measured.items()})
    final = load_file(result.final_dir / ADAPTER_FILE)
    assert any(not torch.equal(best[name], final[name]) for name in best)


def test_scope_data_leaves_the_weights_alone(watched, retreating):
    result, _, _, notes = watched(retreating | {"rollback_scope": "data"}, max_steps=4)
    assert [e.kind for e in result.events] == ["start", "trial", "rollback", "end"]
    assert notes == []
    assert [step for step, _ in result.evaluations] == [2, 4]
