"""A training where the machine lacks something: memory, disk, shared memory, workers, patience."""

import errno
import hashlib
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from imnetprep import cli
from imnetprep.catalog.datasets import Root, Split
from imnetprep.evaluation.evaluate import evaluate
from imnetprep.loading.batches import Batch, BatchArrays
from imnetprep.loading.loadable import require_loadable
from imnetprep.loading.loader import Loader
from imnetprep.loading.order import in_turn
from imnetprep.loading.slots import Slots
from imnetprep.manifest import open_manifest
from imnetprep.messages import ImnetprepError, Interruption, Silent
from imnetprep.pixels.transforms import Preprocessing, ValTransform
from imnetprep.process_group.stop_request import StopNow, stop_requests
from imnetprep.samples.sample_list import read_samples
from imnetprep.training.failures import said_in_words
from imnetprep.training.runs import Run
from imnetprep.training.step import Step
from tests.training.test_train import SMALL, trained

Patch = pytest.MonkeyPatch


def refuse(error: BaseException) -> Callable[..., Any]:
    def refused(*_args: object, **_options: object) -> None:
        raise error

    return refused


def batches(root: Root, workers: int) -> list[Batch]:
    with open_manifest(root.manifest) as manifest:
        samples = read_samples(manifest, Split.VAL, root)
    loader = Loader(
        samples, ValTransform(Preprocessing(32, 36)), order=in_turn(len(samples)),
        batch_size=8, workers=workers, pin_memory=False,
    )  # fmt: skip
    with closing(loader), said_in_words(smaller="--batch-size 4"):
        return list(loader.batches(0))


def test_batches_go_through_a_pipe_where_no_slot_is_free(drawn: Root, monkeypatch: Patch) -> None:
    monkeypatch.setattr("imnetprep.loading.slots.Slots.take", lambda *_: None)
    piped = batches(drawn, workers=2)
    for ours, plain in zip(piped, batches(drawn, workers=0), strict=True):
        assert torch.equal(ours.pixels, plain.pixels)
        assert torch.equal(ours.labels, plain.labels)
    assert sum(len(batch.labels) for batch in piped) == 21


def test_a_slot_is_used_again_once_nobody_has_its_batch() -> None:
    slots = Slots(2, 12)
    numbers = [slots.take(1, 12) for _ in range(5)]
    assert numbers == [4, 5, 6, 7, None]
    assert slots.take(0, 13) is None, "it is too small"
    pixels = slots.array(5, (2, 2, 3))
    slots.free_after(pixels, 5)
    part = torch.from_numpy(pixels)[:1].permute(2, 0, 1)
    del pixels
    assert slots.take(1, 12) is None, "a view of it is there"
    del part
    assert slots.take(1, 12) == 5


@pytest.mark.parametrize("whole", [True, False])
def test_batches_that_are_kept_stay_as_they_are(drawn: Root, whole: bool) -> None:
    """More of them than there are slots, or one after the other."""
    with open_manifest(drawn.manifest) as manifest:
        samples = read_samples(manifest, Split.TRAIN, drawn)
    loader = Loader(
        samples, ValTransform(Preprocessing(32, 36)), order=in_turn(len(samples)),
        batch_size=4, workers=1, pin_memory=False,
    )  # fmt: skip
    expected = [samples.labels[at : at + 4].tolist() for at in range(0, 60, 4)]
    with closing(loader):
        for _ in range(2):
            passed = loader.batches(0)
            batches = list(passed) if whole else passed
            sums = [(int(batch.pixels.sum()), batch.labels.tolist()) for batch in batches]
            assert [labels for _, labels in sums] == expected
            assert len({total for total, _ in sums}) == len(sums)


class Unsent:
    """What a worker cannot send: as torch finds it once the batch is on its way."""

    def __reduce__(self) -> tuple[Any, ...]:
        raise OSError(errno.ENOSPC, "No space left on device")


