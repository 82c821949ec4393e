"""The alias `champion`, by real rollouts of registered adapters."""

import re
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from pixelis.cli.arguments import run_cli
from pixelis.cli.evaluate import main
from pixelis.config import EvaluateConfig, ModelConfig
from pixelis.config.schema import ChampionConfig
from pixelis.data.encode import Encoder
from pixelis.data.store import load_split
from pixelis.evaluation.evaluate import Evaluation, EvaluationResult, choose_examples
from pixelis.evaluation.metrics import paired_comparison
from pixelis.models.load import load_model, load_processor
from pixelis.models.lora import add_lora
from pixelis.runs.evaluate import compare_with_champion
from pixelis.tracking import MlflowRecorder, find_champion, find_version, log_adapter, set_champion
from tests.evaluation.handmade import make_example, make_rollout

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parent.parent.parent
RULES = ChampionConfig(p_value=1.0, min_examples=6)
CONFIG = EvaluateConfig(max_operations=1, max_new_tokens=24, champion=RULES)


@pytest.fixture
def model():
    base = load_model("pixelis-nano", torch_dtype="float32")
    names = {"model_name": "pixelis-nano", "lora_r": 4, "lora_alpha": 8}
    return add_lora(base, ModelConfig(**names, lora_dropout=0.0), seed=0).eval()


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


def answered(examples, *, right):
    """Rollouts that answer everything right, or nothing."""
    return tuple(make_rollout(e, e.ground_truth if right else "nothing of that") for e in examples)


def result(examples, adapter, base=None):
    models = {"adapter": Evaluation(tuple((rollout,) for rollout in adapter), {}, {})}
    if base is None:
        return EvaluationResult(examples, models)
    comparison = paired_comparison(base, adapter, examples)
    return EvaluationResult(examples, models, {"base": comparison})


def test_the_first_champion_has_to_beat_the_base(
    recorder, registered, model, encoder, examples, capsys
):
    def decide(evaluated):
        return compare_with_champion(
            recorder, registered[0], evaluated, model, encoder, CONFIG, model_name="pixelis-nano"
        )

    right, wrong = (answered(examples, right=right) for right in (True, False))
    assert not decide(result(examples, right))
    assert "no champion yet: compare_base=true lets it be decided" in capsys.readouterr().out
    assert not decide(result(examples, wrong, base=wrong))
    assert find_champion(recorder.client, "reader") is None
    assert "+0.0 points –, p 1.000: the champion stays\n" in capsys.readouterr().out
    assert decide(result(examples, right, base=wrong))
    champion = find_champion(recorder.client, "reader")
    assert (champion.version, recorder.flush()) == (registered[0].version, True)
    verdict = f"against the base on {len(examples)} test examples: +100.0 points"
    assert verdict in champion.tags["pixelis.champion"] and verdict in capsys.readouterr().out
    run = recorder.client.get_run(recorder.run_id)
    assert run.data.tags["pixelis.champion"] == "won"
    assert decide(result(examples, right))
    assert "reader version 1 is the champion already" in capsys.readouterr().out


def test_another_has_to_beat_the_champion_on_the_same_examples(
    recorder, registered, model, encoder, examples, capsys
):
    first, second = registered
    assert set_champion(recorder.client, first, None, "it was the first")

    def decide(rollouts):
        evaluated = result(examples, rollouts)
        compare_with_champion(
            recorder, second, evaluated, model, encoder, CONFIG, model_name="pixelis-nano"
        )
        return find_champion(recorder.client, "reader").version

    # The champion is really rolled out, and gets some right.
    assert decide(answered(examples, right=False)) == first.version
    assert model.active_adapter == "default" and list(model.peft_config) == ["default"]
    assert decide(answered(examples, right=True)) == second.version
    out = capsys.readouterr().out
    assert re.search(
        r"version 2 against version 1 on 6 test examples: -\d+\.\d points .* stays", out
    )
    assert "it is the champion now" in out
    # One that was compared with an earlier champion comes too late.
    assert not set_champion(recorder.client, first, str(first.version), "too late")
    assert find_champion(recorder.client, "reader").version == second.version


