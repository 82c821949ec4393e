"""Steps without finite numbers, by faults that really give them: in activations and in weights."""

import math

import pytest
import torch

from pixelis.curriculum import CurriculumConfig
from pixelis.data.store import load_split
from pixelis.errors import ConfigError, UserError
from pixelis.training.inputs import check_inputs
from pixelis.training.trainer import CurriculumTrainer
from tests.training.conftest import moments_of

pytestmark = pytest.mark.integration

OTHER_FAULTS = (("nan", "bf16"), ("inf", "fp32"), ("loss", "fp32"))
STILL = {"enabled": False, "eval_samples_per_difficulty": 2}  # one mix, no attempts


class FaultyTrainer(CurriculumTrainer):
    """A machine that fails in certain steps: in what embeddings, gradients or weights come out as.

    `faults`: step -> what becomes of it; `looks`: after each step, weights, moments and rate.
    """

    faults: dict
    looks: dict
    micro_batch = 0

    def __init__(self, *arguments, **words):
        super().__init__(*arguments, **words)
        self.model.get_input_embeddings().register_forward_hook(self.fail)

    def fail(self, module, inputs, output):
        fault = self.faults.get(self.state.global_step + 1)
        if fault in ("nan", "inf") and self.model.training and self.micro_batch == 0:
            output = output.clone()
            output[0, 3] = float(fault)
            return output
        return None

    def get_batch_samples(self, *arguments):
        self.micro_batch = -1
        return super().get_batch_samples(*arguments)

    def training_step(self, *arguments, **words):
        self.micro_batch += 1
        loss = super().training_step(*arguments, **words)
        step = self.state.global_step + 1
        if self.faults.get(step) == "gradient":
            next(p for p in self.model.parameters() if p.grad is not None).grad[0, 0] = math.inf
        return loss

    def compute_loss(self, *arguments, **words):
        loss = super().compute_loss(*arguments, **words)
        # As where a target's probability is 0: every gradient is finite.
        return loss + math.inf if self.faults.get(self.state.global_step + 1) == "loss" else loss

    def _maybe_log_save_evaluate(self, *arguments, **words):
        step = self.state.global_step
        if self.faults.get(step) == "weight":
            with torch.no_grad():
                next(p for p in self.model.parameters() if p.requires_grad)[0, 0] = math.nan
        moments = moments_of(self.optimizer)
        self.looks[step] = self.weights.tensors(), moments, self.lr_scheduler.get_last_lr()
        super()._maybe_log_save_evaluate(*arguments, **words)


@pytest.fixture
def faulty(train, monkeypatch):
    """Train on a machine that fails; returns result, records, lines and looks."""
    monkeypatch.setattr("pixelis.training.sft.CurriculumTrainer", FaultyTrainer)

    def run(faults, curriculum=STILL, **training):
        monkeypatch.setattr(FaultyTrainer, "faults", faults, raising=False)
        monkeypatch.setattr(FaultyTrainer, "looks", {}, raising=False)
        settings = {"logging_steps": 1, "save_steps": 2, "eval_steps": 4, "max_steps": 4}
        return *train(curriculum, **settings | training), FaultyTrainer.looks

    return run


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def bad_steps(recorder):
    return {step: v for (key, step), v in recorder.values.items() if key == "train/bad_steps"}


@pytest.mark.parametrize(
    ("fault", "precision"),
    [
        ("nan", "fp32"),
        ("gradient", "fp32"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHER_FAULTS),
    ],
)
def test_a_bad_step_changes_neither_weights_nor_moments(faulty, fault, precision):
    result, recorder, lines, looks = faulty({2: fault}, precision=precision)
    for before, after in zip(looks[1][:2], looks[2][:2], strict=True):
        assert same(before, after)
    assert not same(looks[2][0], looks[3][0])
    assert all(x.isfinite().all() for x in (*looks[4][0].values(), *looks[4][1].values()))
    # The schedule goes on as if nothing had been.
    rates = [rate for _, _, (rate, *_) in looks.values()]
    assert rates == pytest.approx([2e-3, 2e-3 * 2 / 3, 2e-3 / 3, 0], abs=1e-12)
    # Counted and shown; no loss is made up for it, and those after it are right.
    assert bad_steps(recorder) == {2: 1}
    assert result.num_bad_steps == 1
    assert "Steps not applied: 1" in result.statistics
    assert [step for step, _ in result.losses] == recorder.steps("train/grad_norm") == [1, 3, 4]
    assert all(math.isfinite(loss) for _, loss in result.losses)
    (line,) = [line for line in lines if "not applied" in line]
    assert line.startswith("⚠️ Step 2 is not applied: loss ")


def test_the_logged_loss_is_the_mean_of_the_steps_that_were_applied(faulty):
    _, single, _, _ = faulty({2: "nan"}, max_steps=4)
    _, recorder, _, _ = faulty({2: "nan"}, max_steps=4, logging_steps=4, save_steps=4)
    expected = [single.values["train/loss", step] for step in (1, 3, 4)]
    assert recorder.steps("train/loss") == [4]
    assert recorder.values["train/loss", 4] == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_too_many_in_a_row_stop_the_training_and_name_all_their_examples(faulty):
    # No loss of step 4 is bad: all that its gradient came from are named.
    with pytest.raises(UserError) as stopped:
        faulty({1: "nan", 3: "nan", 4: "gradient"}, max_bad_steps=2, max_steps=6, eval_steps=6)
    message = str(stopped.value)
    assert message.startswith("training diverged: 2 bad steps in a row (loss ")
    limit = "gradient norm inf) up to step 4, where training.max_bad_steps is 2; its examples: "
    assert limit in message
    assert "leave them out with data.exclude, lower training.learning_rate" in message
    assert 4 < len(set(ids_in(message))) <= 6


