"""An archive read once, from its start to its end, as the sections in it: plain or compressed."""

import sys
from collections.abc import Callable, Iterator

from imnetprep.archives.chunk_stream import ChunkStream
from imnetprep.archives.compression import COMPRESSED_FORMS, decompressed
from imnetprep.archives.file import ArchiveFile
from imnetprep.archives.ranges import Section, sections
from imnetprep.catalog.datasets import Archive, Dataset
from imnetprep.extracting.zip_ranges import Zip
from imnetprep.messages import WrongBytes
from imnetprep.proving.readers import Reader

# What may follow the end of a tar: tar fills up a record, and nobody's is larger.
_MOST_PADDING_BYTES = 64 << 20


class Flow:
    """The bytes that `reader` gives, as sections. `told` gets the length of what is used up."""

    def __init__(
        self, file: ArchiveFile, archive: Archive, *, reader: Reader, told: Callable[[int], None]
    ) -> None:
        self._file, self._archive, self._told = file, archive, told
        self._compressed = archive.form in COMPRESSED_FORMS
        self._raw_bytes = 0
        chunks = reader.chunks(0, None)
        if self._compressed:
            chunks = decompressed(self._counted(chunks), form=archive.form or "", name=archive.name)
            told = _nobody
        self.stream = ChunkStream(chunks, 0, name=archive.name, told=told)

    def sections(self, dataset: Dataset, opened: Zip | None) -> Iterator[Section]:
        """All of them in order; `opened` where the archive is a zip."""
        if opened is not None:
            return opened.sections(self.stream)
        end = (None if self._compressed else self._file.size_bytes) or sys.maxsize
        return sections(self.stream, self._archive, dataset, end=end)

    def finish(self) -> None:
        """Read on to the end. Raises WrongBytes where that is not where it should be."""
        if self._compressed:
            self._drain()
        else:
            self.stream.drain()
        read_bytes = self._raw_bytes if self._compressed else self.stream.position
        wanted = self._archive.size_bytes or read_bytes
        if read_bytes != wanted or self._file.read_at(wanted, 1):
            raise WrongBytes(
                f"{self._archive.name} has not the {wanted:,} bytes that it should have",
                hint="fetch it again from its source",
            )

    def _drain(self) -> None:
        """As far as the padding of a tar goes: a few bytes may decompress to any number."""
        end = self.stream.position + _MOST_PADDING_BYTES
        while (rest := self.stream.skip_chunk()) and self.stream.position <= end:
            pass
        if rest:
            raise WrongBytes(
                f"{self._archive.name} goes on for more than {_MOST_PADDING_BYTES:,} bytes behind"
                " its end",
                hint="this is not the published archive; fetch it again from its source",
            )

    def _counted(self, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        for chunk in chunks:
            yield chunk
            self._raw_bytes += len(chunk)
            self._told(len(chunk))


def _nobody(_: int) -> None: ...
