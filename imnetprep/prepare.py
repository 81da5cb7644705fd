"""Archives from where they are to organized splits, in one go: images ready with the last byte.

From a server they are organized as they are read, and no archive touches this disk. From a swarm
they come into ROOT/archives, and each is read in order while it comes: a piece when it is proved.
"""

import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType

from imnetprep.archive_parts import split_of_parquet
from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.download import DownloadPlan, carry_out_download, plan_download
from imnetprep.downloads.addresses import FileRequest
from imnetprep.manifest import SplitRecord, splits_in
from imnetprep.messages import Progress, Silent, WrongUsage
from imnetprep.organize import plan_organize
from imnetprep.sources.arrival import FORMS_IN_ORDER
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.seeder import SeedLimits
from imnetprep.sources.session import Network
from imnetprep.sources.swarm import Reading


@dataclass(frozen=True)
class PreparePlan:
    """What `prepare` will do: `servers` are addresses, each with the splits to be made of it.

    `download` has what comes into ROOT/archives: by torrent, and parts that are read together; and
    what is there already.
    """

    root: Root
    dataset: Dataset
    splits: tuple[Split, ...]
    servers: Mapping[str, tuple[Split, ...]]
    download: DownloadPlan

    @property
    def done_splits(self) -> set[Split]:
        """The splits that are organized."""
        return set(splits_in(self.root, Layout.IMAGEFOLDER))


class Stages:
    """How many `seconds` each stage took; those of a swarm overlap."""

    def __init__(self) -> None:
        self.seconds = dict[str, float]()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """The block belongs to `stage`."""
        start_s = time.monotonic()
        try:
            yield
        finally:
            earlier_s = self.seconds.get(stage, 0.0)
            self.seconds[stage] = earlier_s + time.monotonic() - start_s


@dataclass(frozen=True)
class _Means:
    """What every stage works with."""

    network: Network
    wait_s: float
    jobs: int | None
    stages: Stages
    progress: Progress


def plan_prepare(
    root: Root, addresses: Sequence[str] = (), *, dataset: str | None, splits: Sequence[Split]
) -> PreparePlan:
    """Decide where the archives of `splits` come from. As `plan_download`.

    Raises WrongUsage where an address is no archive of a known dataset, or one of two of the same.
    """
    download = plan_download(root, addresses, dataset=dataset, splits=splits, to_organize=True)
    servers = dict[str, tuple[Split, ...]]()
    splits = splits or download.dataset.splits
    parts, labels = list[FileRequest](), list[str]()
    for request in download.files:
        if request.name and split_of_parquet(request.name):
            parts.append(request)
            continue
        if request.archive is None:
            raise WrongUsage(
                f"{request.title} is no archive of {download.dataset.name}",
                hint="name its --dataset; imnetprep download fetches any file",
            )
        if len(request.places) > 1:
            raise WrongUsage(
                f"{request.title} has several addresses, and is read from one",
                hint="name one of them; imnetprep download takes them all",
            )
        if request.archive.labels_of:
            labels.append(request.title)  # which organize reads with the images
            continue
        own = [split for split in request.archive.splits if split in splits]
        address = request.places[0].address
        servers[address] = tuple(dict.fromkeys([*servers.get(address, ()), *own]))
    if labels and not servers and not download.to_fetch and not download.present:
        raise WrongUsage(
            f"{labels[0]} has labels, and no images", hint="name the folder where both are"
        )
    archives = (*download.to_fetch, *download.present)
    sources = {*itertools.chain(*servers.values()), *(s for each in archives for s in each.splits)}
    sources |= {split for each in parts if (split := split_of_parquet(each.name or ""))}
    own_splits = tuple(split for split in splits if split in sources)
    done_splits = splits_in(root, Layout.IMAGEFOLDER)
    to_fetch = [each for each in parts if split_of_parquet(each.name or "") not in done_splits]
    download = replace(download, files=tuple(to_fetch))
    return PreparePlan(root, download.dataset, own_splits, servers, download)


