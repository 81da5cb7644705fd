"""A folder of one's own becomes a root where it lies, or by links where it may not be written."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.catalog.listing import listed_dataset
from imnetprep.extracting.sink import RangeRecord
from imnetprep.fs import locked, sync_folder
from imnetprep.jobs import FILES
from imnetprep.manifest import (
    SampleRecord,
    SplitRecord,
    create_manifest,
    image_difference,
    is_vacant,
    open_manifest,
    organized_splits,
    packed,
    refuse_other_dataset,
)
from imnetprep.messages import ImnetprepError, Progress, WrongBytes, adopt_by_links, move_away
from imnetprep.organizing.journal import Journal, Origin, open_journal
from imnetprep.organizing.publish import in_the_way, publish
from imnetprep.outside_files import read_file
from imnetprep.own_images.content import ImageFolder
from imnetprep.proving.receipt import NoProof

_IMAGES_AT_ONCE = 1000  # are journalled, which waits for the disk


def link_splits(content: ImageFolder, root: Root) -> None:
    """Give each split its name in `root` by links, where it lies elsewhere or is called otherwise.

    A split of CLASS/IMAGE is one link; of a flat one each image is. Raises ImnetprepError
    where something else has the name, before any link is made or removed.
    """
    is_inside = root.path.exists() and root.path.samefile(content.folder)
    for split, name in content.places.items():
        place, source = root.split(split), content.folder / name
        if split in content.flat_splits and is_inside:
            raise ImnetprepError(
                f"the images of {source} lie in no class folders, where a root has them",
                hint=f"{adopt_by_links(content.folder)} makes a root of links",
            )
        if split in content.flat_splits:
            for link in _stale_links(content, split, root):
                link.unlink()
            _link_images(content.splits[split], place)
        elif not (place.exists() and place.samefile(source)):
            if place.is_symlink() and not place.exists() and root.manifest.exists():
                place.unlink()  # ours, to a folder that is elsewhere now
            if os.path.lexists(place) and root.manifest.exists():
                raise ImnetprepError(
                    f"{place} is there, and is not {source}",
                    hint=f"{move_away(place)}; then run the same command again",
                )
            if os.path.lexists(place):
                raise in_the_way(place, root)
            root.path.mkdir(parents=True, exist_ok=True)
            place.symlink_to(name if is_inside else source.resolve(), target_is_directory=True)
    if root.path.exists():
        sync_folder(root.path)


def lead_links(content: ImageFolder, root: Root, *, jobs: int | None, progress: Progress) -> None:
    """Link as `link_splits` does, into a root whose manifest may list the images already.

    Where a link is to lead elsewhere, all images that the manifest lists are read there: raises
    WrongBytes at one that is not there or another one, before any link is changed.
    """
    for (split, layout), record in _listed_splits(root).items():
        is_adopted = layout is Layout.IMAGEFOLDER and split in content.splits
        if is_adopted and not _are_linked(content, split, root):
            _require_images(content, root, record, jobs=jobs, progress=progress)
    link_splits(content, root)


def _listed_splits(root: Root) -> Mapping[tuple[Split, Layout], SplitRecord]:
    if not root.manifest.exists():
        return {}
    with open_manifest(root.manifest) as manifest:
        return manifest.splits()


def _are_linked(content: ImageFolder, split: Split, root: Root) -> bool:
    """Does the split of `root` lead to that of `content` already?"""
    place = root.split(split)
    if split not in content.flat_splits:
        source = content.folder / content.places[split]
        return place.exists() and place.samefile(source)
    return all(
        os.path.realpath(place / wnid / name) == os.path.realpath(path)
        for wnid, files in content.splits[split].items()
        for name, path in files.items()
    )


def _require_images(
    content: ImageFolder, root: Root, record: SplitRecord, *, jobs: int | None, progress: Progress
) -> None:
    split = record.split
    with (
        open_manifest(root.manifest) as manifest,
        progress.task(f"compare {split}", total=record.samples, unit="images") as task,
    ):
        for synset in manifest.synsets():
            files = content.splits[split].get(synset.wnid, {})

            def is_right(sample: SampleRecord, files: Mapping[str, str] = files) -> bool:
                path = files.get(sample.name)
                return path is not None and sample.is_right(read_file(path))

            samples = list(manifest.samples(record, synset.label))
            answers = FILES.in_threads(is_right, samples, jobs=jobs)
            for sample, answer in zip(samples, answers, strict=True):
                task.advance(1)
                if not answer:
                    problem = "is another image" if sample.name in files else "is not there"
                    raise WrongBytes(
                        f"{content.folder} does not have the images of {root.path}:"
                        f" {split}/{synset.wnid}/{sample.name} {problem}",
                        hint="name the folder that they lie in now, or another --root",
                    )


def _stale_links(content: ImageFolder, split: Split, root: Root) -> list[Path]:
    """Links of an earlier adoption of the same folder that lead to none of its images now.

    Raises ImnetprepError at a link that may be somebody else's: one that leads out of the folder,
    but for those to what is gone in a root with a manifest.
    """
    home, links = content.folder.resolve(), []
    for wnid, files in content.splits[split].items():
        folder = root.split(split) / wnid
        for path in folder.iterdir() if folder.is_dir() else ():
            if not path.is_symlink():
                continue
            target = path.readlink()
            if str(target) == os.path.realpath(files.get(path.name, os.devnull)):
                continue
            is_lost = root.manifest.exists() and not path.exists()
            if not target.is_relative_to(home) and not is_lost:
                raise ImnetprepError(
                    f"{path} leads to {target}, which is not in {content.folder}",
                    hint=f"{move_away(root.split(split))}; then run the same command again",
                )
            links.append(path)
    return links


def _link_images(classes: Mapping[str, Mapping[str, str]], place: Path) -> None:
    for wnid, files in classes.items():
        folder = place / wnid
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in files.items():
            if not os.path.lexists(folder / name):
                (folder / name).symlink_to(os.path.realpath(path))


def folder_dataset(content: ImageFolder) -> Dataset:
    """The dataset of these images."""
    listing = {
        split: {wnid: list(files) for wnid, files in classes.items()}
        for split, classes in content.splits.items()
    }
    return listed_dataset(content.name, f"{content.name}, adopted", listing)


def root_dataset(root: Root, content: ImageFolder) -> Dataset:
    """The dataset of `content`, whatever the root calls it. ImnetprepError where it has others."""
    dataset = folder_dataset(content)
    if root.manifest.exists():
        with open_manifest(root.manifest) as manifest:
            if not image_difference(manifest.dataset(), dataset):
                return manifest.dataset()
            if is_vacant(manifest):
                return dataset
            hint = f"{move_away(root.manifest)}; then run the same command again"
            refuse_other_dataset(manifest, dataset, hint=hint)
    return dataset


def adopt_folder(
    root: Root, content: ImageFolder, *, jobs: int | None, progress: Progress
) -> Iterator[SplitRecord]:
    """Write the manifest of the splits of `content`, which lie in `root`; yields each.

    Every image is read once. The manifest lists a whole split or nothing; classes that an
    interrupted run has read are not read again.
    """
    dataset = root_dataset(root, content)
    with locked(root.organizing), open_journal(root.journal) as journal:
        create_manifest(root.manifest, dataset)
        for split in content.splits:
            key = split, Layout.IMAGEFOLDER
            if key not in organized_splits(root):
                origin = Origin(dataset.fingerprint, f"adopted {content.state(split)}", {})
                if journal.origin(split) != origin:
                    journal.forget(split)
                    journal.begin(split, origin)
                _read(dataset, split, content, journal, jobs=jobs, progress=progress)
                _publish(root, split, journal, content)
            journal.forget(split)
            yield organized_splits(root)[key]


def _publish(root: Root, split: Split, journal: Journal, content: ImageFolder) -> None:
    source = content.folder.absolute()
    publish(
        root,
        split,
        Layout.IMAGEFOLDER,
        workspace=None,
        listing=lambda: journal.columns(split),
        change=None,
        facts={
            "archive": None,
            "source": None if root.path.samefile(source) else str(source),
            "proof": NoProof("adopted: images of one's own, as they were").as_json(),
            "skipped": content.problems_below(source / content.places[split]),
        },
    )


def _read(
    dataset: Dataset,
    split: Split,
    content: ImageFolder,
    journal: Journal,
    *,
    jobs: int | None,
    progress: Progress,
) -> None:
    """Size and digest of every image, class by class, into the journal."""
    classes, whole_labels = content.splits[split], journal.done(split)
    sizes = {dataset.label_of_wnid[wnid]: len(files) for wnid, files in classes.items()}
    initial = sum(sizes[label] for label in whole_labels)
    with progress.task(
        f"adopt {split}", total=sum(sizes.values()), unit="images", initial=initial
    ) as task:
        batch, images = list[RangeRecord](), 0
        for wnid, files in classes.items():
            if (label := dataset.label_of_wnid[wnid]) in whole_labels:
                continue

            def read(item: tuple[str, str], label: int = label) -> SampleRecord:
                return SampleRecord.of_body(label, item[0], read_file(item[1]))

            records = []
            for record in FILES.in_threads(read, files.items(), jobs=jobs):
                records.append(record)
                task.advance(1)
            batch.append(RangeRecord(label, {split: packed(records)}, None))
            images += len(records)
            if images >= _IMAGES_AT_ONCE:
                journal.add(batch)
                batch, images = [], 0
        journal.add(batch)
