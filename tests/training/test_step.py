"""What a step is made of: it waits for nothing."""

from functools import partialmethod
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from imnetprep.catalog.datasets import Root
from imnetprep.loading.batches import Batch
from imnetprep.training.prefetch import on_device
from imnetprep.training.step import Step
from tests.training.test_resumes import RECIPES
from tests.training.test_train import trained

CPU = torch.device("cpu")
TINY: dict[str, Any] = {"arch": "mlp-small", "image_size": 32, "batch_size": 8, "epochs": 2}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts numbers that Python takes out of tensors: on a GPU each waits for all before it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = 0

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += call is torch.ops.aten._local_scalar_dense.default
        return call(*args, **(kwargs or {}))


def watch_steps(monkeypatch: pytest.MonkeyPatch, context: Any) -> list[int]:
    """Let `context` be entered for what each step does; the steps that are taken."""
    steps: list[int] = []

    def watched(step: Step, call: Any, *args: Any, **options: Any) -> None:
        steps.append(step.state.position.step)
        with context:
            call(step, *args, **options)

    monkeypatch.setattr(Step, "take", partialmethod(watched, Step.take))
    return steps


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_takes_no_number_out_of_a_tensor(
    name: str, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With AdamW or SGD, clipping, mixup, cutmix, label smoothing, an average, in parts."""
    waits = Waits()
    steps = watch_steps(monkeypatch, waits)
    trained(root, options=RECIPES[name] | {"epochs": 1, "accumulate": 2})
    assert (steps, waits.number) == ([0, 1, 2], 0)
    with waits:
        assert torch.ones(2).sum() > 1
    assert waits.number == 1


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", RECIPES)
def test_a_step_waits_for_no_gpu(name: str, root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def __enter__(self) -> None:
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *_: object) -> None:
            torch.cuda.set_sync_debug_mode("default")

    watch_steps(monkeypatch, Refused())
    trained(root, options=RECIPES[name] | {"accumulate": 2}, device="cuda", workers=1)


@pytest.mark.gpu
@needs_gpu
def test_batches_are_copied_beside_the_steps() -> None:
    gpu = torch.device("cuda:0")
    batches = [
        Batch(torch.full((64, 32, 32, 3), number, dtype=torch.uint8).pin_memory(),
              torch.full((64,), number).pin_memory())
        for number in range(20)
    ]  # fmt: skip
    sums = [
        (batch.pixels.float().mean(), batch.labels.sum()) for batch in on_device(iter(batches), gpu)
    ]
    assert [(float(mean), int(total) // 64) for mean, total in sums] == [(n, n) for n in range(20)]


def test_a_cpu_takes_batches_as_they_are() -> None:
    batches = iter([Batch(torch.zeros(1, 2, 2, 3), torch.zeros(1))])
    assert on_device(batches, CPU) is batches
