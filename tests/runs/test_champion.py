"""The alias `champion`, by real rollouts of the adapters that are registered."""

import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pixelis.cli.arguments import run_cli
from pixelis.config import EvaluateConfig
from pixelis.data.encode import Encoder
from pixelis.data.store import load_split
from pixelis.evaluation.evaluate import Evaluation, EvaluationResult, choose_examples
from pixelis.evaluation.metrics import paired_comparison
from pixelis.evaluation.rollout import Rollout
from pixelis.models.load import load_model, load_processor
from pixelis.models.lora import add_lora
from pixelis.runs.champion import contest
from pixelis.tracking import MlflowRecorder, find_champion, find_version, log_adapter, set_champion

ROOT = Path(__file__).parent.parent.parent
CONFIG = EvaluateConfig(max_operations=1, max_new_tokens=24, bootstrap_samples=200)


@pytest.fixture
def model():
    base = load_model("pixelis-nano", torch_dtype="float32")
    names = {"model_name": "pixelis-nano", "lora_r": 4, "lora_alpha": 8}
    return add_lora(base, **names, lora_dropout=0.0, seed=0).eval()


@pytest.fixture
def encoder():
    return Encoder(load_processor("pixelis-nano", min_pixels=3136, max_pixels=12544))


@pytest.fixture
def examples(made_data):
    return tuple(choose_examples(load_split(made_data, "test"), 2, 0, split="test"))


@pytest.fixture
def recorder(workdir):
    client = MlflowClient()
    return MlflowRecorder(client, client.create_run("0", run_name="evaluate"))


@pytest.fixture
def registered(recorder, model, workdir):
    """Two versions of `reader` with the same weights."""
    for name in ("first", "second"):
        model.save_pretrained(str(workdir / name), save_embedding_layers=False)
        log_adapter(recorder, workdir / name, name, 1, {}, register_as="reader")
    assert recorder.flush()
    return [find_version(f"models:/reader/{number}") for number in (1, 2)]


def spoken(examples, *, right):
    """Rollouts that answer everything right, or nothing."""
    return tuple(
        Rollout(
            e.id,
            e.difficulty,
            e.task,
            e.sample_type,
            (),
            e.ground_truth if right else "nothing of that",
            "answered",
        )  # fmt: skip
        for e in examples
    )


def result(examples, adapter, base=None):
    comparison = base and paired_comparison(base, adapter, examples, num_samples=200, seed=0)
    return EvaluationResult(examples, Evaluation(adapter, {}, {}), None, comparison)


def test_the_first_champion_has_to_beat_the_base(
    recorder, registered, model, encoder, examples, capsys
):
    def try_it(found):
        return contest(
            recorder, registered[0], found, model, encoder, CONFIG, model_name="pixelis-nano"
        )

    right, wrong = (spoken(examples, right=right) for right in (True, False))
    assert not try_it(result(examples, right))
    assert "no champion yet: compare_base=true lets it be decided" in capsys.readouterr().out
    assert not try_it(result(examples, wrong, base=wrong))
    assert find_champion(recorder.client, "reader") is None
    assert "+0.0 points [+0.0, +0.0]: the champion stays" in capsys.readouterr().out
    assert try_it(result(examples, right, base=wrong))
    champion = find_champion(recorder.client, "reader")
    assert (champion.version, recorder.flush()) == (registered[0].version, True)
    said = f"against the base on {len(examples)} test examples: +100.0 points"
    assert said in champion.tags["pixelis.champion"] and said in capsys.readouterr().out
    run = recorder.client.get_run(recorder.run_id)
    assert run.data.tags["pixelis.champion"] == "won"
    assert try_it(result(examples, right))
    assert "reader version 1 is the champion already" in capsys.readouterr().out


def test_another_has_to_beat_the_champion_on_the_same_examples(
    recorder, registered, model, encoder, examples, capsys
):
    first, second = registered
    assert set_champion(recorder.client, first, None, "it was the first")

    def try_it(rollouts):
        found = result(examples, rollouts)
        contest(recorder, second, found, model, encoder, CONFIG, model_name="pixelis-nano")
        return find_champion(recorder.client, "reader").version

    # The champion is really rolled out, and gets some right.
    assert try_it(spoken(examples, right=False)) == first.version
    assert model.active_adapter == "default" and list(model.peft_config) == ["default"]
    assert try_it(spoken(examples, right=True)) == second.version
    out = capsys.readouterr().out
    assert re.search(
        r"version 2 against version 1 on 6 test examples: -\d+\.\d points .* stays", out
    )
    assert "it is the champion now" in out
    # One that was compared with an earlier champion comes too late.
    assert not set_champion(recorder.client, first, str(first.version), "too late")
    assert find_champion(recorder.client, "reader").version == second.version


@pytest.fixture
def trained(data, workdir, sft_arguments, client):
    """Two trainings of one registered adapter: one that learnt something, one that was harmed."""
    from pixelis.cli.sft import main

    ids = []
    for name, rate in (("harmed", 1.0), ("learnt", 1e-3)):
        words = (
            "--register",
            "reader",
            "--training.output_dir",
            name,
            "--exp_name",
            "sft_curriculum",
        )
        changed = {"training__learning_rate": rate, "training__max_grad_norm": 1e6}
        assert run_cli(main, sft_arguments(*words, **changed)) == 0
        experiment = client.get_experiment_by_name("sft_curriculum")
        (run,) = client.search_runs(
            [experiment.experiment_id],
            "tags.`pixelis.entry_point` = 'sft'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        ids.append(run.info.run_id)
    return ids


def test_evaluate_moves_the_alias_to_the_one_that_wins(trained, workdir, client, capfd):
    """Real rollouts of both, through the command line, by every kind of address."""
    from pixelis.cli.evaluate import main

    def evaluate(*words):
        capfd.readouterr()
        settings = {
            "samples_per_difficulty": 4,
            "max_operations": 2,
            "max_new_tokens": 60,
            "bootstrap_samples": 200,
            "data.path": "data",
        }
        more = (word for key, value in settings.items() for word in (f"--{key}", str(value)))
        configs = ("--config", str(ROOT / "configs/evaluate.yaml"))
        configs += ("--model", str(ROOT / "configs/model_arch.yaml"))
        assert run_cli(main, [*configs, *more, *words]) == 0
        return capfd.readouterr().out

    harmed, learnt = trained
    first = client.get_model_version("reader", "1")
    assert set_champion(client, first, None, "the first one")
    assert "reader version 1 is the champion already" in evaluate("--adapter", f"runs:/{harmed}")
    out = evaluate()  # the newest run: no address at all
    assert f"adapter: runs:/{learnt}, of the newest finished sft run" in out
    assert re.search(r"reader version 2 against version 1 on 12 test examples: \+", out), out
    assert "it is the champion now" in out
    assert str(client.get_model_version_by_alias("reader", "champion").version) == "2"
    model = client.get_model_version("reader", "1").source
    out = evaluate("--adapter", model)
    assert re.search(r"reader version 1 against version 2 .*: the champion stays", out), out
    assert str(client.get_model_version_by_alias("reader", "champion").version) == "2"
