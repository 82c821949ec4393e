"""Build the package with a copy of configs/ in it; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copy configs/ to pixelis/configs in the build folder, where `pixelis.config` looks for it."""

    def run(self) -> None:
        """Build as usual, then copy; an editable install reads the checkout's own files."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "pixelis" / "configs"
            left_out = shutil.ignore_patterns("best*.yaml")
            shutil.copytree("configs", target, dirs_exist_ok=True, ignore=left_out)


setup(cmdclass={"build_py": BuildWithConfigs})
