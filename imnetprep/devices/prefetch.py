"""Batches on their way to the device, beside the steps that it computes."""

from collections.abc import Iterator

import torch

from imnetprep.loading.batches import Batch


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """`batches` on `device`; on a GPU a stream of its own copies them from pinned memory.

    A step waits for nothing, so the host asks for the next batch while the GPU still computes:
    its copy begins at once, beside the step, and not behind it. On a CPU batches stay as they are.
    """
    return _copied(batches, device) if device.type == "cuda" else batches


def _copied(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    while True:
        with torch.cuda.stream(stream):  # a batch that is made on the device is made beside, too
            if (batch := next(batches, None)) is None:
                return
            pixels, labels = (
                each.to(device, non_blocking=True) for each in (batch.pixels, batch.labels)
            )
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        for each in (pixels, labels):
            each.record_stream(current)  # else its memory is free for the next copy too early
        yield Batch(pixels, labels, batch.bad)
