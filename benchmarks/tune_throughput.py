"""Compare the trials per hour of `tune` with one `mlflow run . -e sft` for each trial.

    python benchmarks/tune_throughput.py [--config configs/tune.yaml] [--again 2]

A complete study runs as a user starts it: `python -m pixelis.cli.tune`, with baselines, without
early stopping and without the final comparison. Then some of its trials are trained again by
`mlflow run . -e sft --env-manager local` with the same settings, without rollouts, as trials have
none. Both use the same data and the same warm caches of tokens and vision features.

Each trial is trained twice more: as a user would, on all cores, for the time; and on as many
threads as a worker has, for the adapter, which must be the trial's to the byte (sums depend on how
they are split among threads).

Exit code: 0; 1 if an adapter differs or the ratio is below 3.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rounds import spread

ROOT = Path(__file__).parent.parent
NEEDED_RATIO = 3.0
ADAPTER = "adapter_model.safetensors"


def run(command, log, **environment):
    """Run a command in the project's folder; return its seconds."""
    began = time.perf_counter()
    words = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, **words)
    log.write_text(done.stdout)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()[-3000:]}")
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/smoke/tune.yaml")
    parser.add_argument("--trials", type=int, default=24, help="of the search; baselines beside")
    parser.add_argument("--again", type=int, default=4, help="trials that sft trains again")
    arguments = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        return compare(arguments, folder)


def compare(arguments, folder):
    from pixelis.config import ModelFileConfig, TuneFileConfig, load_config, to_yaml
    from pixelis.experiments.tune.spec import SearchSpec
    from pixelis.experiments.tune.study import open_phases

    data = folder / "data"
    words = [
        *("--config", arguments.config, "--num_trials", str(arguments.trials)),
        *("--pruner", "none", "--final_seeds", "0"),
        *("--storage", f"sqlite:///{folder}/optuna.db", "--data.path", str(data)),
        *("--training.output_dir", str(folder / "tune"), "--best_config", f"{folder}/best.yaml"),
    ]
    pairs = list(zip(words[2::2], words[3::2], strict=True))
    config = load_config(
        TuneFileConfig, ROOT / arguments.config, [(k.removeprefix("--"), v) for k, v in pairs]
    )
    spec = SearchSpec(config, load_config(ModelFileConfig, ROOT / "configs/model_arch.yaml", []))
    print(f"{arguments.config}: making data and caches", flush=True)
    python = [sys.executable, "-m"]
    run(
        [*python, "pixelis.cli.data_prep", "--config", config.data.prep, "--output_dir", str(data)],
        folder / "data.log",
    )

    def sft(values, seed, number, **environment):
        """Repeat a trial's training alone; return its seconds and adapter."""
        training = spec.training(values, seed, folder / f"sft-{number}")
        file = folder / f"sft-{number}.yaml"
        file.write_text(to_yaml(training.config))
        model = folder / f"model-{number}.yaml"
        model.write_text(to_yaml(ModelFileConfig(model=training.model)))
        command = ["mlflow", "run", ".", "-e", "sft", "--env-manager", "local"]
        command += ["--experiment-name", config.exp_name, "-P", f"config={file}"]
        log = folder / f"sft-{number}.log"
        seconds = run([*command, "-P", f"model={model}"], log, **environment)
        return seconds, Path(training.config.training.output_dir) / "final" / ADAPTER

    sft({}, config.training.seed, "warm")
    seconds = run([*python, "pixelis.cli.tune", *words], folder / "tune.log")
    trials = [
        (phase, trial)
        for phase, search in open_phases(spec).items()
        for trial in search.finished_trials()
    ]
    assert all(trial.state.name == "COMPLETE" for _, trial in trials)
    each = seconds / len(trials)
    print(
        f"tune: {len(trials)} trials in {seconds:.1f} s, {each:.1f} s each, "
        f"{3600 / each:.0f} an hour",
        flush=True,
    )
    alone, same = [], True
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // config.num_workers))}
    for number in range(arguments.again):
        phase, trial = trials[number * (len(trials) - 1) // max(1, arguments.again - 1)]
        seed = config.training.seed
        took, _ = sft(values_of(trial), seed, number)
        alone.append(took)
        _, adapter = sft(values_of(trial), seed, f"{number}-threads", **threads)
        twin = spec.root / phase / str(trial.number) / f"seed-{seed}" / "sft" / "final" / ADAPTER
        equal = adapter.read_bytes() == twin.read_bytes()
        same &= equal
        verdict = "the same adapter" if equal else "ANOTHER ADAPTER"
        print(f"mlflow run . -e sft, {phase} {trial.number}: {took:.1f} s, {verdict}", flush=True)
    middle = statistics.median(alone)
    ratio = middle / each
    print(f"sft: {spread(alone, '.1f')} s each: {ratio:.2f} times")
    print(json.dumps({"ratio": round(ratio, 2), "same_adapters": same, "trials": len(trials)}))
    return 0 if same and ratio >= NEEDED_RATIO else 1


def values_of(trial):
    """Return the dotted keys and values of a trial."""
    return {**trial.params, **trial.user_attrs.get("pixelis.overrides", {})}


if __name__ == "__main__":
    raise SystemExit(main())
