"""A zip as ranges of whole members, some 64 MB each, from its directory: no headers are walked."""

from collections.abc import Callable, Iterator, Sequence

from imnetprep.archives.ranges import RUN_BYTES, Range, Section
from imnetprep.archives.tar import Stream
from imnetprep.archives.zip import Directory
from imnetprep.catalog.datasets import Archive, Dataset
from imnetprep.catalog.member_paths import MemberPaths
from imnetprep.extracting.sink import LARGEST_SAMPLE_BYTES, refused


class Zip:
    """The zip `archive`, its directory read. Raises WrongBytes on members that do not belong."""

    def __init__(
        self,
        archive: Archive,
        dataset: Dataset,
        *,
        size_bytes: int,
        read_at: Callable[[int, int], bytes],
    ) -> None:
        paths = MemberPaths(archive, dataset)
        in_part = paths.place if dataset is not dataset.published else None

        def wanted(path: str, size_bytes: int) -> bool:
            try:
                found = in_part(path) if in_part else paths.match(path)
            except ValueError as error:
                raise refused(archive, path, str(error)) from error
            if found is not None and size_bytes > LARGEST_SAMPLE_BYTES:
                raise refused(archive, path, f"of {size_bytes:,} bytes")
            return found is not None

        self._directory = Directory(read_at, size_bytes, name=archive.name, is_sample=wanted)

    @property
    def ranges(self) -> Sequence[Range]:
        """End to end from 0 to the directory, so that a checksum of the whole can be made."""
        starts = [0]
        for start in self._directory.starts:
            if start - starts[-1] >= RUN_BYTES:
                starts.append(start)
        ends = [*starts[1:], self._directory.end]
        return [Range(*span, None) for span in zip(starts, ends, strict=True) if span[0] < span[1]]

    def holds_samples(self, span: Range) -> bool:
        """Does a sample lie in that range?"""
        return self._directory.holds_samples(span.start, span.end)

    def section(self, span: Range, stream: Stream) -> Section:
        """The section of one range, from a stream that stands at its start."""
        members = self._directory.members(stream, span.end)
        return Section(span.start, None, iter(members), members)

    def sections(self, stream: Stream) -> Iterator[Section]:
        """All of them, from a stream that is read from its start to its end."""
        for each in self.ranges:
            stream.skip(each.start - stream.position)
            yield self.section(each, stream)
