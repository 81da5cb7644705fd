"""The class folders as sinks: of images as published, or each made smaller on its way."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.extracting.sink import Batch, Sample, Sink, published_records
from imnetprep.images import Resize, resized_jpeg
from imnetprep.layouts.imagefolder import make_class_folder, write_sample
from imnetprep.manifest import SampleRecord
from imnetprep.messages import WrongBytes
from imnetprep.processes import worker_killed, worker_pool


def folder_options(resize: Resize | None) -> Mapping[str, Any]:
    """What class folders of images, as published or made smaller, are made with."""
    return {} if resize is None else {"resize": resize._asdict()}


class ClassFolders(Sink):
    """A file a sample, under `folder`, the split and the wnid."""

    options, is_forkable, threads_per_job = folder_options(None), True, 1

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        self._dataset, self._folder = dataset, folder
        self._class_folders: dict[tuple[Split, int], str] = {}

    def write(self, batch: Batch) -> list[SampleRecord]:
        records = []
        for label, name, body in batch.samples:
            write_sample(self.class_folder(batch.split, label), name, body)
            records.append(SampleRecord.of_body(label, name, body))
        return records

    def records(self, batch: Batch) -> list[SampleRecord]:
        return published_records(batch)

    def class_folder(self, split: Split, label: int) -> str:
        """The folder of a class, made where it is missing."""
        if (folder := self._class_folders.get((split, label))) is None:
            wnid = self._dataset.synsets[label].wnid
            folder = str(make_class_folder(self._folder / split, wnid))
            self._class_folders[split, label] = folder
        return folder


class ResizedFolders(ClassFolders):
    """A file a sample, a JPEG made smaller as `resize` says, on `jobs` cores. Close it."""

    threads_per_job = 2  # a thread waits while its images are made

    def __init__(self, dataset: Dataset, folder: Path, resize: Resize, *, jobs: int) -> None:
        super().__init__(dataset, folder)
        self.options, self._jobs = folder_options(resize), jobs
        self._make_smaller = partial(
            _resized_images, resize=resize, apply_orientation=dataset.orientation_applied
        )
        self._pool: ProcessPoolExecutor | None = None

    def open_to_threads(self) -> None:
        if self._pool is None and self._jobs > 1:
            self._pool = worker_pool(self._jobs)

    def write(self, batch: Batch) -> list[SampleRecord]:
        images = self._images(batch)
        for record, body in images:
            write_sample(self.class_folder(batch.split, record.label), record.name, body)
        return [record for record, _ in images]

    def records(self, batch: Batch) -> list[SampleRecord]:
        return [record for record, _ in self._images(batch)]

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _images(self, batch: Batch) -> list[tuple[SampleRecord, bytes]]:
        samples = [sample._replace(body=bytes(sample.body)) for sample in batch.samples]
        if self._pool is None:
            return self._make_smaller(samples)
        try:
            return self._pool.submit(self._make_smaller, samples).result()
        except BrokenProcessPool as error:
            raise worker_killed() from error


def _resized_images(
    samples: Sequence[Sample], *, resize: Resize, apply_orientation: bool
) -> list[tuple[SampleRecord, bytes]]:
    """Each made smaller. Raises WrongBytes on one that does not decode."""
    images = []
    for label, name, body in samples:
        try:
            image = resized_jpeg(bytes(body), resize, apply_orientation=apply_orientation)
        except ValueError as error:
            raise WrongBytes(
                f"{name}: {error}",
                hint="fetch the archive again if it is not as published; or take the images as they"
                " are, without --resize",
            ) from error
        record = SampleRecord.of_body(label, name, image.body)
        images.append((record._replace(change=image.change), image.body))
    return images
