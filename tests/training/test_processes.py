"""Two processes that train together: what one would do, one voice, and one end."""

import json
import os
import shutil
import sqlite3
import time

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file

from pixelis.errors import CheckpointError, ConfigError
from pixelis.training import distributed
from pixelis.training.checkpoint import ADAPTER_FILE, choose_start, find_fault
from pixelis.training.distributed import ALONE, LAUNCHED, NUMBERS, join
from pixelis.training.weights import SNAPSHOT_FILE
from tests.forking import ROOT, ForkServer
from tests.training.conftest import MODEL
from tests.training.conftest import TRAINING as SETTINGS

pytestmark = pytest.mark.integration

TRAINING = {**SETTINGS, "batch_size": 1}
DRY = {"lora_dropout": 0.0}  # what one process and two draw for dropout differs


def launcher_environment(file):
    """What `accelerate launch --config_file FILE` sets for each process."""
    argv = ["--config_file", str(file), "--num_processes", "2", "--module", "pixelis.cli.sft"]
    asked, _, _ = _validate_launch_command(launch_command_parser().parse_args(argv))
    made = prepare_multi_gpu_env(asked)
    return {k: str(v) for k, v in made.items() if os.environ.get(k) != str(v)}


FSDP = launcher_environment(ROOT / "configs/accelerate/fsdp.yaml")


SFT_OPTIONS = {
    "training.max_steps": 6,
    "training.batch_size": 1,
    "training.eval_steps": 6,
    "training.save_steps": 2,
    "training.max_length": 512,
    "curriculum.eval_samples_per_difficulty": 2,
    "evaluation.enabled": "false",
}


PLACE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # where nobody listens


def identity(curriculum, max_steps):
    return {"curriculum": curriculum, "max_steps": max_steps}


class Launched:
    """What a launch left, and how it ended."""

    def __init__(self, place, codes, seconds):
        self.place, self.codes, self.seconds = place, codes, seconds

    def decided(self, rank):
        return json.loads(self.place.with_name(f"{self.place.name}.{rank}.json").read_text())

    @property
    def printed(self):
        return self.place.with_name("printed.txt").read_text().splitlines()

    @property
    def records(self):
        """(key, step) -> value: recorded again after a resume, a value must be what it was."""
        found = {}
        for line in self.place.with_suffix(".jsonl").read_text().splitlines():
            key, step, value = json.loads(line)
            if key != "event":
                assert found.setdefault((key, step), value) == value, (key, step)
        return found

    @property
    def adapter(self):
        return load_file(self.place / "final" / ADAPTER_FILE)


