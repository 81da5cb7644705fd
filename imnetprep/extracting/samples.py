"""Samples of an archive to a sink, every name and every count checked against the dataset."""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from imnetprep.archives.chunk_stream import ChunkStream
from imnetprep.archives.file import ArchiveFile, read_all
from imnetprep.archives.ranges import Section, refused_member
from imnetprep.archives.tar import FileStream, Stream, members, refused
from imnetprep.archives.zip import Directory
from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.catalog.member_paths import MemberPaths, Place
from imnetprep.columns import Columns
from imnetprep.extracting.sink import LARGEST_SAMPLE_BYTES, Batch, RangeSamples, Sample, Sink
from imnetprep.manifest import SampleRecord, packed
from imnetprep.messages import WrongBytes, count

_BATCH_BYTES = 1 << 20
_FAR_BYTES = 2 << 20
# In each of CIFAR-10's pickles.
_BATCH_IMAGES = 10_000

_Place = Place | tuple[Split, re.Match[str]] | None


class Cancellation(Exception):
    """A range is left as it is: another one failed, or the user stopped."""


class Extraction:
    """Hands the samples of `splits` in `archive` to `sink`; used from several threads."""

    def __init__(
        self, archive: Archive, splits: Sequence[Split], *, dataset: Dataset, sink: Sink
    ) -> None:
        self.archive, self._splits, self.dataset = archive, splits, dataset
        self.paths = MemberPaths(archive, dataset) if archive.members else None
        self.sink = sink
        self.cancellation = threading.Event()

    def extract(
        self, section: Section, stream: ChunkStream, hand_over: Callable[[Batch], None]
    ) -> None:
        """Hand over the samples of a section, those of a chunk at a time, in views of the chunk.

        Of part of a dataset the rest is passed over. Raises WrongBytes on a name that the dataset
        does not have there, or that comes twice, and on all that the readers of archives refuse.
        """
        batch: list[Sample] = []
        split, batch_bytes = self._splits[0], 0

        def hand_over_batch() -> None:
            nonlocal batch, batch_bytes
            if batch:
                full, batch, batch_bytes = batch, [], 0
                hand_over(Batch(split, full))

        stream.before_turn = hand_over_batch
        if self.paths is None:
            (split,) = self._splits
            for label, name, size_bytes in listed_samples(
                section, self.archive, self.dataset, split
            ):
                body = stream.take(size_bytes)  # which may hand the batch over
                batch.append(Sample(label, name, body))
        else:
            for split_of_sample, sample in self._placed(section, self.paths):
                if batch_bytes >= _BATCH_BYTES or split_of_sample is not split:
                    hand_over_batch()
                    split = split_of_sample
                batch.append(sample)
                batch_bytes += len(sample.body)
        hand_over_batch()

    def write(self, batch: Batch) -> list[SampleRecord]:
        """Write the samples, unless another thread has failed."""
        if self.cancellation.is_set():
            raise Cancellation
        return self.sink.write(batch)

    def no_records(self) -> dict[Split, list[SampleRecord]]:
        """What a range holds before its first sample."""
        return {split: [] for split in self._splits}

    def packed(
        self, records: Mapping[Split, Iterable[SampleRecord]], wnid: str | None
    ) -> RangeSamples:
        """The records of a range. Raises WrongBytes unless a class has all of its images, once."""
        try:
            by_split = {split: packed(of_split) for split, of_split in records.items()}
        except ValueError as error:
            raise name_twice(self.archive.name) from error
        if wnid is not None:
            label = self.dataset.label_of_wnid[wnid]
            for split, by_label in by_split.items():
                columns = by_label.get(label)
                check_count(self.dataset, split, label, columns, archives=self.archive.name)
        return by_split

    def unless_cancelled(self, on_bytes: Callable[[int], None]) -> Callable[[int], None]:
        """`on_bytes`, but whoever calls it is stopped when another thread has failed."""

        def call(amount: int) -> None:
            if self.cancellation.is_set():
                raise Cancellation
            on_bytes(amount)

        return call

    def _placed(self, section: Section, paths: MemberPaths) -> Iterator[tuple[Split, Sample]]:
        """The samples of an archive whose members have paths; other splits are left out."""
        of_batches = self.archive.content == "cifar-batches"
        find: Callable[[str], _Place] = paths.match if of_batches else paths.place
        for name, _, size_bytes in section.members:
            found = _place_of(name, self.archive, find=find)
            if found is None or found[0] not in self._splits:
                continue
            _require_fitting(name, size_bytes, self.archive)
            body = section.take(size_bytes)
            if isinstance(found, Place):
                yield found.split, Sample(found.label, found.name, body)
                continue
            yield from self._of_batch(*found, body, member=f"{self.archive.name}: {name}")

    def _of_batch(
        self, split: Split, match: re.Match[str], body: memoryview, *, member: str
    ) -> Iterator[tuple[Split, Sample]]:
        """The images of one of CIFAR-10's pickles, as PNG; their numbers count through all."""
        from imnetprep.archives.pickles import SIDE_PX, cifar_images
        from imnetprep.images import encode_png

        whole = self.dataset.published
        first = _BATCH_IMAGES * (int(match.groupdict().get("number", 1)) - 1)
        for number, (label, planes) in enumerate(cifar_images(body, name=member), start=first):
            wnid = whole.synsets[label].wnid
            name = whole.name_of(split, wnid, number)
            own = label if whole is self.dataset else self.dataset.label_of(split, name, wnid)
            if own is not None:
                yield split, Sample(own, name, encode_png(planes, SIDE_PX))


