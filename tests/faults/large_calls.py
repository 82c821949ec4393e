"""A process in which each operation is called on the largest images that an import lets in.

Run as `python -m tests.faults.large_calls`; prints seconds of each call, the length of what came
back, and the most memory that the process held (bytes): it holds nothing else of size.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pixelis.operations import execute

SIDE = 5000  # 25 million pixels
CALLS = [
    ("TRACK_OBJECT", {"frames": [1, 2], "bbox": [100, 100, 120, 120]}),
    ("TRACK_OBJECT", {"frames": [1, 2], "bbox": [100, 0, 120, SIDE]}),
    ("TRACK_OBJECT", {"frames": [1, 2], "bbox": [100, 100, 4900, 4900]}),
    ("SEGMENT_OBJECT_AT", {"x": 5, "y": 5}),
    ("GET_PROPERTIES", {"bbox": [0, 0, SIDE, SIDE]}),
    ("READ_TEXT", {"bbox": [0, 0, SIDE, SIDE]}),
    ("ZOOM_IN", {"bbox": [0, 0, SIDE, SIDE], "factor": 2}),
]


def main():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    frames = [Image.fromarray(pixels), Image.fromarray(np.roll(pixels, 7, axis=1))]
    calls = []
    for name, arguments in CALLS:
        started = time.process_time()
        observation = execute(name, arguments, frames)
        length = len(json.dumps(observation.result, allow_nan=False))
        sides = observation.image.size if observation.image else (0, 0)
        calls.append([name, time.process_time() - started, length, max(sides)])
    # Not `ru_maxrss`, which begins with the memory of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    most = next(int(line.split()[1]) << 10 for line in status.splitlines() if "VmHWM" in line)
    sys.stdout.write(json.dumps({"calls": calls, "bytes": most}))


if __name__ == "__main__":
    main()
