"""What should lie in a split: the manifest's list, else the dataset's names, else its counts.

Names and counts cannot tell images that somebody made smaller from the published ones: there the
sizes are compared with that of the published archive.
"""

import tarfile
from collections import Counter
from collections.abc import Mapping

from imnetprep.archives.tar import BLOCK_BYTES, PLAIN_FORMS
from imnetprep.archives.tar_writing import ending
from imnetprep.catalog.datasets import Archive, Dataset, Layout, Split
from imnetprep.manifest import Manifest, SampleRecord
from imnetprep.messages import format_bytes

# Both archives of ILSVRC2012 are whole records of 20 blocks, as GNU tar ends them; should the tars
# in them end otherwise, each is up to a record off. Beside that 1 in 20,000 for what nobody knows:
# in all 18 MB of train, where its smallest class (732 images) lacks some 60 MB at 256 px, and
# 350 kB of val, where a class lacks some 5 MB.
_RECORD_BYTES, _SLACK = tarfile.RECORDSIZE, 20_000
# A user's own archive may have a PAX header or a GNU long name before each body.
_LONGER_HEADER_BYTES = 2 * BLOCK_BYTES


class Roster:
    """The samples that `split` should have. `manifest` is None where none lists the split."""

    def __init__(self, dataset: Dataset, split: Split, manifest: Manifest | None) -> None:
        self.dataset, self.split = dataset, split
        self._manifest = manifest
        self._record = manifest.splits()[split, Layout.IMAGEFOLDER] if manifest else None
        self.listed: bool = manifest is not None
        self._last: tuple[int, Mapping[str, SampleRecord | None] | None] = (-1, None)

    @property
    def change(self) -> str | None:
        """What was done to the images; None: nothing, as far as anybody knows."""
        return self._record.change if self._record else None

    @property
    def samples(self) -> int:
        """How many there should be in all."""
        return self.dataset.samples(self.split)

    def records(self, label: int) -> Mapping[str, SampleRecord | None] | None:
        """The names of a class with what the manifest knows of each; None: only the count is known.

        A class at a time, because a million records are too many to hold; the last one is kept.
        """
        if label != self._last[0]:
            self._last = (label, self._read(label))
        return self._last[1]

    def _read(self, label: int) -> Mapping[str, SampleRecord | None] | None:
        if self._manifest and self._record:
            return {each.name: each for each in self._manifest.samples(self._record, label)}
        names = self.dataset.names(self.split, label)
        return None if names is None else dict.fromkeys(names)

    def count(self, label: int) -> int:
        """How many samples a class should have."""
        return self.dataset.counts(self.split)[label]

    def label_of(self, name: str) -> int | None:
        """The label of the sample called `name`, as the dataset names its samples."""
        return self.dataset.label_of(self.split, name)


class Sizes:
    """The sizes of the images of a split, added one by one. `size_bytes` is what they hold."""

    def __init__(self, dataset: Dataset, split: Split) -> None:
        archive = _published_tar(dataset, split)
        self._published_bytes = archive.size_bytes if archive else None
        self._nested: bool = archive is not None and archive.form == "tar-of-tars"
        self._longer_header_bytes = 0 if dataset.built_in else _LONGER_HEADER_BYTES
        self._members = Counter[int]()  # label -> bytes of its headers and padded bodies
        self.images = self.size_bytes = 0

    @property
    def known(self) -> bool:
        """Is it known how much the published images take?"""
        return self._published_bytes is not None

    def add(self, label: int, size_bytes: int) -> None:
        """One more image of `label`."""
        self.images += 1
        self.size_bytes += size_bytes
        self._members[label] += (1 + -(-size_bytes // BLOCK_BYTES)) * BLOCK_BYTES

    @property
    def archive_bytes(self) -> int:
        """What the archive would have if it were packed of these images."""
        of_labels = self._members.values()
        if self._nested:
            return _tar_bytes(sum(BLOCK_BYTES + _tar_bytes(each) for each in of_labels))
        return _tar_bytes(sum(of_labels))

    @property
    def change(self) -> str | None:
        """What others did to the images, all of which are added; None: nothing that shows."""
        if self._published_bytes is None:
            return None
        tars = 1 + self._nested * len(self._members)
        slack_bytes = tars * _RECORD_BYTES + self._published_bytes // _SLACK
        slack_bytes += self.images * self._longer_header_bytes
        more_bytes = self.archive_bytes - self._published_bytes
        if abs(more_bytes) <= slack_bytes:
            return None
        cause, sign = ("", "more") if more_bytes > 0 else ("made smaller or ", "less")
        difference = format_bytes(abs(more_bytes))
        return f"{cause}encoded anew by others, {difference} {sign} than published"


def _published_tar(dataset: Dataset, split: Split) -> Archive | None:
    """The tar that has the images of `split` and nothing else, if there is one."""
    if dataset.part_of is not None:
        return None  # its archives hold more
    archives = [archive for archive in dataset.packed(None) if split in archive.splits]
    if len(archives) != 1 or archives[0].form not in PLAIN_FORMS:
        return None
    return None if archives[0].members or archives[0].other_members else archives[0]


def _tar_bytes(members_bytes: int) -> int:
    return members_bytes + len(ending(members_bytes))
