"""A split against what it should be, by the check of its layout."""

from collections.abc import Iterator

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.checking.check_folders import surveyed
from imnetprep.checking.check_shards import surveyed_shards
from imnetprep.checking.recognise import Tree
from imnetprep.messages import Checks, Finding, Progress, count

# From this share on, images under a wrong wnid are no accidents but labels given by position.
_SHARE_BY_POSITION = 0.1


def _folder_findings(
    root: Root, tree: Tree, split: Split, *, checks: Checks, jobs: int | None, progress: Progress
) -> Iterator[Finding]:
    """Images outside any class folder are one finding; so are labels given by position."""
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


# All that is wrong with a split in one layout, which the manifest may not list.
CHECKS = {Layout.IMAGEFOLDER: _folder_findings, Layout.WEBDATASET: surveyed_shards}
