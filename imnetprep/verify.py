"""A root against its manifest, or a tree without one against its dataset: what is wrong with it."""

from collections.abc import Iterator, Sequence

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.checking.check_folders import folder_findings
from imnetprep.checking.check_shards import shard_findings
from imnetprep.checking.recognise import Tree
from imnetprep.manifest import SplitRecord, open_manifest, pick_split
from imnetprep.messages import Checks, Finding, Progress

# All that is wrong with a split in one layout, which the manifest may not list.
CHECKS = {Layout.IMAGEFOLDER: folder_findings, Layout.WEBDATASET: shard_findings}


def findings_by_split(
    root: Root,
    tree: Tree,
    *,
    splits: Sequence[Split],
    layout: Layout | None = None,
    checks: Checks,
    jobs: int | None,
    progress: Progress,
) -> Iterator[tuple[str, Iterator[Finding]]]:
    """All that is wrong with each of `splits` (all of the dataset, where none is named).

    A split has the name of its folder: `train`, or `shards/train`.
    Raises ImnetprepError where a named split, or any split, is not there at all, WrongUsage where
    one is there in two layouts and none is named.
    """
    records: dict[Split, SplitRecord | None] = dict.fromkeys(splits or tree.dataset.splits)
    if root.manifest.exists():
        with open_manifest(root.manifest) as manifest:
            records = {each: pick_split(manifest, root, each, layout=layout) for each in records}
    # What no manifest lists can be told by its names, if it lies in class folders.
    places = tree.places if layout in (None, Layout.IMAGEFOLDER) else {}
    tree.selected(root, splits, present={*places, *(each for each in records if records[each])})
    for split, record in records.items():
        if record and record.change:
            progress.note(f"the {split} images are not as published: {record.change}")
        of_layout = record.layout if record else layout or Layout.IMAGEFOLDER
        name = root.split(split, of_layout).relative_to(root.path).as_posix()
        check = CHECKS[of_layout]
        yield name, check(root, tree, split, checks=checks, jobs=jobs, progress=progress)
