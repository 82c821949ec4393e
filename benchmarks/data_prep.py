"""Measure the time and memory of data-prep: python benchmarks/data_prep.py --full

Compare only ratios of the results of one run. Each measurement is a fresh process of the library's
`prepare_folder`, start-up included, on all sample types. Memory is the peak of the proportional set
size (PSS) summed over the process and its workers, sampled ten times a second. `--full` also
generates 100,000 samples (some minutes).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from sklearn.datasets import load_sample_images

SCRIPT = """
import sys
from pathlib import Path
from pixelis.config import DataPrepConfig, load_config
from pixelis.data_prep.prepare import prepare_folder
import json
if __name__ == "__main__":
    keys = json.loads(sys.argv[1])
    config = load_config(DataPrepConfig, None, keys)
    summary = prepare_folder(config, Path(config.output_dir))
    print(summary["num_samples"])
"""


def memory_of(process):
    """Return the PSS of a process and its descendants in megabytes."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**20


def measure(folder, **keys):
    """Run data-prep in a separate process; return seconds and peak megabytes."""
    script = folder / "prepare.py"
    script.write_text(SCRIPT)
    keys = {"output_dir": str(folder / f"out{time.monotonic_ns()}"), **keys}
    keys |= {"difficulty.correlation_samples": 0}
    started = time.monotonic()
    command = [sys.executable, str(script), json.dumps(keys)]
    process = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, memory_of(process))
        time.sleep(0.1)
    seconds = time.monotonic() - started
    assert process.returncode == 0, f"data-prep failed with {keys}"
    return int(process.stdout.read()), seconds, peak


def write_chats(folder, count):
    """Write a ShareGPT file of `count` records, each with its own crop of a photograph."""
    from PIL import Image

    photographs = [Image.fromarray(array) for array in load_sample_images().images]
    images = folder / "images"
    images.mkdir(parents=True)
    with (folder / "chats.jsonl").open("w") as file:
        for index in range(count):
            photograph = photographs[index % len(photographs)]
            left, top = index % 200, index // 200 % 150
            name = f"{index}.jpg"
            photograph.crop((left, top, left + 320, top + 240)).save(images / name, quality=90)
            turns = [
                {"from": "human", "value": f"<image>\nWhat is photograph {index}?"},
                {"from": "gpt", "value": f"It is number {index}."},
            ]
            record = {"id": str(index), "image": f"images/{name}", "conversations": turns}
            file.write(json.dumps(record) + "\n")
    return folder / "chats.jsonl"


def report(what, made, seconds, peak):
    rate = made / seconds
    print(f"{what:36} {made:7} in {seconds:6.1f} s  {rate:7.0f} /s  {peak:6.0f} MiB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="100,000 samples as well")
    parser.add_argument("--num-samples", type=int, default=10_000, help="default %(default)s")
    arguments = parser.parse_args()
    count = arguments.num_samples
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        traps = {"include_negatives": True, "include_traps": True}
        results = {}
        for workers in (1, 2):
            result = measure(folder, num_samples=count, num_workers=workers, **traps)
            results[workers] = result
            report(f"scenes, {workers} worker{'s' * (workers > 1)}", *result)
        speedup = results[1][1] / results[2][1]
        print(f"2 workers against 1: {speedup:.2f} times as fast")
        chats = write_chats(folder / "chats", count)
        report("import of chats, 2 workers", *measure(folder, input=str(chats), num_workers=2))
        if arguments.full:
            ten = measure(folder, num_samples=10 * count, num_workers=2, **traps)
            report("scenes, 2 workers", *ten)
            linear = ten[1] / (10 * results[2][1])
            flat = ten[2] / results[2][2]
            print(f"10 times the samples: {linear:.2f} of 10 times the time, {flat:.2f} the memory")


if __name__ == "__main__":
    main()
