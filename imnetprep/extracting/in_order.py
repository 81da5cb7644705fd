"""An archive read once, from its start to its end, plain or compressed, while threads write."""

import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from imnetprep.archives.chunk_stream import ChunkStream
from imnetprep.archives.compression import COMPRESSED_FORMS, decompressed
from imnetprep.archives.file import ArchiveFile
from imnetprep.archives.idx import LabelledFile, tar_of_images
from imnetprep.archives.ranges import Contents, Section, sections
from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.extracting.samples import Extraction, require_samples
from imnetprep.extracting.sink import Batch, RangeRecord
from imnetprep.images import encode_grey_png
from imnetprep.manifest import SampleRecord
from imnetprep.messages import WrongBytes
from imnetprep.proving.readers import Reader

# What may follow the end of a tar: tar fills up a record, and nobody's is larger.
_MOST_PADDING_BYTES = 64 << 20
# Batches of samples that wait for their writer: for each of the jobs, and in all. Each holds a
# chunk of the archive, of up to 4 MB.
_BATCHES_PER_JOB, _BATCHES_AT_MOST = 2, 24

Check = Callable[[Batch], None]
_Futures = list[tuple[Split, Future[list[SampleRecord]]]]


def extract_in_order(
    extraction: Extraction,
    file: ArchiveFile,
    reader: Reader,
    *,
    directory: Contents | None,
    may_hold: Callable[[Section], bool],
    jobs: int,
    check_of: Callable[[int], Check | None],
    on_bytes: Callable[[int], None],
) -> Generator[RangeRecord, None, None]:
    """Each range of the archive, once `jobs` threads have written what one reader found in it.

    `directory` is that of a zip. What cannot hold samples, as `may_hold` says, is not yielded.
    `check_of` gets the start of a range: where it gives a check, the range was written in a run
    before, and is read again for the proof alone; its batches go to the check. Raises WrongBytes on
    what is not the dataset's; the ranges in front of that are yielded before.
    """
    on_bytes = extraction.unless_cancelled(on_bytes)
    flow = _Flow(extraction.archive, file, reader, on_bytes)
    end_to_end = flow.sections(extraction.dataset.published, directory)
    batches = min(_BATCHES_PER_JOB * jobs, _BATCHES_AT_MOST)
    free_batches = threading.BoundedSemaphore(batches)
    queue: deque[tuple[Section, _Futures]] = deque()
    futures: _Futures = []

    def write(batch: Batch) -> list[SampleRecord]:
        try:
            return extraction.write(batch)
        finally:
            free_batches.release()

    def submit(batch: Batch) -> None:
        free_batches.acquire()
        futures.append((batch.split, writers.submit(write, batch)))

    def collected(*, limit: int) -> Iterator[RangeRecord]:
        while len(queue) > limit:
            section, of_section = queue.popleft()
            records = extraction.no_records()
            for split, future in of_section:
                records[split] += future.result()
            if may_hold(section):  # else its names were looked at, on the way
                yield RangeRecord(section.start, extraction.packed(records, section.wnid), None)

    with ThreadPoolExecutor(jobs) as writers:
        try:
            for section in end_to_end:
                if check := check_of(section.start):
                    extraction.extract(section, flow.stream, check)
                    continue
                futures = []
                extraction.extract(section, flow.stream, submit)
                queue.append((section, futures))
                yield from collected(limit=batches)
            flow.finish()
            if extraction.paths is not None:
                require_samples(extraction.archive, extraction.paths)
            yield from collected(limit=0)
        except Exception:
            with suppress(Exception):  # the sections in front are whole all the same
                yield from collected(limit=0)
            raise
        finally:
            extraction.cancellation.set()


class _Flow:
    """The bytes that `reader` gives, as sections; `on_bytes` gets the length of what is used up."""

    def __init__(
        self, archive: Archive, file: ArchiveFile, reader: Reader, on_bytes: Callable[[int], None]
    ) -> None:
        self._archive, self._file, self._on_bytes = archive, file, on_bytes
        self._is_compressed = self._archive.form in COMPRESSED_FORMS
        self._raw_bytes = 0
        name, chunks = self._archive.name, reader.chunks(0, None)
        if self._is_compressed:
            raw = self._counted(chunks)
            chunks = decompressed(raw, form=self._archive.form or "", name=name)
            if isinstance(file, LabelledFile):
                chunks = tar_of_images(chunks, file.labels, name=name, encode=encode_grey_png)
            self.stream = ChunkStream(chunks, 0, name=name)
        else:
            self.stream = ChunkStream(chunks, 0, name=name, on_bytes=on_bytes)

    def sections(self, dataset: Dataset, directory: Contents | None) -> Iterator[Section]:
        """All of them in order."""
        if directory is not None:
            return directory.sections(self.stream)
        end = (None if self._is_compressed else self._file.size_bytes) or sys.maxsize
        return sections(self.stream, self._archive, dataset, end=end)

    def finish(self) -> None:
        """Read on to the end. Raises WrongBytes where that is not where it should be."""
        # A few compressed bytes may decompress to any number.
        limit_bytes = _MOST_PADDING_BYTES if self._is_compressed else sys.maxsize
        if not self.stream.drain(limit_bytes):
            raise WrongBytes(
                f"{self._archive.name} goes on for more than {_MOST_PADDING_BYTES:,} bytes behind"
                " its end",
                hint="this is not the published archive; fetch it again from its source",
            )
        read_bytes = self._raw_bytes if self._is_compressed else self.stream.position
        size_bytes = self._archive.size_bytes or read_bytes
        if read_bytes != size_bytes or self._file.read_at(size_bytes, 1):
            raise WrongBytes(
                f"{self._archive.name} has not the {size_bytes:,} bytes that it should have",
                hint="fetch it again from its source",
            )

    def _counted(self, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        for chunk in chunks:
            yield chunk
            self._raw_bytes += len(chunk)
            self._on_bytes(len(chunk))
