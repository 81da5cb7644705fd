"""What the machine refuses a network, in words: memory, disk, and workers that are gone."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from imnetprep.loading.loader import UNHEARD_EXIT_CODE
from imnetprep.machine import explain
from imnetprep.messages import ImnetprepError, SourceFailed
from imnetprep.training.runs import Run

_OF_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED"
    r"|could not create a (memory|primitive)|bad_alloc",
    re.IGNORECASE,
)
_OF_A_WORKER = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:is killed by signal: (?P<signal>[\w ]+)"
    r"|exited unexpectedly(?: with exit code (?P<code>\d+))?)"
)
# As `explain` has it; a run that has begun wants --resume.
_SAME_COMMAND = re.compile(
    r"run the same command( again)?(; it resumes( where it stopped)?| to resume)?"
)
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT)
_OF_FILES = (errno.EMFILE, errno.ENFILE)


@contextmanager
def said_in_words(*, smaller: str, run: Run | None = None) -> Iterator[None]:
    """What the machine refuses while the block runs becomes an ImnetprepError.

    `smaller` is the hint where memory is used up; a `run` that has begun can be resumed.
    """
    try:
        yield
    except SourceFailed as error:  # of shards that come from elsewhere
        if resume := _resume(run):
            error.hint = _with_resume(error.hint, resume, smaller)
        raise
    except (MemoryError, RuntimeError, OSError) as error:
        resume = _resume(run)
        words = _in_words(error) or (explain(error) if resume else None)
        if words is None:
            raise
        sentence, hint = words
        if resume:
            hint = _with_resume(hint, resume, smaller)
        raise ImnetprepError(sentence, hint=hint or smaller) from error


def _resume(run: Run | None) -> str:
    return f"imnetprep train --resume --run {run.folder.name}" if run and run.is_begun else ""


def _with_resume(hint: str | None, resume: str, smaller: str) -> str:
    """The hint for a run that has begun: `resume` in place of the same command."""
    if hint is None:
        return f"free memory, then {resume}; or begin another: --run OTHER {smaller}"
    text, number = _SAME_COMMAND.subn(lambda _: resume, hint)
    return text if number else f"{hint}; then {resume}"


def smaller_batch(batch_size: int, image_size: int) -> str:
    """The hint of a step that does not fit into memory: halves, which may not fit either."""
    image = f"--image-size {max(8, image_size // 2)}"
    return f"--batch-size {batch_size // 2}, or {image}" if batch_size > 3 else image


def _in_words(error: Exception) -> tuple[str, str | None] | None:
    """The sentence and the hint, which is None where memory is used up; None: it is another."""
    text = str(error).strip()
    if match := _OF_A_WORKER.search(f"{error.__cause__} {text}"):  # the cause says how it ended
        return _worker_gone(match["signal"], match["code"])
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _OF_MEMORY.search(text):
        place = "the device" if isinstance(error, torch.OutOfMemoryError) else "memory"
        return f"it does not fit into {place}: {text.partition(chr(10))[0] or 'none is left'}", None
    number, words = getattr(error, "errno", None), explain(error)
    if number in _OF_THE_DISK and words is not None:
        return words[0], "free some space"
    hint = "fewer --workers, or --workers 0; ulimit -n says how many files there may be"
    if number in _OF_FILES and words is not None:
        return words[0], hint
    if "Too many open files" in text:  # as a worker's error arrives, without its number
        return "too many files are open for so many workers", hint
    return None


def _worker_gone(signal: str | None, code: str | None) -> tuple[str, str]:
    worker, fewer = "a worker that reads images", "fewer --workers need less of it, --workers 0"
    if signal == "Killed":
        sentence = f"{worker} was killed (SIGKILL), as the kernel does where memory is used up"
        return sentence, f"{fewer} least"
    if signal == "Bus error" or code == str(UNHEARD_EXIT_CODE):
        sentence = f"{worker} could not hand over a batch"
        limits = "look at `df /dev/shm`, `ulimit -n` and `ulimit -u`"
        lack = f"{sentence}: /dev/shm, memory, files or threads are used up"
        return lack, f"{fewer} none; {limits}"
    end = f": {signal}" if signal else f" with exit code {code}" if code else ""
    return f"{worker} ended{end}", "--workers 0 reads images without it"
