"""The shape of the project: who may import whom, how long a module is, what no file may hold."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
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
FOUNDATION = {"config", "errors", "recorder", "figures", "files", "mlflow_plugin", "progress"}
KINDS = {".py", ".yaml", ".yml", ".toml", ".md", ".ipynb", ".json", ".jinja", ".txt", ""}


def tracked_files():
    """What git tracks; everything below the folders of code where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.splitlines()]
    else:
        folders = ("pixelis", "recipes", "tests", "benchmarks", "configs", "docs")
        paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    return [path for path in sorted(paths) if path.is_file() and "__pycache__" not in path.parts]


FILES = tracked_files()
PYTHON_FILES = [file for file in FILES if file.suffix == ".py"]
MODULES = [file for file in PYTHON_FILES if file.relative_to(ROOT).parts[0] == "pixelis"]


def name_of(file):
    return file.relative_to(ROOT).as_posix()


def package_of(file):
    return file.relative_to(ROOT / "pixelis").parts[0].removesuffix(".py")


@cache
def nodes_of(file):
    return list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


@cache
def imports_of(file):
    """Full names of everything that a module imports, wherever in it."""
    names = []
    for node in nodes_of(file):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(file)}: relative imports hide who imports whom"
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def siblings_imported(file):
    """Names of our own packages and modules that a module imports."""
    return {name.split(".")[1] for name in imports_of(file) if name.startswith("pixelis.")}


def may_import(own, other):
    if own in FOUNDATION:
        return other in FOUNDATION
    if own == "tracking":
        return other in FOUNDATION | {"curriculum"}  # whose events it records
    if other == "tracking":
        return own in {"cli", "runs"}  # below runs everything takes a plain recorder
    return other in FOUNDATION or RANK[own] <= RANK[other]


def test_every_folder_belongs_to_a_layer():
    known = set(RANK) | FOUNDATION | {"tracking", "__init__"}
    assert {package_of(file) for file in MODULES} <= known


def test_imports_point_one_way():
    wrong = [
        f"{name_of(file)} imports pixelis.{other}"
        for file in MODULES
        for other in siblings_imported(file) - {package_of(file), "__version__"}
        if not may_import(package_of(file), other)
    ]
    assert wrong == []


def module_name(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def top_level_imports(file, known):
    """The modules of ours that are imported when a module is: not those inside of functions."""
    names = set()
    body = list(ast.parse(file.read_text(encoding="utf-8")).body)
    while body:
        node = body.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.If | ast.Try):
            body += node.body
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in known else node.module)
    return names & known


def test_no_modules_import_each_other_in_a_circle():
    files = {module_name(file): file for file in MODULES}
    graph = {name: top_level_imports(file, set(files)) - {name} for name, file in files.items()}
    # What imports nothing that is left is taken away, again and again: a circle stays.
    while free := [name for name, imported in graph.items() if not imported & graph.keys()]:
        for name in free:
            del graph[name]
    assert graph == {}


def test_a_library_is_imported_by_one_folder_only():
    wrong = []
    for file in MODULES:
        own, imported = package_of(file), {name.partition(".")[0] for name in imports_of(file)}
        outside = imported - set(sys.stdlib_module_names) - {"pixelis"}
        if "mlflow" in imported and own not in {"tracking", "mlflow_plugin"}:
            wrong.append(f"{name_of(file)} imports mlflow")
        if "optuna" in imported and own != "experiments":
            wrong.append(f"{name_of(file)} imports optuna")
        if "tqdm" in imported and own != "progress":
            wrong.append(f"{name_of(file)} imports tqdm")
        if own == "curriculum" and file.stem != "config" and outside:
            wrong.append(f"{name_of(file)} imports {outside}")
        if own == "operations" and outside - {"numpy", "PIL", "scipy", "sklearn", "rapidocr"}:
            wrong.append(f"{name_of(file)} imports {outside}")
    assert wrong == []


def test_no_module_is_longer_than_400_lines():
    lengths = {name_of(f): len(f.read_text(encoding="utf-8").splitlines()) for f in MODULES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_an_entry_point_is_thin():
    thin = [file for file in MODULES if package_of(file) == "cli" and file.stem not in SHARED_CLI]
    lengths = {name_of(f): len(f.read_text(encoding="utf-8").splitlines()) for f in thin}
    assert {name: length for name, length in lengths.items() if length > 65} == {}


SHARED_CLI = {"arguments", "console", "__main__", "__init__"}


def test_file_names_say_what_is_in_them():
    vague = re.compile(r"utils?|helpers|common|misc|.*_(v\d+|new|enhanced|robust|final)")
    assert [name_of(file) for file in PYTHON_FILES if vague.fullmatch(file.stem)] == []


LOADERS = {"torch.load", "yaml.load", "pickle.load", "pickle.loads", "eval", "exec"}


def test_nothing_is_loaded_that_could_run_code():
    wrong = []
    for file in MODULES:
        for node in nodes_of(file):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            trusted = [k for k in node.keywords if k.arg == "trust_remote_code"]
            if name in LOADERS:
                wrong.append(f"{name_of(file)} calls {name}")
            if any(ast.unparse(keyword.value) == "True" for keyword in trusted):
                wrong.append(f"{name_of(file)} trusts remote code")
    assert wrong == []


def test_a_figure_is_drawn_in_memory_and_written_whole():
    # data-prep's are drawn into a folder that is moved into place when it is whole.
    wrong = [
        name_of(file)
        for file in MODULES
        for node in nodes_of(file)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(".savefig")
        and "format" not in {keyword.arg for keyword in node.keywords}
        and package_of(file) != "data_prep"
    ]
    assert wrong == []


def test_no_exception_is_caught_blindly():
    bare = [
        name_of(file)
        for file in MODULES
        for node in nodes_of(file)
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert bare == []


def test_no_file_names_a_registry_or_a_path_of_one_machine():
    # Put together here, so that this file does not name them either.
    hosts = ("pypi" + ".org", "files.python" + "hosted", "registry.npm" + "js", "deb.deb" + "ian")
    paths = ("/" + "work/", "/" + "farm/", "/" + "root/")
    wrong = [
        f"{name_of(file)}: {word}"
        for file in FILES
        if file.suffix in KINDS and file.name != "tokenizer.json"
        for word in hosts + paths
        if word in file.read_text(encoding="utf-8")
    ]
    assert wrong == []
