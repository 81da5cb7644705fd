"""The class folders as sinks: of images as published, or each made smaller on its way."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.extracting.sink import Batch, Sink, published_records
from imnetprep.images import Resize, ResizedImage, resized_jpeg
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


class ResizedFolders(Sink):
    """A file a sample, a JPEG made smaller as `resize` says, on `jobs` cores. Close it."""

    is_forkable, threads_per_job = True, 2  # a thread waits while its images are made

    def __init__(self, dataset: Dataset, folder: Path, resize: Resize, *, jobs: int) -> None:
        self.options = folder_options(resize)
        self._folders, self._resize = ClassFolders(dataset, folder), resize
        self._jobs = jobs
        self._pool: ProcessPoolExecutor | None = None

    def open_to_threads(self) -> None:
        if self._pool is None and self._jobs > 1:
            self._pool = worker_pool(self._jobs)

    def write(self, batch: Batch) -> list[SampleRecord]:
        records = []
        for record, body in self._made(batch):
            write_sample(self._folders.class_folder(batch.split, record.label), record.name, body)
            records.append(record)
        return records

    def records(self, batch: Batch) -> list[SampleRecord]:
        return [record for record, _ in self._made(batch)]

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _made(self, batch: Batch) -> list[tuple[SampleRecord, bytes]]:
        bodies = [bytes(sample.body) for sample in batch.samples]
        try:
            if self._pool is None:
                images = _resized(bodies, self._resize)
            else:
                images = self._pool.submit(_resized, bodies, self._resize).result()
        except BrokenProcessPool as error:
            raise worker_killed() from error
        samples = []
        for sample, image in zip(batch.samples, images, strict=True):
            if isinstance(image, str):
                raise WrongBytes(
                    f"{sample.name}: {image}",
                    hint="an image as published does decode; fetch the archive again",
                )
            body, change = image
            record = SampleRecord.of_body(sample.label, sample.name, body)._replace(change=change)
            samples.append((record, body))
        return samples


def _resized(bodies: Sequence[bytes], resize: Resize) -> list[ResizedImage | str]:
    """Each made smaller, or why it cannot be."""
    results: list[ResizedImage | str] = []
    for body in bodies:
        try:
            results.append(resized_jpeg(body, resize))
        except ValueError as error:
            results.append(str(error))
    return results
