"""The thread that journals finished ranges, many at once, after a sync that covers them."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imnetprep.extracting.sink import RangeRecord
from imnetprep.fs import sync_file_system

_SECONDS_BETWEEN_SYNCS = 0.2


@contextmanager
def committer(
    add: Callable[[list[RangeRecord]], None],
    folder: Path,
    *,
    on_committed: Callable[[Iterable[int]], None] = lambda _: None,
    queue_size: int = 0,
) -> Iterator[Callable[[RangeRecord], None]]:
    """Gives a function that takes finished ranges; a thread syncs `folder` and `add`s them.

    When the block ends, however it ends, all that the function got is journalled. `on_committed`
    gets the starts of what is. With a `queue_size` a call waits while as many are not. What the
    thread ran into (a full disk) is raised by the next call or at the end.
    """
    records: queue.Queue[RangeRecord | None] = queue.Queue(queue_size)
    block_ended = threading.Event()
    failures: list[Exception] = []

    def work() -> None:
        is_last = False
        while not is_last and not failures:
            batch = [records.get()]
            while not records.empty():
                batch.append(records.get())
            is_last = None in batch
            try:
                sync_file_system(folder)
                add([each for each in batch if each is not None])
                on_committed(each.start for each in batch if each is not None)
            except Exception as error:
                failures.append(error)
            block_ended.wait(_SECONDS_BETWEEN_SYNCS)

    def commit(record: RangeRecord) -> None:
        put(record)
        if failures:
            raise failures[0]

    def put(record: RangeRecord | None) -> None:
        while thread.is_alive():
            with suppress(queue.Full):
                records.put(record, timeout=0.1)
                return

    # A daemon: a signal as it starts would leave it waiting for ever.
    thread = threading.Thread(target=work, name="committer", daemon=True)
    thread.start()
    try:
        yield commit
    finally:
        block_ended.set()
        put(None)
        thread.join()
    if failures:
        raise failures[0]
