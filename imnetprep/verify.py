"""A root against its manifest, or a tree without one against its dataset: what is wrong with it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from imnetprep.catalog.datasets import Split
from imnetprep.checking.check_folders import surveyed
from imnetprep.checking.check_shards import surveyed_shards
from imnetprep.checking.recognise import Tree
from imnetprep.manifest import open_manifest, pick_split
from imnetprep.messages import Checks, Finding, ImnetprepError, Progress, count
from imnetprep.roots import Layout, Root

# From this share on, images under a wrong wnid are no accidents but labels given by position.
_SHARE_BY_POSITION = 0.1


def findings(
    root: Root,
    tree: Tree,
    *,
    splits: Sequence[Split],
    layout: Layout | None = None,
    checks: Checks,
    jobs: int | None,
    progress: Progress,
) -> Iterator[Finding]:
    """All that is wrong with `splits` (all of the dataset, where none is named).

    Raises ImnetprepError where a named split, or any split, is not there at all, WrongUsage where
    one is there in two layouts and none is named.
    """
    with ExitStack() as stack:
        manifest = None
        if root.manifest.exists():
            manifest = stack.enter_context(open_manifest(root.manifest))
        records = {
            split: pick_split(manifest, root, split, layout=layout) if manifest else None
            for split in splits or tree.dataset.splits
        }
        places = tree.places if layout is not Layout.WEBDATASET else {}
        for split in splits if places or any(records.values()) else tree.dataset.splits:
            if split not in places and records.get(split) is None:
                raise ImnetprepError(
                    f"{split} of {tree.dataset.name} is not organized in {root.path}",
                    hint="imnetprep organize",
                )
        for split, record in records.items():
            if record and record.change:
                progress.note(f"the {split} images are not as published: {record.change}")
            if manifest and record and record.layout is Layout.WEBDATASET:
                yield from surveyed_shards(
                    root, record, manifest, tree.dataset,
                    checks=checks, jobs=jobs, progress=progress,
                )  # fmt: skip
            elif record is None and layout is Layout.WEBDATASET:
                yield Finding("missing-split", split, "is not organized")
            else:
                yield from _tree_findings(
                    root, tree, split, checks=checks, jobs=jobs, progress=progress
                )


def _tree_findings(
    root: Root,
    tree: Tree,
    split: Split,
    *,
    checks: Checks,
    jobs: int | None,
    progress: Progress,
) -> Iterator[Finding]:
    first_flat, flat, mislabels = "", 0, 0
    for finding in surveyed(root, tree, split, checks=checks, jobs=jobs, progress=progress):
        if finding.kind == "flat":
            first_flat, flat = first_flat or finding.path, flat + 1
            continue
        is_image = finding.kind == "misplaced" and (finding.belongs or "").count("/") == 2
        mislabels += is_image
        yield finding
    if flat:
        message = f"{count(flat, 'image')} flat in {split}/, outside any class folder"
        yield Finding("flat", first_flat, message)
    if mislabels >= max(2, _SHARE_BY_POSITION * tree.dataset.samples(split)):
        message = (
            f"{mislabels:,} of {count(tree.dataset.samples(split), 'image')} lie under a wrong"
            " wnid, as if labels had been given by position"
        )
        yield Finding("positional", split, message)
