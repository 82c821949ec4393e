from hypothesis import settings

# How long a case takes says more about the machine's other work than about the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Files of minutes, by how long they take: begun first, so that no process is left with one at the
# end while the other has nothing to do (`--dist loadfile --no-loadscope-reorder`).
LONGEST = (
    *("tuning/test_machines.py", "test_end_to_end.py", "cli/test_tune.py", "cli/test_sft.py"),
    *("training/test_batch_size.py", "planning/test_memory.py", "cli/test_ablate.py"),
    *("tuning/test_study.py", "cli/test_evaluate.py", "training/test_processes.py"),
    *("data/test_ten_thousand.py", "cli/test_kills.py", "training/test_start.py"),
    *("cli/test_champion.py", "cli/test_plan.py", "models/test_export.py"),
)
# Of `make faults`.
FIRST_FAULTS = ("faults/test_long_training.py", "faults/test_kills_tune.py")
_RANK = {name: rank for rank, name in enumerate((*FIRST_FAULTS, *LONGEST))}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: _RANK.get(item.nodeid.partition("::")[0][6:], len(_RANK)))
