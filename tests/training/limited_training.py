"""Trains with too little memory: the search for a batch size may take so much more, and no more.

Arguments: a JSON request (training, model, curriculum, data_dir, room in MiB).
"""

import json
import resource
import sys
from pathlib import Path

import torch

import pixelis.training.batch_size as batch_size_module
from pixelis.config import ModelConfig, TrainingConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import UserError
from pixelis.recorder import NullRecorder
from pixelis.training.sft import TrainingSettings, run_training

MIB = 2**20


def address_space():
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = [line for line in status.splitlines() if line.startswith("VmSize:")]
    return int(line.split()[1]) * 1024


def take_the_rest():
    """What was freed before and kept by malloc, down to small blocks."""
    taken = []
    for size in (4 * MIB, MIB, MIB // 16):
        while True:
            try:
                taken.append(bytearray(size))
            except MemoryError:
                break
    return taken


def main(request):
    torch.set_num_threads(1)
    find = batch_size_module.find_batch_size

    def find_in_little_room(*arguments):
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (address_space(), hard))
        taken = take_the_rest()
        limit = resource.getrlimit(resource.RLIMIT_AS)[0] + request["room"] * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        try:
            return find(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
            del taken

    batch_size_module.find_batch_size = find_in_little_room
    settings = TrainingSettings(
        TrainingConfig(**request["training"]),
        ModelConfig(**request["model"]),
        CurriculumConfig.from_dict(request["curriculum"]),
        Path(request["data_dir"]),
        run_state={"identity": {}, "run_id": None},
    )
    try:
        run_training(settings, NullRecorder(), on_batch_size=print)
    except UserError as error:
        print(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(json.loads(sys.argv[1])))
