"""The form of an archive that nothing can prove: its end marker, its names, its counts."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from imnetprep.archives.file import LocalFile
from imnetprep.archives.tar import PLAIN_FORMS, FileStream, members
from imnetprep.catalog.datasets import Archive, Dataset
from imnetprep.errors import WrongBytes
from imnetprep.progress import Progress, Task
from imnetprep.units import count


def form_problems(
    path: Path, archive: Archive, dataset: Dataset, progress: Progress
) -> Iterator[tuple[str, str]]:
    """What is wrong with the form of `archive`, as a kind and a sentence; bodies are not read.

    Of a split without labels only the structure is known; of what is no tar, or has paths, nothing.
    """
    if archive.form not in PLAIN_FORMS or archive.members:
        return
    labelled = archive.split in dataset.splits
    found: Counter[int] = Counter()
    seen: set[str] = set()
    last_wnid = None
    with progress.task(f"verify {path.name}", total=path.stat().st_size, unit="B") as task:
        try:
            for name, wnid in _images(path, archive, task):
                if wnid != last_wnid:
                    seen.clear()  # a name is of one class, so no other class tar may have it
                    last_wnid = wnid
                label = _label(dataset, archive, name) if labelled else None
                if name in seen:
                    yield "twice", f"member {name!r} is there a second time"
                elif labelled and (
                    label is None or wnid not in (None, dataset.synsets[label].wnid)
                ):
                    yield "extra", f"member {name!r} is not of {dataset.name} there"
                elif label is not None:
                    found[label] += 1
                seen.add(name)
        except WrongBytes as error:
            yield "structure", str(error)
            return
    yield from _count_problems(found, archive, dataset)


def _count_problems(
    found: Counter[int], archive: Archive, dataset: Dataset
) -> Iterator[tuple[str, str]]:
    if archive.split is None or archive.split not in dataset.splits:
        return
    for label, wanted in enumerate(dataset.counts(archive.split)):
        if found[label] != wanted:
            wnid = dataset.synsets[label].wnid
            yield "count", f"{wnid} has {count(found[label], 'image')}, not {wanted:,}"


def _images(path: Path, archive: Archive, task: Task) -> Iterator[tuple[str, str | None]]:
    """The name of every image, with the wnid of the class tar that it is in, if it is in one."""
    told = 0
    with closing(LocalFile(path)) as file:
        stream = FileStream(file.read_at)
        for member in members(stream, name=archive.name, end=file.size_bytes or 0):
            if archive.form == "tar-of-tars":
                name, end = f"{archive.name}: {member.name}", stream.position + member.size_bytes
                for inner in members(stream, name=name, end=end):
                    yield inner.name, member.name.removesuffix(".tar")
            else:
                yield member.name, None
            task.advance(stream.position - told)
            told = stream.position


def _label(dataset: Dataset, archive: Archive, name: str) -> int | None:
    return None if archive.split is None else dataset.label_of(archive.split, name)
