"""The how-to pages hold: their changes apply to the files as they are, and their new files are Python.

A page prints a change as a diff, and begins a new file with its path in a comment. Whoever follows a page to
the letter has its changes in the tree: then they must be there as the page has them.
"""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))


def fences(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_changes_of_a_how_to_apply(page: Path) -> None:
    changes = fences(page, "diff")
    assert changes
    # All of them together: two may concern one file.
    check = ["git", "apply", "--check", "-p0"]
    tried = [
        subprocess.run(command, cwd=ROOT, input="".join(changes), capture_output=True, text=True)
        for command in (check, [*check, "--reverse"])
    ]
    assert 0 in [done.returncode for done in tried], tried[0].stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_new_files_of_a_how_to_are_python_in_a_folder_that_is_there(page: Path) -> None:
    files = fences(page, "python")
    assert files
    for text in files:
        ast.parse(text)
        path = Path(text.partition("\n")[0].removeprefix("# "))
        assert (ROOT / path).parent.is_dir(), path


def test_there_are_pages() -> None:
    assert len(PAGES) >= 4
