"""Steps without finite numbers, by faults that really give them: in activations and in weights."""

import math

import pytest
import torch

from pixelis.data.encode import Encoder, encode_example
from pixelis.data.store import from_row, load_split
from pixelis.errors import UserError
from pixelis.models.load import load_processor
from pixelis.training.bad_steps import all_finite
from pixelis.training.checkpoint import optimizer_tensors
from pixelis.training.trainer import CurriculumTrainer

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

    def after_step(self, step):
        if self.faults.get(step) == "weight":
            with torch.no_grad():
                next(p for p in self.model.parameters() if p.requires_grad)[0, 0] = math.nan
        super().after_step(step)
        moments = {
            name: tensor.clone() for name, tensor in optimizer_tensors(self.optimizer).items()
        }
        self.looks[step] = self._adapter_tensors(), moments, self.lr_scheduler.get_last_lr()


@pytest.fixture
def faulty(train, monkeypatch):
    """Train on a machine that fails; returns the result, what was recorded, said and looked at."""
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
    [("nan", "fp32"), ("nan", "bf16"), ("inf", "fp32"), ("gradient", "fp32"), ("loss", "fp32")],
)
def test_a_bad_step_changes_neither_weights_nor_moments(faulty, fault, precision):
    result, recorder, said, looks = faulty({2: fault}, precision=precision)
    for before, after in zip(looks[1][:2], looks[2][:2], strict=True):
        assert same(before, after)
    assert not same(looks[2][0], looks[3][0])
    assert all_finite([*looks[4][0].values(), *looks[4][1].values()])
    # The schedule goes on as if nothing had been.
    rates = [rate for _, _, (rate, *_) in looks.values()]
    assert rates == pytest.approx([2e-3, 2e-3 * 2 / 3, 2e-3 / 3, 0], abs=1e-12)
    # Counted and said; no loss is made up for it, and those after it are right.
    assert bad_steps(recorder) == {2: 1}
    assert result.num_bad_steps == 1
    assert "Steps not applied: 1" in result.statistics
    assert [step for step, _ in result.losses] == recorder.steps("train/grad_norm") == [1, 3, 4]
    assert all(math.isfinite(loss) for _, loss in result.losses)
    (line,) = [line for line in said if "not applied" in line]
    assert line.startswith("⚠️ Step 2 is not applied: loss ")


def test_the_logged_loss_is_the_mean_of_the_steps_that_were_applied(faulty):
    _, single, _, _ = faulty({2: "nan"}, max_steps=4)
    _, recorder, _, _ = faulty({2: "nan"}, max_steps=4, logging_steps=4, save_steps=4)
    expected = [single.values["train/loss", step] for step in (1, 3, 4)]
    assert recorder.steps("train/loss") == [4]
    assert recorder.values["train/loss", 4] == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_the_examples_of_the_micro_batch_are_named(faulty, data_dir, monkeypatch):
    keys = []
    micro_batches = CurriculumTrainer.training_step

    def note(trainer, model, inputs, *arguments, **words):
        keys.append((trainer.state.global_step + 1, inputs["input_ids"].clone(), inputs))
        return micro_batches(trainer, model, inputs, *arguments, **words)

    monkeypatch.setattr(CurriculumTrainer, "training_step", note)
    _, _, said, _ = faulty({3: "nan"})
    (line,) = [line for line in said if "not applied" in line]
    first = next(ids for step, ids, _ in keys if step == 3)
    encoder = Encoder(load_processor("pixelis-nano", max_pixels=12544))
    rows = [row for rows in load_split(data_dir, "train").values() for row in rows]
    fed = {tuple(ids[ids != encoder.tokenizer.pad_token_id].tolist()) for ids in first}
    expected = {
        row["id"]
        for row in rows
        if tuple(
            i
            for i in encode_example(from_row(row), encoder).input_ids
            if i != encoder.tokenizer.pad_token_id
        )
        in fed
    }
    assert len(expected) == 2  # of the step's four
    named_ids = set(line.partition("Examples: ")[2].partition(". Bad")[0].split(", "))
    assert named_ids == expected


def test_after_too_many_in_a_row_weights_and_moments_of_the_checkpoint_are_back(faulty):
    result, recorder, said, looks = faulty(
        {3: "nan", 4: "inf"}, max_steps=6, max_bad_steps=2, eval_steps=6
    )
    # Steps 3 and 4 changed nothing, and step 2 is the checkpoint: to tell them apart, another.
    assert same(looks[4][0], looks[2][0]) and same(looks[4][1], looks[2][1])
    assert [(e.kind, e.step) for e in result.events] == [("start", 0), ("restore", 4), ("end", 6)]
    event = result.events[1]
    assert event.reason.startswith("2 bad steps in a row (loss nan, gradient norm nan); weights of")
    assert "weights of step 2 are back; examples " in event.reason
    assert (event.mix, event.from_stage) == (result.events[0].mix, event.to_stage)
    assert recorder.events == [e.to_dict() for e in result.events]
    assert [line for line in said if line.startswith("⏪")] == [
        f"⏪ Put weights back after step 4: {event.reason}"
    ]
    assert bad_steps(recorder) == {3: 1, 4: 2}
    assert not same(looks[5][0], looks[4][0])


