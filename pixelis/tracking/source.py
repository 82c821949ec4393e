"""Where a run comes from: the commit of the code, and texts without the user's home folder."""

import subprocess
from pathlib import Path


def git_tags(file: Path = Path(__file__)) -> dict[str, str]:
    """Tags `git.commit` and `git.dirty` of the repository that `file` belongs to.

    Args:
        file: A file of the code that runs. An installed copy that merely lies inside someone's
            repository is not tracked by it and says nothing.

    Returns:
        The two tags, or none without git or a repository.
    """
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        commit = _git(file.parent, "rev-parse", "HEAD")
        dirty = _git(file.parent, "status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git.commit": commit, "git.dirty": "true" if dirty else "false"}


def without_home(text: str) -> str:
    """The text with the home folder written as `~`: stores are shared, user names are not."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
