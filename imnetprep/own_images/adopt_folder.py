"""A folder of one's own becomes a root where it lies, or by links where it may not be written."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.catalog.listing import listed_dataset
from imnetprep.extracting.sink import RangeRecord
from imnetprep.fs import locked, sync_folder
from imnetprep.images import decoding_problem
from imnetprep.jobs import FILES
from imnetprep.manifest import (
    SampleRecord,
    SplitRecord,
    create_manifest,
    open_manifest,
    organized_splits,
    packed,
    refuse_other_dataset,
)
from imnetprep.messages import ImnetprepError, Progress, WrongBytes, count, move_away
from imnetprep.organizing.journal import Journal, Origin, open_journal
from imnetprep.organizing.publish import in_the_way, publish
from imnetprep.own_images.folder import ImageFolder, raise_problems
from imnetprep.proving.receipt import NoProof, bad_images

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def link_splits(content: ImageFolder, root: Root) -> None:
    """Give each split its name in `root` by links, where it lies elsewhere or is called otherwise.

    A split of CLASS/IMAGE is one link; of a flat one each image is. Raises ImnetprepError
    where something else has the name.
    """
    for split, name in content.places.items():
        place, source = root.split(split), content.folder / name
        if place.exists() and place.samefile(source):
            continue
        if split in content.flat_splits:
            if root.path.samefile(content.folder) if root.path.exists() else False:
                raise ImnetprepError(
                    f"the images of {source} lie in no class folders, where a root has them",
                    hint=f"imnetprep adopt {content.folder} --root NEW makes a root of links",
                )
            _link_images(content.splits[split], place)
            continue
        if os.path.lexists(place):
            raise in_the_way(place, root)
        root.path.mkdir(parents=True, exist_ok=True)
        is_inside = root.path.resolve() == content.folder.resolve()
        place.symlink_to(name if is_inside else source.resolve(), target_is_directory=True)
    if root.path.exists():
        sync_folder(root.path)


def _link_images(classes: Mapping[str, Mapping[str, str]], place: Path) -> None:
    for wnid, files in classes.items():
        folder = place / wnid
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in files.items():
            if not os.path.lexists(folder / name):
                (folder / name).symlink_to(Path(path).resolve())


def folder_dataset(content: ImageFolder) -> Dataset:
    """The dataset of these images."""
    name = content.folder.resolve().name
    listing = {
        split: {wnid: list(files) for wnid, files in classes.items()}
        for split, classes in content.splits.items()
    }
    return listed_dataset(name, f"{name}, adopted", listing)


def adopt_folder(
    root: Root, content: ImageFolder, *, skip_bad: bool, jobs: int | None, progress: Progress
) -> Iterator[SplitRecord]:
    """Write the manifest of the splits of `content`, which lie in `root`; yields each.

    Every image is read once; what does not decode is named with all others like it, or left out
    with `skip_bad`. The manifest lists a whole split or nothing; classes that an interrupted run
    has read are not read again.
    """
    dataset = folder_dataset(content)
    with locked(root.organizing), open_journal(root.journal) as journal:
        if _is_adopted(root, content):
            yield from (
                organized_splits(root)[split, Layout.IMAGEFOLDER] for split in content.splits
            )
            return
        bad: dict[Split, dict[str, str]] = {}
        for split in content.splits:
            origin = Origin(dataset.fingerprint, f"adopted {root.split(split).stat().st_ino}", {})
            if journal.origin(split) != origin:
                journal.forget(split)
                journal.begin(split, origin)
            bad[split] = _read(dataset, split, content, journal, jobs=jobs, progress=progress)
        problems = {path: reason for each in bad.values() for path, reason in each.items()}
        if problems and not skip_bad:
            raise_problems(content.folder, problems)
        if problems:
            dataset = folder_dataset(_without(content, bad))
        create_manifest(root.manifest, dataset)
        for split in content.splits:
            _publish(root, split, journal, content, bad[split])
        for split in content.splits:
            journal.forget(split)
            yield organized_splits(root)[split, Layout.IMAGEFOLDER]


def _publish(
    root: Root, split: Split, journal: Journal, content: ImageFolder, bad: Mapping[str, str]
) -> None:
    publish(
        root,
        split,
        Layout.IMAGEFOLDER,
        workspace=None,
        listing=lambda: journal.columns(split),
        change=None,
        facts={
            "archive": None,
            "source": str(content.folder.resolve()),
            "proof": NoProof("adopted: images of one's own, as they were").as_json(),
            "skipped": {
                os.path.relpath(path, content.folder / content.places[split]): reason
                for path, reason in {**bad, **content.problems}.items()
                if Path(path).is_relative_to(content.folder / content.places[split])
            },
        },
    )


def _is_adopted(root: Root, content: ImageFolder) -> bool:
    """Is every split listed, with these images? Raises ImnetprepError where it has others."""
    records = organized_splits(root)
    if not all((split, Layout.IMAGEFOLDER) in records for split in content.splits):
        return False
    bad = {
        split: {
            str(content.folder / content.places[split] / name): reason
            for name, reason in bad_images(root, split).items()
        }
        for split in content.splits
    }
    with open_manifest(root.manifest) as manifest:
        hint = f"{move_away(root.manifest)}; then run the same command again"
        refuse_other_dataset(manifest, folder_dataset(_without(content, bad)), hint=hint)
    return True


def _read(
    dataset: Dataset,
    split: Split,
    content: ImageFolder,
    journal: Journal,
    *,
    jobs: int | None,
    progress: Progress,
) -> dict[str, str]:
    """Read the images of a split into the journal, class by class; returns the bad ones and why."""
    classes, whole_labels = content.splits[split], journal.done(split)
    labels = dataset.label_of_wnid
    initial = sum(len(classes[wnid]) for wnid in classes if labels[wnid] in whole_labels)
    total = sum(map(len, classes.values()))
    with (
        progress.task(f"adopt {split}", total=total, unit="images", initial=initial) as task,
        ThreadPoolExecutor(FILES.count(jobs)) as workers,
    ):
        for wnid, files in classes.items():
            if (label := labels[wnid]) in whole_labels:
                continue

            def read(item: tuple[str, str], label: int = label) -> SampleRecord | None:
                body = Path(item[1]).read_bytes()
                task.advance(1)
                return None if image_problem(body) else SampleRecord.of_body(label, item[0], body)

            records = [each for each in workers.map(read, files.items()) if each is not None]
            if not records:
                raise WrongBytes(
                    f"none of the {count(len(files), 'file')} in {wnid} of {split} is an image",
                    hint="take the folder of that class away",
                )
            journal.add([RangeRecord(label, {split: packed(records)}, None)])
    names = {(record.label, record.name) for record in journal.samples(split)}
    return {
        path: image_problem(Path(path).read_bytes()) or "was no image a moment ago"
        for wnid, files in classes.items()
        for name, path in files.items()
        if (labels[wnid], name) not in names
    }


def image_problem(body: bytes) -> str | None:
    """Why `body` is no image that can be trained on; None: nothing. A JPEG that has its end is
    whole.
    """
    if body.startswith(_JPEG_START) and body.endswith(_JPEG_END):
        return None
    return decoding_problem(body)


def _without(content: ImageFolder, bad: Mapping[Split, Mapping[str, str]]) -> ImageFolder:
    splits = {
        split: {
            wnid: {name: path for name, path in files.items() if path not in bad[split]}
            for wnid, files in classes.items()
        }
        for split, classes in content.splits.items()
    }
    return ImageFolder(content.folder, splits, content.places)
