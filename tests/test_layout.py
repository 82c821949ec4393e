"""The shape of the project: who may import whom, how long a module is, what no file may hold."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "pixelis").rglob("*.py"))
PYTHON_FILES = MODULES + [
    file
    for name in ("tests", "recipes", "benchmarks")
    for file in sorted((ROOT / name).rglob("*.py"))
]

# Each folder may import from its own layer and from those below it.
LAYERS = (
    {"cli"},
    {"runs"},
    {"experiments", "planning"},
    {"training", "evaluation"},
    {"models", "data_prep"},
    {"data"},
    {"operations", "curriculum"},
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
# For all.
FOUNDATION = {"config", "errors", "recorder", "figures", "files", "mlflow_plugin"}


def ids(file):
    return file.relative_to(ROOT).as_posix()


def package_of(file):
    return file.relative_to(ROOT / "pixelis").parts[0].removesuffix(".py")


def imports_of(file):
    """Full names of everything that a module imports, wherever in it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{ids(file)}: relative imports hide who imports whom"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(name):
    return name.partition(".")[0]


def siblings_imported(file):
    """Names of our own packages and modules that a module imports."""
    return {name.split(".")[1] for name in imports_of(file) if name.startswith("pixelis.")}


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_imports_point_one_way(file):
    own = package_of(file)
    known = set(RANK) | FOUNDATION | {"tracking", "__init__", "__version__"}
    assert own in known, f"{own} has no place in the order of imports"
    for other in siblings_imported(file) - {own}:
        assert other in known, f"{other} has no place in the order of imports"
        if own in RANK and other in RANK:
            assert RANK[own] <= RANK[other], f"{own} must not import {other}"
        if own in FOUNDATION:
            assert other in FOUNDATION, f"{own} must not import {other}"
        if own == "tracking":
            allowed = FOUNDATION | {"curriculum"}  # whose events it records
            assert other in allowed, "the tracker knows nothing of training"
        if other == "tracking":
            assert own in {"cli", "runs"}, "below runs everything takes a plain recorder"


def test_neighbours_of_a_layer_do_not_import_each_other_both_ways():
    pairs = {
        (package_of(file), other)
        for file in MODULES
        for other in siblings_imported(file)
        if other in RANK and other != package_of(file)
    }
    assert {pair for pair in pairs if pair[::-1] in pairs} == set()


@pytest.mark.parametrize("file", sorted((ROOT / "pixelis/config").glob("*.py")), ids=ids)
def test_config_imports_nothing_of_ours_but_errors(file):
    assert siblings_imported(file) <= {"config", "errors"}


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_what_only_one_package_may_import(file):
    own, imported = package_of(file), {top(name) for name in imports_of(file)}
    assert "mlflow" not in imported or own in {"tracking", "mlflow_plugin"}
    assert "optuna" not in imported or own == "experiments"
    outside = imported - set(sys.stdlib_module_names) - {"pixelis"}
    if own == "curriculum":
        settings = file.name == "config.py"
        assert outside <= ({"pydantic"} if settings else set())
        assert siblings_imported(file) <= {
            "curriculum",
            "errors",
            *({"config"} if settings else ()),
        }
    if own == "operations":
        assert outside <= {"numpy", "PIL", "scipy", "sklearn", "rapidocr"}
    if own in FOUNDATION - {"recorder", "figures", "mlflow_plugin"}:
        assert outside <= {"yaml", "pydantic", "pydantic_core"}


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_no_module_is_longer_than_400_lines(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("file", PYTHON_FILES, ids=ids)
def test_file_names_say_what_is_in_them(file):
    assert file.stem not in {"utils", "util", "helpers", "common", "misc"}
    assert not re.search(r"(^|_)(v\d+|new|enhanced|robust|final)$", file.stem)


def calls_of(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield (
                ast.unparse(node.func),
                {word.arg: ast.unparse(word.value) for word in node.keywords},
            )


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_nothing_is_loaded_that_could_run_code(file):
    calls = list(calls_of(file))
    assert {name for name, _ in calls} & {"torch.load", "yaml.load", "pickle.load", "eval"} == set()
    assert [name for name, words in calls if words.get("trust_remote_code") == "True"] == []


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_a_figure_is_drawn_in_memory_and_written_whole(file):
    # data-prep's are drawn into a folder that is put in its place when it is whole.
    drawn = [words for name, words in calls_of(file) if name.endswith(".savefig")]
    assert all("format" in words for words in drawn) or ids(file) == "pixelis/data_prep/grading.py"


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_no_exception_is_caught_blindly(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), "bare except"


def text_files():
    folders = ("pixelis", "recipes", "benchmarks", "tests", "configs", "docs", "notebooks", ".ci")
    found = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    for folder in folders:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    kinds = {".py", ".yaml", ".toml", ".md", ".ipynb", ".json", ".jinja", ".txt", ""}
    return sorted(
        path for path in found if path.suffix in kinds and "__pycache__" not in path.parts
    )


@pytest.mark.parametrize("file", text_files(), ids=ids)
def test_no_file_names_a_registry_or_a_path_of_one_machine(file):
    # Put together here, so that this file does not name them either.
    hosts = ("pypi" + ".org", "files.python" + "hosted", "registry.npm" + "js", "deb.deb" + "ian")
    paths = ("/" + "work/", "/" + "farm/", "/" + "root/")
    text = file.read_text(encoding="utf-8")
    assert [word for word in hosts + paths if word in text] == []
