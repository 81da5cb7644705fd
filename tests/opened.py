"""The code of our docs that opens a root in the libraries of others, run as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def open_in(library: str, root: Path, **words: str) -> Any:
    """What the line of `library` in docs/layouts.md gives, with each of `words` for its name."""
    row = re.search(rf"^\| {library} \| `(.+?)` \| `(.+?)` \|", _page("layouts"), re.MULTILINE)
    assert row is not None, f"docs/layouts.md has no line of {library}"
    imports, line = row.groups()
    return eval(_filled(line, {"ROOT": str(root), **words}), run_code(imports))


def block_with(library: str, page: str, **words: str) -> str:
    """The first block of Python in docs/PAGE.md that imports `library`, with `words` filled in."""
    blocks = re.findall(r"^```python\n(.+?)^```", _page(page), re.MULTILINE | re.DOTALL)
    return _filled(next(code for code in blocks if f"import {library}" in code), words)


def run_code(code: str) -> dict[str, Any]:
    """The names that `code` binds; skipped where it imports what only `--all` installs."""
    for name in ("fastai", "keras"):
        if re.search(rf"\b{name}\b", code):
            pytest.importorskip(name, reason=f"{name} is not installed: scripts/test --all")
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def _page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text()


def _filled(code: str, words: dict[str, str]) -> str:
    for name, word in words.items():
        assert name in code
        code = code.replace(name, word)
    return code