def test_weights_that_are_not_finite_go_back_at_once(faulty):
    # Found by the first step that cannot be made with them.
    result, recorder, _, looks = faulty({3: "weight"}, max_steps=5, eval_steps=5)
    assert not all_finite(looks[3][0].values())
    assert same(looks[4][0], looks[2][0]) and same(looks[4][1], looks[2][1])
    assert looks[4][2][0] == pytest.approx(2e-3 / 4)  # the rate is step 4's
    assert [(e.kind, e.step) for e in result.events][1] == ("restore", 4)
    assert bad_steps(recorder) == {4: 1}


def test_weights_that_are_not_finite_go_back_before_they_are_measured(faulty):
    result, recorder, _, looks = faulty({3: "weight"}, max_steps=5, eval_steps=3)
    assert [(e.kind, e.step) for e in result.events][1] == ("restore", 3)
    assert result.events[1].reason == "weights that are not finite; weights of step 2 are back"
    assert bad_steps(recorder) == {}
    assert math.isfinite(recorder.values["eval/simple/loss", 3])


def test_a_checkpoint_of_bad_weights_is_never_gone_back_to(faulty, tmp_path):
    # Weights break in step 4, which is saved; only step 2 is good, and it is spared.
    result, _, _, looks = faulty(
        {4: "weight"}, max_steps=6, eval_steps=6, save_total_limit=1, output_dir=tmp_path / "sft"
    )
    assert "weights of step 2 are back" in result.events[1].reason
    assert same(looks[5][0], looks[2][0])


def test_without_a_checkpoint_training_stops_and_names_the_examples(faulty):
    with pytest.raises(UserError) as stopped:
        faulty({1: "nan", 2: "gradient"}, save_steps=4, max_bad_steps=2)
    said = str(stopped.value)
    assert said.startswith("training diverged: 2 bad steps in a row (loss 0.")
    assert (
        "gradient norm inf) up to step 2, where training.max_bad_steps is 2, and there is no"
        in said
    )
    assert "no checkpoint to go back to; its examples: " in said
    ids = said.partition("its examples: ")[2].partition(". Mend")[0].split(", ")
    assert len(set(ids)) == 4  # every loss was finite: all that the gradient came from


def test_a_second_time_to_the_same_checkpoint_stops(faulty):
    faults = dict.fromkeys((3, 4, 6, 7), "nan")
    with pytest.raises(UserError, match=r"checkpoint-2 led here once before; its examples: \w+"):
        faulty(faults, max_steps=9, save_steps=2, max_bad_steps=2, eval_steps=9)


FAULTS = {4: "nan", 5: "nan", 7: "inf"}  # back to step 2 at 5, and a bad step after it


@pytest.mark.parametrize("stopped_at", [2, 4, 6])
def test_what_a_stopped_training_goes_on_to_is_what_it_would_have_come_to(
    faulty, tmp_path, stopped_at
):
    """Before bad steps, between two of them, and after weights went back."""
    settings = {"max_steps": 8, "max_bad_steps": 2, "eval_steps": 8, "save_total_limit": 9}
    whole, told, _, looks = faulty(FAULTS, **settings, output_dir=tmp_path / "whole")
    assert [(e.kind, e.step) for e in whole.events] == [("start", 0), ("restore", 5), ("end", 8)]
    checkpoint = tmp_path / "whole" / f"checkpoint-{stopped_at}"
    resumed, told_again, _, relooked = faulty(
        FAULTS, **settings, output_dir=tmp_path / "resumed", resume_from=checkpoint
    )
    assert min(relooked) == stopped_at + 1
    for step, (adapter, moments, rate) in relooked.items():
        assert same(adapter, looks[step][0]) and same(moments, looks[step][1]), step
        assert rate == looks[step][2]
    assert resumed.events == whole.events
    assert resumed.losses == whole.losses
    assert resumed.num_bad_steps == whole.num_bad_steps == 3
    later = {at: value for at, value in told.values.items() if at[1] > stopped_at}
    assert told_again.values == later  # what was recorded before the stop is not recorded again
    assert bad_steps(told) == {4: 1, 5: 2, 7: 3}
