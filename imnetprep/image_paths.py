"""Files of images as a command names them: one by one, by folder, by pattern, or in lines."""

import os
from collections.abc import Iterable, Iterator, Sequence
from glob import glob
from pathlib import Path

from imnetprep.catalog.file_names import is_litter
from imnetprep.messages import ImnetprepError

LINES = "-"  # in place of a path: each line names one


def find_paths(words: Sequence[str], lines: Iterable[str]) -> Iterator[Path]:
    """The files that `words` name, in their order; those of a folder, and of its folders, by name.

    A pattern that the shell left alone is tried here; `-` stands for `lines`. Raises ImnetprepError
    at once where a word names nothing.
    """
    groups = {word: _matches(word) for word in words if word != LINES}
    if absent := [word for word, paths in groups.items() if not paths]:
        names = ", ".join(absent[:9]) + ", …" * (len(absent) > 9)
        raise ImnetprepError(
            f"{names}: there {'is no such file' if len(absent) == 1 else 'are no such files'}",
            hint="name images, folders of them, a pattern in quotes, or - for lines with paths",
        )
    return _files(words, groups, lines)


def _matches(word: str) -> list[str]:
    if os.path.lexists(word):
        return [word]
    return sorted(glob(word, recursive=True))  # noqa: PTH207 - as the shell has patterns


def _files(
    words: Sequence[str], groups: dict[str, list[str]], lines: Iterable[str]
) -> Iterator[Path]:
    for word in words:
        names = groups[word] if word != LINES else (line.rstrip("\r\n") for line in lines)
        for path in map(Path, filter(None, names)):
            yield from _below(path) if path.is_dir() else (path,)


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_litter(name))
        yield from (Path(place, name) for name in sorted(names) if not is_litter(name))