def carry_out_prepare(
    plan: PreparePlan,
    *,
    network: Network,
    wait_s: float,
    jobs: int | None,
    stages: Stages,
    progress: Progress,
) -> Iterator[SplitRecord]:
    """Make the splits; yields each once it lies under its name. `stages` learns what they took.

    Interrupted at any instant, the same call resumes. Raises as `carry_out_download` and as
    `OrganizePlan.carry_out`.
    """
    means = _Means(network, wait_s, jobs, stages, progress)
    for address, splits in plan.servers.items():
        yield from _organized(plan, splits, means, archives=address)
    of_servers = {split for splits in plan.servers.values() for split in splits}
    if rest := [split for split in plan.splits if split not in of_servers]:
        yield from _from_archives(plan, rest, means)


def _from_archives(
    plan: PreparePlan, splits: Sequence[Split], means: _Means
) -> Iterator[SplitRecord]:
    """Organize the archives of ROOT/archives, those that are still to come while they come."""
    if not plan.download.to_fetch:
        if plan.download.files:
            _download(plan, means)
        yield from _organized(plan, splits, means)
        return
    download = _Download(plan, means)
    with download.under_way():
        arrivals = download.arrivals()
        means = replace(means, progress=_Notes(means.progress))
        yield from _organized(plan, splits, means, arrivals=arrivals)


def _organized(
    plan: PreparePlan,
    splits: Sequence[Split],
    means: _Means,
    *,
    archives: str | None = None,
    arrivals: Mapping[str, PartFiles] = MappingProxyType({}),
) -> Iterator[SplitRecord]:
    with means.stages.timed("organize"):
        organize = plan_organize(
            plan.root,
            dataset=plan.dataset,
            splits=splits,
            archives=archives,
            jobs=means.jobs,
            arrivals=arrivals,
        )
        yield from organize.carry_out(means.progress)


class _Download:
    """The download of a plan, in a thread of its own."""

    def __init__(self, plan: PreparePlan, means: _Means) -> None:
        self._plan, self._means = plan, means
        self._parts = Future[Sequence[PartFiles]]()
        self._stop = threading.Event()
        self._result: Future[None]

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Run it; what ends the block ends it too. Raises what ended it first."""
        with ThreadPoolExecutor(1) as thread:
            self._result = thread.submit(self._run)
            try:
                yield
                self._result.result()
            except BaseException:
                self._stop.set()
                raise

    def arrivals(self) -> dict[str, PartFiles]:
        """The downloads that can be read while they come, by the names of their archives.

        Waits for all of the others.
        """
        archives = {each.name: each for each in self._plan.download.to_fetch}
        found = dict[str, PartFiles]()
        for parts in self._parts.result():
            for path in parts.paths.values():
                if parts.torrent.has_v1 and archives[path.name].form in FORMS_IN_ORDER:
                    found[path.name] = parts
        if found.keys() != archives.keys():
            self._result.result()
            return {}
        return found

    def _run(self) -> None:
        try:
            _download(self._plan, self._means, Reading(self._parts.set_result, self._stop))
        except BaseException as error:
            if not self._parts.done():
                self._parts.set_exception(error)
            for parts in self._parts.result() if not self._parts.exception() else ():
                parts.fail(error)
            raise


def _download(plan: PreparePlan, means: _Means, reading: Reading | None = None) -> None:
    """Download what comes into ROOT/archives."""
    with means.stages.timed("download"):
        for _ in carry_out_download(
            plan.download,
            plan.root,
            network=means.network,
            wait_s=means.wait_s,
            seed_limits=SeedLimits(),
            progress=means.progress,
            jobs=means.jobs,
            reading=reading,
        ):
            pass


class _Notes(Silent):
    """Shows the notes of `progress` and no bar: that of the download runs."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def note(self, line: str) -> None:
        self._progress.note(line)