def find_samples(file: ArchiveFile, archive: Archive, paths: MemberPaths) -> None:
    """Let `paths` learn from the first sample of a tar where all of them are. Raises WrongBytes."""
    end = file.size_bytes or 0
    stream: Stream = FileStream(lambda offset, length: read_all(file, offset, offset + length))
    if file.is_far:  # no trip for each header
        stream = ChunkStream(file.chunks(0, end, _FAR_BYTES), 0, name=archive.name)
    for member in members(stream, name=archive.name, end=end, folders=True):
        if _place_of(member.name, archive, find=paths.match) is not None:
            return
    require_samples(archive, paths)


def require_samples(archive: Archive, paths: MemberPaths) -> None:
    """Raise WrongBytes where no sample was found in all of `archive`."""
    if not paths.has_samples:
        raise WrongBytes(
            f"{archive.name} has no images where they are looked for: {paths.nowhere()}",
            hint="name the dataset it belongs to: --dataset NAME|FILE.toml, which may be one of"
            " your own that says where in it the images are (docs/catalog.md)",
        )


def open_zip(
    file: ArchiveFile, archive: Archive, dataset: Dataset, paths: MemberPaths
) -> Directory:
    """The directory of the zip `archive`, of which `paths` learns where the samples are.

    Raises WrongBytes on members that do not belong.
    """
    find: Callable[[str], _Place] = paths.match if dataset is dataset.published else paths.place

    def read_at(offset: int, length: int) -> bytes:
        return read_all(file, offset, offset + length)

    def is_sample(path: str, size_bytes: int) -> bool:
        is_found = _place_of(path, archive, find=find) is not None
        if is_found:
            _require_fitting(path, size_bytes, archive)
        return is_found

    def directory(*, may_move: bool) -> Directory:
        assert file.size_bytes is not None, "no pipe"
        paths.may_move = may_move
        return Directory(read_at, file.size_bytes, name=archive.name, is_sample=is_sample)

    try:
        found = directory(may_move=False)  # what lies as published goes first
    except WrongBytes:
        if paths.has_samples:
            raise
    if not paths.has_samples:
        found = directory(may_move=True)
    require_samples(archive, paths)
    return found


def _place_of(path: str, archive: Archive, *, find: Callable[[str], _Place]) -> _Place:
    try:
        return find(path)
    except ValueError as error:
        raise refused_member(archive, path, str(error)) from error


def _require_fitting(member: str, size_bytes: int, archive: Archive) -> None:
    if size_bytes > LARGEST_SAMPLE_BYTES:
        raise refused_member(archive, member, f"of {size_bytes:,} bytes")


def listed_samples(
    section: Section, archive: Archive, dataset: Dataset, split: Split
) -> Iterator[tuple[int, str, int]]:
    """The label, name and size of each sample of a section, whose body is what comes next in it.

    Passes over and raises as `Extraction.extract`.
    """
    label_of = _labels(dataset.published, split, section.wnid)
    in_part = dataset is not dataset.published
    names: set[str] = set()
    for name, _, size_bytes in section.members:
        if name in names:
            raise refused_member(archive, name, "a second time")
        names.add(name)
        label = label_of(name)
        if label is None:
            reason = f"which {dataset.published.name} does not have there"
            raise refused_member(archive, name, reason)
        if in_part and (label := dataset.label_of(split, name, section.wnid)) is None:
            continue
        _require_fitting(name, size_bytes, archive)
        yield label, name, size_bytes


def _labels(dataset: Dataset, split: Split, wnid: str | None) -> Callable[[str], int | None]:
    """What gives the label of a name, or None for one that does not belong there."""
    if wnid is None:
        return lambda name: dataset.label_of(split, name)
    label = dataset.label_of_wnid[wnid]
    if (names := dataset.names(split, label)) is not None:
        return dict.fromkeys(names, label).get  # a tenth of the cost of asking for each
    return lambda name: label if dataset.label_of(split, name, wnid) == label else None


def check_count(
    dataset: Dataset, split: Split, label: int, columns: Columns | None, *, archives: str
) -> None:
    """Raise WrongBytes unless `columns` has as many images as `dataset` has with that label."""
    size, samples = dataset.counts(split)[label], columns.samples if columns else 0
    if samples == size:
        return
    names = {name for name, *_ in columns.rows()} if columns else set()
    gaps = [name for name in dataset.names(split, label) or () if name not in names]
    listing = f"; missing: {', '.join(gaps[:3])}" if gaps else ""
    listing += f" and {len(gaps) - 3:,} more" if len(gaps) > 3 else ""
    wnid = dataset.synsets[label].wnid
    raise WrongBytes(
        f"{archives}: {wnid} has {count(samples, 'image')}, not {size:,}{listing}",
        hint=f"this is not the whole {dataset.published.name}; fetch the archive again",
    )


def name_twice(archives: str) -> WrongBytes:
    """The error for two images of one name, which `packed` and `joined` find."""
    return refused(archives, "an image is listed twice")
