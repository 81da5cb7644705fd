"""A root against its manifest, or a tree without one against its dataset: what is wrong with it."""

from collections.abc import Iterator, Sequence

from imnetprep.catalog.datasets import Split
from imnetprep.progress import Progress
from imnetprep.roots import Root
from imnetprep.trees.checks import Checks
from imnetprep.trees.finding import Finding
from imnetprep.trees.places import Recognised
from imnetprep.trees.survey import surveyed
from imnetprep.units import count

# From this share on, images under a wrong wnid are no accidents but labels given by position.
_SHARE_BY_POSITION = 0.1


def findings(
    root: Root,
    known: Recognised,
    *,
    splits: Sequence[Split],
    checks: Checks,
    jobs: int | None,
    progress: Progress,
) -> Iterator[Finding]:
    """All that is wrong with `splits` (all of the dataset, where none is named).

    Raises ImnetprepError where a named split, or any split, is not there at all.
    """
    for split in known.selected(root, splits):
        first_flat, flat, misplaced = "", 0, 0
        for finding in surveyed(root, known, split, checks=checks, jobs=jobs, progress=progress):
            if finding.kind == "flat":
                first_flat, flat = first_flat or finding.path, flat + 1
                continue
            is_image = finding.kind == "misplaced" and (finding.belongs or "").count("/") == 2
            misplaced += is_image
            yield finding
        if flat:
            what = f"{count(flat, 'image')} flat in {split}/, outside any class folder"
            yield Finding("flat", first_flat, what)
        if misplaced >= max(2, _SHARE_BY_POSITION * known.dataset.samples(split)):
            what = (
                f"{misplaced:,} of {count(known.dataset.samples(split), 'image')} lie under a wrong"
                " wnid, as if labels had been given by position"
            )
            yield Finding("positional", split, what)