@pytest.fixture(scope="module")
def launch(data_dir, tmp_path_factory):
    """Train in processes of their own; returns what they left."""
    folder = tmp_path_factory.mktemp("launched")

    def run(
        place, curriculum, *, processes=2, model=None, resume=None, hurt=None, env=None, **training
    ):
        place.parent.mkdir(parents=True, exist_ok=True)
        request = {
            "processes": processes,
            "training": TRAINING | training | {"output_dir": str(place)},
            "model": MODEL | (model or {}),
            "curriculum": curriculum,
            "data_dir": str(data_dir),
            "printed": str(place.with_name("printed.txt")),
            "resume": resume,
            "hurt": hurt,
            "environment": env or {},
        }
        return Launched(place, *ask(request))

    def command(folder, *argv, hurt):
        """The command line instead, in a folder."""
        request = {
            "processes": 2,
            "folder": str(folder),
            "argv": argv,
            "printed": str(folder / "printed.txt"),
            "hurt": hurt,
            "environment": {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"},
        }
        return Launched(folder / "out", *ask(request))

    def ask(request):
        began = time.monotonic()
        request |= {"logs": str(folder), "codes": str(folder / "codes.json")}
        assert server.run(request, log=folder / "log.txt") == 0, (folder / "log.txt").read_text()
        return json.loads((folder / "codes.json").read_text()), time.monotonic() - began

    run.command = command
    with ForkServer("tests.training.launched_runs") as server:
        yield run


@pytest.fixture(scope="module")
def two(launch, advancing, tmp_path_factory):
    """Two processes, nothing random in the model, an odd number of evaluation batches."""
    place = tmp_path_factory.mktemp("two") / "sft"
    run = launch(place, advancing, model=DRY, eval_batch_size=2)
    assert run.codes == [0, 0], run.printed
    return run


def assert_alike(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=2e-5, rtol=0)


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_two_processes_do_what_one_with_the_same_global_batch_does(
    launch, two, advancing, tmp_path
):
    one = launch(
        tmp_path / "sft", advancing, processes=1, model=DRY, batch_size=2, eval_batch_size=2
    )
    assert one.codes == [0], one.printed
    alone, *both = one.decided(0), two.decided(0), two.decided(1)
    # The same examples in every step, half of them in each process.
    for step, examples in alone["seen"].items():
        halves = [found["seen"][step] for found in both]
        assert [len(half) for half in halves] == [2, 2]
        assert sorted(halves[0] + halves[1]) == sorted(examples), step
    # Every token weighs alike, wherever it is: loss, gradient and so weights are one process's.
    assert two.records.keys() == one.records.keys()
    assert two.records == {key: pytest.approx(v, rel=1e-4) for key, v in one.records.items()}
    assert ("train/loss", 2) in one.records and ("train/grad_norm", 2) in one.records
    assert_alike(two.adapter, one.adapter)
    assert [event["kind"] for event in alone["events"]] == ["start", "advance", "advance", "end"]
    for name in ("kind", "step", "to_stage", "examples_seen", "strata_counts"):
        assert [e[name] for e in both[0]["events"]] == [e[name] for e in alone["events"]]
    # Dealt out, every example is measured in the batch that one process measures it in.
    assert alone["same"] == both[0]["same"] == both[1]["same"] == [True]


def test_both_decide_the_same_and_one_speaks(two):
    first, second = two.decided(0), two.decided(1)
    assert first["begun"] == second["begun"] != first["ended"] == second["ended"]
    for name in ("events", "evaluations", "losses", "best"):
        assert first[name] == second[name]
    left = {path.name for path in two.place.parent.iterdir()}
    assert left == {
        *("sft", "sft.jsonl", "sft.txt", "printed.txt", "sft.0.json", "sft.1.json"),
        "sft.1.jsonl",  # opened by the recorder that the second process was given
    }
    assert two.place.with_name("sft.1.jsonl").read_text() == ""
    records = map(json.loads, two.place.with_suffix(".jsonl").read_text().splitlines())
    assert [value for key, _, value in records if key == "event"] == first["events"]
    assert {path.name for path in two.place.iterdir()} == {
        *("best", "checkpoint-6", "checkpoint-8", "events.json", "final", "visits"),
    }
    assert "Traceback" not in "\n".join(two.printed)


@pytest.fixture(scope="module")
def whole(launch, retreating, tmp_path_factory):
    """Two processes with dropout; a trial from step 2 to 4 takes weights and moments back."""
    place = tmp_path_factory.mktemp("whole") / "sft"
    run = launch(place, retreating, max_steps=5)
    assert run.codes == [0, 0], run.printed
    kinds = [(event["kind"], event["step"]) for event in run.decided(0)["events"]]
    assert kinds == [("start", 0), ("trial", 2), ("rollback", 4), ("end", 5)]
    return run


def test_a_killed_process_ends_the_other_and_both_go_on_to_the_bit(
    launch, whole, retreating, tmp_path
):
    place = tmp_path / "sft"
    killed = launch(place, retreating, max_steps=5, hurt=[1, 5, "SIGKILL"])
    assert killed.codes == [2, None]
    assert killed.seconds < 60  # no time-out was waited for
    said = "error: rank 0: another process ended without a word (killed, or out of memory?)"
    assert [line for line in killed.printed if "error" in line.lower()] == [said]
    checkpoint = place / "checkpoint-3"
    assert find_fault(checkpoint) is None and (checkpoint / SNAPSHOT_FILE).is_file()
    states = [(checkpoint / f"rng_state_{rank}.pth").read_bytes() for rank in (0, 1)]
    assert states[0] != states[1]

    # Another number of processes has other steps and other dropout.
    with pytest.raises(CheckpointError) as refused:
        choose_start("auto", place, identity(retreating, 5))
    assert str(refused.value) == (
        f"checkpoint {checkpoint} is from another configuration: number of processes was 2, is 1; "
        "go on with the same values, or start anew without resume"
    )

    run = launch(place, retreating, max_steps=5, resume="auto")
    assert run.codes == [0, 0], run.printed
    assert f"going on from {checkpoint} (step 3)" in place.with_suffix(".txt").read_text()
    assert_same(run.adapter, whole.adapter)
    assert run.records == whole.records
    for rank in (0, 1):
        assert run.decided(rank)["events"] == whole.decided(rank)["events"]
        assert run.decided(rank)["ended"] == whole.decided(rank)["ended"]


def test_a_sharded_model_is_trained_stopped_and_taken_up_again_alike(
    launch, whole, retreating, tmp_path
):
    # A signal to one process stops both after the same step, inside the trial.
    place = tmp_path / "stopped" / "sft"
    stopped = launch(place, retreating, max_steps=5, save_steps=5, env=FSDP, hurt=[1, 3, "SIGTERM"])
    said = f"stopped after step 3; everything is in {place / 'checkpoint-3'}"
    # A progress bar may stand before it in its line.
    for rank in (0, 1):
        assert sum(f"[{rank} stopped: {said}]" in line for line in stopped.printed) == 1
    assert stopped.codes[0] == 130  # the other one waits for it, and may be ended meanwhile
    assert [path.name for path in place.glob("checkpoint-*")] == ["checkpoint-3"]
    assert find_fault(place / "checkpoint-3") is None
    run = launch(place, retreating, max_steps=5, save_steps=5, env=FSDP, resume="auto")
    assert run.codes == [0, 0], run.printed
    # Moments, generators or a snapshot that were lost would be a hundred times as much.
    assert_alike(run.adapter, whole.adapter)
    assert run.decided(0)["sharded"] and not whole.decided(0)["sharded"]
    assert (run.decided(0)["kind"], whole.decided(0)["kind"]) == ("FSDP", "MULTI_CPU")
    # Stopped between two logged steps: the loss logged at 4 is the mean of 3 and 4.
    expected = dict(whole.records)
    unlogged = expected.pop(("train/loss", 3))
    del expected["train/grad_norm", 3], expected["train/learning_rate", 3]
    expected["train/loss", 4] = (unlogged + expected["train/loss", 4]) / 2
    assert run.records == {key: pytest.approx(v, rel=1e-4) for key, v in expected.items()}
    for name in ("events", "evaluations", "losses", "best", "ended"):
        assert run.decided(0)[name] == run.decided(1)[name]


def test_a_launcher_s_hang_up_leaves_a_checkpoint(launch, advancing, tmp_path):
    place = tmp_path / "sft"
    stopped = launch(place, advancing, save_steps=8, hurt=[1, 1, "SIGHUP"])
    assert stopped.codes[0] == 130, stopped.printed
    assert find_fault(place / "checkpoint-1") is None


@pytest.mark.slow
def test_a_sharded_model_in_bf16_is_trained_as_a_whole_one(launch, advancing, tmp_path):
    """Nobody but us wraps a sharded model in autocast."""
    words = {"precision": "bf16", "max_steps": 4}
    sharded = launch(tmp_path / "sharded" / "sft", advancing, env=FSDP, **words)
    whole = launch(tmp_path / "whole" / "sft", advancing, **words)
    assert sharded.codes == whole.codes == [0, 0], sharded.printed
    assert sharded.decided(0)["sharded"] and not whole.decided(0)["sharded"]
    assert_alike(sharded.adapter, whole.adapter)
    assert set(sharded.adapter) == set(whole.adapter)


@pytest.mark.parametrize(
    "env", [{}, pytest.param(FSDP, marks=pytest.mark.slow)], ids=["whole", "sharded"]
)
def test_a_bad_step_of_one_process_is_one_of_both(launch, retreating, tmp_path, env):
    # The gradient that both share is finite: only rank 1 sees that its loss is not.
    place, curriculum = tmp_path / "sft", retreating | {"enabled": False}
    run = launch(
        place,
        curriculum,
        max_steps=3,
        eval_steps=3,
        hurt=[1, 2, "infinite"],
        max_bad_steps=2,
        env=env,
    )
    assert run.codes == [0, 0], run.printed
    first, second = run.decided(0), run.decided(1)
    assert first["events"] == second["events"] and first["ended"] == second["ended"]
    assert run.records["train/bad_steps", 2] == 1
    # The examples of rank 1 alone, one in each of its micro-batches.
    lines = place.with_suffix(".txt").read_text().splitlines()
    (line,) = [line for line in lines if "Step 2 is not applied: loss inf" in line]
    assert len(line.partition("Examples: ")[2].partition(". Bad")[0].split(", ")) == 2


def test_one_failure_is_said_once_and_ends_both(launch, advancing, tmp_path):
    run = launch(tmp_path / "sft", advancing, hurt=[1, 2, "user"])
    assert run.codes == [1, 2]
    printed = "\n".join(run.printed)
    assert printed.count("error:") == printed.count("error: rank 1: the planted example is broken")
    assert printed.count("error:") == 1 and "Traceback" not in printed
    assert "[0 was told: rank 1: the planted example is broken]" in run.printed

    # In the main process, while the other waits for it.
    (tmp_path / "other" / "sft").mkdir(parents=True)
    (tmp_path / "other" / "sft" / "thesis.tex").write_text("years of work")
    run = launch(tmp_path / "other" / "sft", advancing)
    assert run.codes[0] == 2 and run.codes[1] != 0  # told, or ended by the launcher before
    rule = "name an empty or a new folder"
    said = f"error: rank 0: training.output_dir {run.place} holds other files; {rule}"
    assert [line for line in run.printed if not line.startswith("[1 was told: rank 0: ")] == [said]


def test_a_bug_in_one_process_is_heard_and_the_run_has_failed(launch, data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "data")
    options = SFT_OPTIONS | {"training.output_dir": "out", "data.path": "data"}
    run = launch.command(
        tmp_path,
        *("--config", str(ROOT / "configs/smoke/training_params.yaml")),
        *("--model", str(ROOT / "configs/model_arch.yaml")),
        *(word for key, value in options.items() for word in (f"--{key}", str(value))),
        hurt=[1, 4, "bug"],
    )
    assert run.codes == [1, 1]
    printed = "\n".join(run.printed)
    assert printed.count("Traceback") == printed.count("ZeroDivisionError: planted") == 1
    assert "in rank 1 of 2 processes" in run.printed
    assert "gloo" not in printed and "onnection" not in printed
    assert find_fault(tmp_path / "out" / "checkpoint-2") is None
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        ((status, error),) = store.execute(
            "SELECT status, value FROM runs JOIN tags USING (run_uuid) WHERE key = 'pixelis.error'"
        )
        stages = store.execute("SELECT step FROM metrics WHERE key = 'curriculum/stage'")
        assert sorted(stages) == [(1,), (2,), (3,)]
        # The training's, and that of the stage's visit that it died in.
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (2,)
    assert status == "FAILED" and error == "rank 1: ZeroDivisionError: planted"


# Alone


def test_a_process_alone_asks_nobody():
    assert ALONE.is_main and ALONE.world_size == 1
    assert ALONE.gather("a") == ["a"] and ALONE.any(True) and not ALONE.any(False)
    assert ALONE.run_on_main(lambda: 3) == 3
    assert list(ALONE.shard([[1, 2], [3]], sum)) == [([1, 2], 3), ([3], 3)]
    with pytest.raises(CheckpointError, match="^as it was$"), ALONE.fail_together():
        raise CheckpointError("as it was")
    ALONE.close()
    assert not torch.distributed.is_initialized()


@pytest.fixture
def set_variables(monkeypatch):
    """Set environment variables beside which no launcher's are left."""

    def change(variables):
        for name in (*LAUNCHED, *NUMBERS, "LOCAL_RANK", "ACCELERATE_USE_CPU"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return change


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"RANK": "3", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"},
        {"PMI_RANK": "0", "PMI_SIZE": "1"},
        {"SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"},
    ],
)
def test_nothing_is_joined_where_nothing_was_launched(set_variables, variables):
    set_variables(variables)
    assert join() is ALONE


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"MASTER_PORT": "29500", "ACCELERATE_USE_CPU": "True"},
            "^accelerate launch on CPUs is not supported: use torchrun --nproc_per_node",
        ),
        (
            {"ACCELERATE_USE_DEEPSPEED": "true"},
            "^accelerate launch with DeepSpeed is not supported: use torchrun",
        ),
        (
            {"RANK": "0", "WORLD_SIZE": "2"},
            "^WORLD_SIZE=2 in the environment announces several processes, which also need "
            "MASTER_ADDR, MASTER_PORT: unset it to train in one process, or use torchrun",
        ),
        ({"WORLD_SIZE": "2"}, "^WORLD_SIZE=2 .* also need RANK, MASTER_ADDR, MASTER_PORT: "),
        ({"WORLD_SIZE": ""}, "^WORLD_SIZE= in the environment announces"),
        ({"LOCAL_RANK": "0", "RANK": "0"}, "^LOCAL_RANK=0 .* need WORLD_SIZE, MASTER_ADDR, MASTER"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "^OMPI_COMM_WORLD_SIZE=4 .* also need RANK, WORLD_SIZE, "),
        ({"PMI_SIZE": "4", "LOCAL_RANK": "1"}, "^PMI_SIZE=4, LOCAL_RANK=1 in the environment"),
        (
            PLACE | {"RANK": "1", "WORLD_SIZE": "2"},
            "^the processes of RANK=1, WORLD_SIZE=2, MASTER_ADDR=127.0.0.1, MASTER_PORT=1 do not "
            r"meet \(.*\): unset these to train in one process, or use torchrun",
        ),
        (PLACE | {"RANK": "x", "WORLD_SIZE": "2"}, "^the processes of RANK=x, .* do not meet"),
        (PLACE | {"RANK": "0", "WORLD_SIZE": "x"}, "^the processes of .* do not meet"),
    ],
)
def test_an_environment_that_would_train_something_else_is_refused(
    set_variables, monkeypatch, variables, message
):
    monkeypatch.setattr(distributed, "JOIN_SECONDS", 1.0)
    set_variables(variables)
    with pytest.raises(ConfigError, match=message) as raised:
        join()
    assert len(str(raised.value).splitlines()) == 1
