"""One sft of the command line on a machine that fails in certain steps.

    python faulty_sft.py STEPS OPTION ...

In each of STEPS (JSON) what the embeddings give comes out with a NaN.
"""

import json
import math
import sys

import pixelis.cli.sft as sft_command
import pixelis.training.sft as sft_module
from pixelis.training.trainer import CurriculumTrainer


class FaultyTrainer(CurriculumTrainer):
    """Fails as faulty memory would: in numbers, not in code."""

    faults: list

    def __init__(self, *arguments, **words):
        super().__init__(*arguments, **words)
        self.model.get_input_embeddings().register_forward_hook(self.fail)

    def fail(self, module, inputs, output):
        if self.model.training and self.state.global_step + 1 in self.faults:
            output = output.clone()
            output[0, 3] = math.nan
            return output
        return None


if __name__ == "__main__":
    FaultyTrainer.faults = json.loads(sys.argv[1])
    sft_module.CurriculumTrainer = FaultyTrainer
    raise SystemExit(sft_command.run_cli(sft_command.main, sys.argv[2:]))
