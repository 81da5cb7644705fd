"""The runs of a root kept in a bucket: pulled before a training, pushed after each epoch."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import TypeVar

from imnetprep.catalog.datasets import Root
from imnetprep.fs import locked
from imnetprep.messages import Progress
from imnetprep.s3.address import Settings, parse_s3_address
from imnetprep.s3.bucket import Bucket
from imnetprep.sync.journal import open_sync_journal
from imnetprep.sync.keys import Content
from imnetprep.sync.open_files import OpenFiles
from imnetprep.sync.plan import Action, Direction, SyncPlan, plan_sync
from imnetprep.sync.run import Sync, best_kind
from imnetprep.sync.survey import Survey

Item = TypeVar("Item")


def pull_runs(root: Root, address: str, *, progress: Progress) -> None:
    """Fetch what is lost here of the runs at `address`, or newer there; there may be none yet.

    What may be newer here stays. Raises SourceFailed where the bucket cannot be read.
    """
    root.path.mkdir(parents=True, exist_ok=True)
    with _surveyed(root, address, progress) as survey:
        plan = plan_sync(
            survey, direction=Direction.PULL, replace=False, delete=False, abort_stale_s=None
        )
        _carry_out(replace(plan, steps=tuple(plan.of(Action.FETCH))))


def push_runs(root: Root, address: str, *, progress: Progress) -> None:
    """Send the runs of `root` to `address` in place of older ones, one under way too."""
    with closing(OpenFiles()) as files, _surveyed(root, address, progress, files) as survey:
        _carry_out(
            plan_sync(
                survey, direction=Direction.PUSH, replace=True, delete=False, abort_stale_s=None
            )
        )


def pushed_after_each(
    items: Iterator[Item], root: Root, address: str, *, progress: Progress
) -> Iterator[Item]:
    """The items of a generator, such as epochs, each once the runs of `root` are pushed."""
    with closing(items):  # type: ignore[type-var]  # a generator has close()
        for item in items:
            push_runs(root, address, progress=progress)
            yield item


def _carry_out(plan: SyncPlan) -> None:
    for _ in Sync(plan).carried_out():
        pass


@contextmanager
def _surveyed(
    root: Root, address: str, progress: Progress, files: OpenFiles | None = None
) -> Iterator[Survey]:
    place = parse_s3_address(address)
    with ExitStack() as stack:
        bucket = stack.enter_context(closing(Bucket(place.bucket, Settings())))
        stack.enter_context(locked(root.path, name=".sync.lock"))
        journal = stack.enter_context(open_sync_journal(root, endpoint=bucket.endpoint, keep=True))
        yield Survey(
            root=root, bucket=bucket, address=place, journal=journal, kind=best_kind(),
            contents=frozenset({Content.RUNS}), progress=progress, open_files=files,
        ).listed(uploads=files is not None)  # fmt: skip
