"""Names of what is recorded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pixelis.recorder import visit_index, visit_name

ROOT = Path(__file__).parent.parent
MAKE = "import json, os, sys; from pixelis.recorder import visit_name; "
MAKE += "name = visit_name(3, json.loads(sys.argv[1])); os.mkdir(name); print(name)"
STAGES = ["easy", "简单", "Größe μ", "a/b\n", "🦜 \udcff"]


@pytest.mark.parametrize("variables", [{}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_can_have_the_name_of_a_visit_in_any_locale(tmp_path, stage, variables):
    done = subprocess.run(
        [sys.executable, "-c", MAKE, json.dumps(stage)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (made,) = tmp_path.iterdir()
    assert visit_index(made.name) == 3 and "/" not in made.name


def test_the_name_of_a_visit_shows_its_stage():
    assert visit_name(1, "full mix") == "visit-01-full-mix"
    assert visit_name(12, "简单") == "visit-12-简单"