def test_a_win_needs_enough_examples_and_a_small_p_value(
    recorder, registered, model, encoder, capsys
):
    def decide(gained, lost, num, **rules):
        made = tuple(make_example(i) for i in range(num))
        base = [make_rollout(e, None if i < gained else "red") for i, e in enumerate(made)]
        lost_ones = range(gained, gained + lost)
        adapter = [make_rollout(e, None if i in lost_ones else "red") for i, e in enumerate(made)]
        config = EvaluateConfig(champion=ChampionConfig(**rules))
        becomes = compare_with_champion(
            recorder,
            registered[0],
            result(made, adapter, base=base),
            model,
            encoder,
            config,
            model_name="pixelis-nano",
        )
        assert becomes == (find_champion(recorder.client, "reader") is not None)
        return capsys.readouterr().out.partition(" test examples: ")[2].strip()

    stays, p_rule = "the champion stays", "(p must be below champion.p_value, 0.05)"
    assert decide(1, 0, 100) == f"+1.0 points [-3, +6], p 1.000: {stays} {p_rule}"
    # Its interval is above 0, but the exact test is stricter.
    assert decide(5, 0, 100) == f"+5.0 points [+1, +12], p 0.062: {stays} {p_rule}"
    few = f"{stays} (champion.min_examples is 100)"
    assert decide(40, 0, 99) == f"+40.4 points [+31, +51], p <0.001: {few}"
    assert decide(2, 0, 2) == f"+100.0 points –, p 0.500: {few}"
    assert decide(0, 20, 100) == f"-20.0 points [-29, -13], p <0.001: {stays}"
    assert decide(20, 20, 100) == f"+0.0 points [-13, +13], p 1.000: {stays}"
    settings = "(p must be below champion.p_value, 0.01)"
    assert decide(14, 4, 120, p_value=0.01).endswith(f"p 0.031: {stays} {settings}")
    assert decide(14, 4, 120).endswith("p 0.031: it is the champion now")


def harm(folder):
    """Change an adapter so much that it answers nothing right."""
    weights = load_file(folder / "adapter_model.safetensors")
    weights = {k: v + 1 if "lora_B" in k else v for k, v in weights.items()}
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})


@pytest.fixture
def trained(data, adapter, client):
    """The ids of two finished sft runs with a version of one adapter: a harmed one, a fresh one."""
    ids = []
    tags = {"pixelis.entry_point": "sft"}
    experiment = client.create_experiment("sft_curriculum")
    harmed = shutil.copytree(adapter, adapter.with_name("harmed"))
    harm(harmed)
    for folder in (harmed, adapter):
        recorder = MlflowRecorder(client, client.create_run(experiment, tags=tags))
        log_adapter(recorder, folder, "final", 1, {}, register_as="reader")
        recorder.close("FINISHED")
        ids.append(recorder.run_id)
    return ids


def test_evaluate_moves_the_alias_to_the_version_that_wins(trained, client, capfd):
    def evaluate(*words):
        capfd.readouterr()
        settings = {
            "samples_per_difficulty": 4,
            "max_operations": 2,
            "max_new_tokens": 48,
            "champion.p_value": 1.0,
            "champion.min_examples": 12,
            "data.path": "data",
            "planted_errors": "false",
            "teacher_forced": "false",
            "num_traces": 0,
            "num_reported": 0,
        }
        more = (word for key, value in settings.items() for word in (f"--{key}", str(value)))
        configs = ("--config", str(ROOT / "configs/evaluate.yaml"))
        configs += ("--model", str(ROOT / "configs/model_arch.yaml"))
        assert run_cli(main, [*configs, *more, *words]) == 0
        return capfd.readouterr().out

    def champion():
        return str(client.get_model_version_by_alias("reader", "champion").version)

    harmed, fresh = trained
    # Fresh, an adapter does what its base does.
    out = evaluate("--adapter", f"runs:/{fresh}")
    assert "reader version 2 against the base on 12 test examples: +0.0 points" in out
    assert "the champion stays" in out
    assert set_champion(client, client.get_model_version("reader", "1"), None, "the first one")
    out = evaluate("--split", "validation")  # only the test split decides
    assert "champion" not in out
    out = evaluate("--compare_base", "false")  # the newest run: no address at all
    assert f"adapter: runs:/{fresh}, of the newest finished sft run" in out
    assert re.search(r"reader version 2 against version 1 on 12 test examples: \+", out), out
    assert "it is the champion now" in out and champion() == "2"
    source = client.get_model_version("reader", "1").source
    out = evaluate("--adapter", source, "--compare_base", "false")
    assert re.search(r"reader version 1 against version 2 .*: the champion stays", out), out
    assert champion() == "2"
    (*_, run) = client.search_runs(
        [client.get_experiment_by_name("sft_curriculum").experiment_id],
        "tags.`pixelis.entry_point` = 'evaluate'",
    )
    assert run.data.tags["pixelis.champion"] == "stays"
    assert (run.data.metrics["champion/gain"], run.data.metrics["champion/p_value"]) == (0, 1)