def ids_in(message):
    return message.partition("its examples: ")[2].partition(". Mend")[0].split(", ")


@pytest.mark.parametrize("saved_at", [3, 9])
def test_weights_that_are_not_finite_are_neither_saved_nor_measured(faulty, tmp_path, saved_at):
    with pytest.raises(UserError, match="^training diverged: after step 3 the ") as stopped:
        faulty({3: "weight"}, max_steps=9, eval_steps=3, save_steps=saved_at)
    assert ("weights are not finite, so they are not saved" in str(stopped.value)) == (
        saved_at == 3 and "loss" not in str(stopped.value)
    )
    assert not list((tmp_path / "sft").glob("checkpoint-*"))


FAULTS = {4: "nan", 5: "nan", 7: "inf"}


@pytest.mark.parametrize("stopped_at", [2, 4])
def test_a_resumed_training_meets_the_same_bad_steps(faulty, tmp_path, stopped_at):
    """Resumed before bad steps, and between two of them."""
    settings = {"max_steps": 8, "eval_steps": 8, "save_total_limit": 9}
    whole, records, _, looks = faulty(FAULTS, **settings, output_dir=tmp_path / "whole")
    checkpoint = tmp_path / "whole" / f"checkpoint-{stopped_at}"
    resumed, resumed_records, _, relooked = faulty(
        FAULTS, **settings, output_dir=tmp_path / "resumed", resume_from=checkpoint
    )
    assert min(relooked) == stopped_at + 1
    for step, (adapter, moments, rate) in relooked.items():
        assert same(adapter, looks[step][0]) and same(moments, looks[step][1]), step
        assert rate == looks[step][2]
    assert resumed.events == whole.events
    assert resumed.losses == whole.losses
    assert resumed.num_bad_steps == whole.num_bad_steps == 3
    assert bad_steps(records) == {4: 1, 5: 2, 7: 3}
    later = {(key, step): v for (key, step), v in records.values.items() if step > stopped_at}
    assert resumed_records.values == later


# data.exclude


class PoisonedTrainer(CurriculumTrainer):
    """Some examples give a NaN, whenever they come; `drawn` are the ids of each micro-batch."""

    poisoned: set
    drawn: list

    def compute_loss(self, model, inputs, *arguments, **words):
        loss = super().compute_loss(model, inputs, *arguments, **words)
        ids = set(self.loader.newest_step()[len(self._step_losses)])
        data = self.loader.dataset
        lengths = {data.rows[d]["id"][i]: data.length((d, i)) for d, i in data.all_keys()}
        # They are the ids of what the model is given.
        given = inputs["attention_mask"].sum(1).tolist()
        assert sorted(given) == sorted(lengths[each] for each in ids)
        self.drawn.append(ids)
        return loss * math.nan if ids & self.poisoned else loss


def test_a_training_that_stopped_goes_on_without_the_examples_that_stopped_it(
    train, data_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr("pixelis.training.sft.CurriculumTrainer", PoisonedTrainer)
    rows = load_split(data_dir, "train")
    hard = set(rows["hard"]["id"][: len(rows["hard"]) // 2])
    monkeypatch.setattr(PoisonedTrainer, "poisoned", hard, raising=False)
    monkeypatch.setattr(PoisonedTrainer, "drawn", drawn := [], raising=False)
    settings = {"max_steps": 6, "save_steps": 1, "eval_steps": 6, "max_bad_steps": 1}
    with pytest.raises(UserError, match="^training diverged: 1 bad step in a row") as stopped:
        train(STILL, **settings)
    # Named are the micro-batches without a finite loss, and not the whole step.
    bad = [ids for ids in drawn[-2:] if ids & hard]
    assert set(ids_in(str(stopped.value))) == set().union(*bad)
    checkpoints = sorted((tmp_path / "sft").glob("checkpoint-*"))
    drawn.clear()
    result, _, _ = train(
        STILL, **settings, exclude=tuple(hard), resume_from=checkpoints[-1] if checkpoints else None
    )
    assert result.num_bad_steps == 0
    assert not set().union(*drawn) & hard


def test_a_difficulty_without_any_other_example_is_refused(train, data_dir):
    ids = tuple(load_split(data_dir, "train")["hard"]["id"])
    with pytest.raises(ConfigError, match=r"the train split, .* and those of data\.exclude, has"):
        train(STILL, exclude=ids)


def test_an_id_that_is_not_there_is_refused(data_dir):
    curriculum = CurriculumConfig.from_dict(STILL)
    known = load_split(data_dir, "validation")["hard"]["id"][0]
    check_inputs(data_dir, curriculum, (known,))
    with pytest.raises(ConfigError, match=r"^data\.exclude must be ids .*, got no-such-id$"):
        check_inputs(data_dir, curriculum, (known, "no-such-id"))