def _kill(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _start_no_thread(_slots: object, _slot: int, arrays: BatchArrays) -> BatchArrays:
    threading.Thread.start = refuse(RuntimeError("can't start new thread"))  # type: ignore[method-assign]
    return arrays


@pytest.mark.parametrize(
    ("worker", "told", "hint"),
    [
        (lambda *_: Unsent(), "could not hand over a batch: /dev/shm", "--workers 0 none"),
        (_start_no_thread, "memory, files or threads are used up", "`ulimit -u`"),
        (_kill, r"was killed \(SIGKILL\), as the kernel does where memory", "--workers 0 least"),
        (
            lambda *_: os._exit(3),
            "a worker that reads images ended with exit code 3",
            "--workers 0",
        ),
        (refuse(MemoryError()), "does not fit into memory", "--batch-size 4"),
    ],
)
def test_no_batch_is_waited_for_that_nobody_can_deliver(
    drawn: Root,
    worker: Callable[..., Any],
    told: str,
    hint: str,
    monkeypatch: Patch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("imnetprep.loading.batches.SlotBatch", worker)
    begun_s = time.monotonic()
    with pytest.raises(ImnetprepError, match=told) as refused:
        batches(drawn, workers=2)
    assert hint in refused.value.hint
    assert time.monotonic() - begun_s < 30
    assert "Traceback" not in capfd.readouterr().err


def test_a_worker_that_starts_no_thread_at_all_tells_no_traceback(
    drawn: Root, monkeypatch: Patch, capfd: pytest.CaptureFixture[str]
) -> None:
    """torch sends what its start met by the thread that cannot start either."""

    def start_none() -> None:
        threading.Thread.start = refuse(RuntimeError("can't start new thread"))  # type: ignore[method-assign]
        threading.Thread().start()

    monkeypatch.setattr("imnetprep.loading.loader.end_with_the_parent", start_none)
    with pytest.raises(ImnetprepError, match="threads are used up"):
        batches(drawn, workers=2)
    assert "Traceback" not in capfd.readouterr().err


def test_workers_that_cannot_be_started_are_told(drawn: Root, monkeypatch: Patch) -> None:
    for place in ("multiprocessing.queues.Queue.__init__", "multiprocessing.popen_fork.os.fork"):
        with monkeypatch.context() as patch:
            patch.setattr(place, refuse(OSError(errno.ENOSPC, "No space left on device")))
            with pytest.raises(ImnetprepError, match="cannot be started: No space") as refused:
                batches(drawn, workers=1)
        assert "--workers 0 needs none; fewer --workers need less memory and" in refused.value.hint


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at a.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
)  # fmt: skip
def test_a_step_that_does_not_fit_hints_at_a_smaller_one_and_leaves_no_run(
    root: Root, error: Exception, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(Step, "take", refuse(error))
    with pytest.raises(ImnetprepError, match="does not fit into") as refused:
        trained(root)
    assert refused.value.hint == "--batch-size 4, or --image-size 16"
    assert "\n" not in str(refused.value)
    assert not root.runs.exists()


def test_a_full_disk_is_told_as_one_and_the_run_goes_on_from_the_whole_checkpoint(
    root: Root,
) -> None:
    run, limits = Run(root.run("a")), resource.getrlimit(resource.RLIMIT_FSIZE)

    class FullLater(Silent):
        def note(self, line: str) -> None:
            if line.startswith("best"):
                raise AssertionError("it went through")

        def advance(self, amount: int) -> None:
            if run.is_begun:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))

    try:
        with pytest.raises(ImnetprepError, match=r"last\.pt: File too large") as refused:
            trained(root, progress=FullLater())  # torch says "unexpected pos"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refused.value.hint.endswith("by --root; then imnetprep train --resume --run a")
    assert [path.name for path in run.folder.glob("*.pt")] == ["last.pt"]
    assert len(trained(root, options={}, resume=True)) == 2


