"""The package needs nothing but the standard library, and exports what the specification names."""

import subprocess
import sys

import pixelis.curriculum


def test_exports():
    assert pixelis.curriculum.__all__ == sorted(pixelis.curriculum.__all__)
    assert issubclass(pixelis.curriculum.ConfigError, ValueError)


def test_imports_the_standard_library_only():
    code = (
        "import sys; before = set(sys.modules); import pixelis.curriculum;"
        "tops = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(tops - sys.stdlib_module_names - {'pixelis'}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
