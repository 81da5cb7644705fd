"""What should lie in a split: the manifest's list, else the dataset's names, else its counts."""

from collections.abc import Mapping

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.manifest import Manifest, SampleRecord
from imnetprep.roots import Layout


class Wanted:
    """The samples that `split` should have. `manifest` is None where none lists the split."""

    def __init__(self, dataset: Dataset, split: Split, manifest: Manifest | None) -> None:
        self.dataset, self.split = dataset, split
        self._manifest = manifest
        self._held = manifest.splits()[split, Layout.IMAGEFOLDER] if manifest else None
        self.listed = manifest is not None
        self._last: tuple[int, Mapping[str, SampleRecord | None] | None] = (-1, None)

    @property
    def change(self) -> str | None:
        """What was done to the images; None: nothing, as far as anybody knows."""
        return self._held.change if self._held else None

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
        if self._manifest and self._held:
            return {each.name: each for each in self._manifest.samples(self._held, label)}
        names = self.dataset.names(self.split, label)
        return None if names is None else dict.fromkeys(names)

    def count(self, label: int) -> int:
        """How many samples a class should have."""
        return self.dataset.counts(self.split)[label]

    def label_of(self, name: str) -> int | None:
        """The label of the sample called `name`, as the dataset names its samples."""
        return self.dataset.label_of(self.split, name)