def test_the_file_that_could_not_be_opened_is_named(tmp_path: Path) -> None:
    """Without workers too; what a worker met arrives as text alone."""
    for number in (errno.EMFILE, errno.ENFILE):
        with (
            pytest.raises(ImnetprepError, match=rf"/a\.JPEG: {os.strerror(number)}") as told,
            said_in_words(smaller=""),
        ):
            raise OSError(number, os.strerror(number), str(tmp_path / "a.JPEG"))
        assert told.value.hint.endswith("; ulimit -n says how many files there may be")
    with (
        pytest.raises(ImnetprepError, match="too many files are open for so many workers"),
        said_in_words(smaller=""),
    ):
        raise RuntimeError("Too many open files. Communication with the workers is no longer")


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EIO, "and at `ulimit -f`; then imnetprep train --resume --run a"),
        (errno.ENOSPC, "free some space; then imnetprep train --resume --run a"),
        (errno.EBUSY, "mount point: imnetprep train --resume --run a when it is free"),
        (errno.EACCES, "--root, --archives; then imnetprep train --resume --run a"),
    ],
)
def test_what_ends_a_run_that_has_begun_hints_at_how_it_resumes(
    number: int, hint: str, tmp_path: Path
) -> None:
    run = Run(tmp_path / "a")
    run.folder.mkdir()
    failure = OSError(number, os.strerror(number), "a file")
    run.last.touch()
    with (
        pytest.raises(ImnetprepError, match="a file: ") as told,
        said_in_words(smaller="", run=run),
    ):
        raise failure
    assert told.value.hint.endswith(hint)


def test_a_folder_that_is_gone_is_told_before_torch_ends_the_process(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ImnetprepError, match="the folder that this command runs in is gone"):
        require_loadable()


def test_a_setting_that_torch_aborts_at_is_told(drawn: Root, monkeypatch: Patch) -> None:
    if not (Path(torch.__file__).parent / "lib" / "libc10_cuda.so").exists():
        pytest.skip("this torch has no allocator for GPUs")
    for value, is_right in (("y", False), ("max_split_size_mb:128", True)):
        monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", value)
        for words in (["inspect", "--split", "test"], ["train", "--dry-run"]):
            with redirect_stderr(StringIO()) as err:
                cli.run([*words, "--root", str(drawn.path)])
            sentence = "Error: torch cannot be loaded with PYTORCH_CUDA_ALLOC_CONF=y"
            assert (sentence in err.getvalue().splitlines()) != is_right, words


def test_a_disk_without_room_for_checkpoints_is_refused_before_the_first_step(
    root: Root, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("imnetprep.training.runs.free_bytes", lambda _folder: 10 << 20)
    words = "--arch mobilenet_v3_small --image-size 32 --device cpu --dry-run --root"
    assert cli.run(["train", *words.split(), str(root.path)]) == 1
    with pytest.raises(ImnetprepError, match=r"take 30.* MB more and its disk has 10\.5 MB free"):
        trained(root)
    assert not root.runs.exists()


def test_a_run_that_was_refused_makes_no_folder(root: Root) -> None:
    for options in ({"arch": "alexnet", "image_size": 16}, {"lr": 1e9}):
        with pytest.raises(ImnetprepError):
            trained(root, options=SMALL | options)
    assert not root.runs.exists()


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def test_a_stop_is_acknowledged_while_torch_computes() -> None:
    notes = Notes()
    with stop_requests(notes) as stop:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 3_000_000)  # no handler of Python runs meanwhile
        heard = list(notes.lines)
        with pytest.raises(StopNow), stop.honoured():
            raise AssertionError("not reached")
    assert heard == ["stopping after this step, once it is saved; ^C again: at once"]


def test_a_stop_does_not_wait_for_data(root: Root, monkeypatch: Patch) -> None:
    def slow(*_: object, **__: object) -> Iterator[None]:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(600)
        yield

    monkeypatch.setattr(Loader, "batches", slow)
    begun_s = time.monotonic()
    with pytest.raises(Interruption, match="before its first step; nothing is kept"):
        trained(root)
    assert time.monotonic() - begun_s < 300
    assert not root.runs.exists()


def test_evaluate_that_does_not_fit_hints_at_a_smaller_batch(
    root: Root, tmp_path: Path, monkeypatch: Patch
) -> None:
    trained(root, options=SMALL | {"epochs": 1})
    monkeypatch.setattr(torch.nn.Module, "eval", refuse(MemoryError()))
    best = Run(root.run("a")).best
    with pytest.raises(ImnetprepError, match="does not fit into memory") as refused:
        evaluate(root, best, device="cpu", workers=0, progress=Silent())
    assert refused.value.hint == "--batch-size 4"
