"""What a step is made of: it waits for nothing, in 32 bits or in 16, compiled or not."""

import os
import signal
from collections.abc import Callable
from functools import partialmethod, wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from imnetprep.catalog.datasets import Root
from imnetprep.devices import compiler, precision
from imnetprep.devices.precision import (
    half_pays,
    half_type,
    is_gain,
    make_scaler,
    measured_half,
    memory_of_scaler,
)
from imnetprep.devices.prefetch import on_device
from imnetprep.loading.batches import Batch
from imnetprep.messages import ImnetprepError, Interruption, Silent
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.runs import Run
from imnetprep.training.step import Step
from tests.training.stops import SignalAt
from tests.training.test_ranks import as_ranks, train_as_ranks
from tests.training.test_resumes import RECIPES
from tests.training.test_train import refuse_difference, trained

CPU = torch.device("cpu")
TINY: dict[str, Any] = {"arch": "mlp-small", "image_size": 32, "batch_size": 8, "epochs": 2}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


class Notes(Silent):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


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


def in_a_fork(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a process of its own: one that has compiled cannot fork trainers any more."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        assert as_ranks(1, lambda _rank: test(**fixtures)) == [0]

    return run


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler without its minute of C++: it traces the network, and runs what it traced."""
    monkeypatch.setattr(compiler, "_BACKEND", "eager")


COMPILED = RECIPES["sgd"] | {"compile": True}


@in_a_fork
def test_a_compiled_training_resumes_to_the_bit(root: Root, drawn: Root, traced: None) -> None:
    """With an average and crops of growing size; its checkpoints are those of any network."""
    trained(drawn, run="compiled", options=COMPILED)
    torch._dynamo.reset()
    for batches in (4, 3):
        with pytest.raises(Interruption):
            stop = SignalAt(signal.SIGTERM, batches=batches)
            trained(root, options=COMPILED, resume=True, progress=stop)
        torch._dynamo.reset()
    trained(root, options={}, resume=True)
    run = Run(root.run("a"))
    refuse_difference(run, Run(drawn.run("compiled")))
    checkpoint = load_checkpoint(run.best)
    checkpoint.network(CPU)
    assert checkpoint.recipe.compile


def test_several_train_a_compiled_network_together(root: Root, traced: None) -> None:
    options = COMPILED | {"epochs": 1, "accumulate": 2}
    assert train_as_ranks(root, 2, options=options) == [0, 0]
    assert load_checkpoint(Run(root.run("a")).last).processes == 2


@in_a_fork
def test_a_signal_while_it_compiles_ends_it_at_once(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first step of a process nothing is lost: the last checkpoint is of the same state."""
    reached: list[str] = []

    def stopping(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append("after the signal")
        return graph

    options = TINY | {"compile": True}
    monkeypatch.setattr(compiler, "_BACKEND", stopping)
    with pytest.raises(Interruption, match="nothing is kept") as stopped:
        trained(root, options=options)
    assert stopped.value.exit_code == 143 and not Run(root.run("a")).is_begun
    monkeypatch.setattr(compiler, "_BACKEND", "eager")
    with pytest.raises(Interruption):
        trained(root, options=options, progress=SignalAt(signal.SIGTERM, batches=3))
    body = Run(root.run("a")).last.read_bytes()
    monkeypatch.setattr(compiler, "_BACKEND", stopping)
    torch._dynamo.reset()
    with pytest.raises(Interruption, match="saved at epoch 1, step 3"):
        trained(root, options={}, resume=True)
    assert Run(root.run("a")).last.read_bytes() == body and not reached


@in_a_fork
def test_what_cannot_be_compiled_is_said_with_a_hint(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_compiler(_graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(compiler, "_BACKEND", without_compiler)
    torch._dynamo.reset()
    with pytest.raises(ImnetprepError, match="cannot be compiled") as refused:
        trained(root, options=TINY | {"compile": True})
    assert "without --compile" in refused.value.hint and "\n" not in str(refused.value)
    assert not Run(root.run("a")).is_begun


@pytest.mark.slow
@in_a_fork
def test_compiles_to_machine_code(root: Root, tmp_path: Path) -> None:
    """As a user has it; it takes a minute."""
    torch._dynamo.reset()
    reports = trained(root, options=TINY | {"compile": True, "ema": 0.9})
    assert [report.train.images for report in reports] == [56, 56]


@pytest.fixture
def float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU whose 16 bits are those of a T4."""
    monkeypatch.setattr(precision, "half_type", lambda _device: torch.float16)


def test_float16_resumes_to_the_bit_with_its_scale(root: Root, drawn: Root, float16: None) -> None:
    options = TINY | {"amp": True, "clip_norm": 1.0}
    trained(drawn, run="float16", options=options)
    with pytest.raises(Interruption):
        trained(root, options=options, progress=SignalAt(signal.SIGTERM, batches=9))
    saved = load_checkpoint(Run(root.run("a")).last)
    assert saved.loss_scale == {"scale": 2.0**16, "steps": 9}
    trained(root, options={}, resume=True)
    refuse_difference(Run(root.run("a")), Run(drawn.run("float16")))
    assert load_checkpoint(Run(root.run("a")).last).loss_scale["steps"] == 14
    assert not load_checkpoint(Run(root.run("a")).best).loss_scale


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_step_that_overflows_is_skipped_and_halves_the_scale(
    clip_norm: float, root: Root, float16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step too, of which torch would leave a momentum of stray bytes."""
    monkeypatch.setattr(precision, "_FIRST_SCALE", 2.0**40)
    waits = Waits()
    watch_steps(monkeypatch, waits)
    options = TINY | {"amp": True, "epochs": 5, "clip_norm": clip_norm}
    reports = trained(root, options=options)
    checkpoint = load_checkpoint(Run(root.run("a")).last)
    assert 1 < checkpoint.loss_scale["scale"] < 2.0**40 and waits.number == 0
    assert all(bool(each.isfinite().all()) for each in checkpoint.weights.values())
    assert reports[-1].train.loss < reports[0].train.loss


def test_bfloat16_needs_no_scale() -> None:
    scaler = make_scaler(CPU, is_on=True, memory={"scale": 2.0, "steps": 3})
    assert half_type(CPU) is torch.bfloat16 and not scaler.is_enabled()
    assert memory_of_scaler(scaler) == {}
    loss = torch.ones(())
    assert scaler.scale(loss) is loss


@pytest.mark.parametrize(
    ("full", "half", "pays"), [(156, 241, True), (100, 109, False), (90, 40, False)]
)
def test_half_pays_from_a_tenth_on(
    full: float, half: float, pays: bool, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run keeps what was measured: that it resumes needs no measurement."""
    assert is_gain(full, half) is pays
    assert half_pays(torch.device("mps")) is False
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert half_pays(CPU) is False
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert half_pays(CPU) is None
    rates = {False: [1 / full, 9.0, 0.0], True: [1 / half, 9.0, 0.0]}
    monkeypatch.setattr(precision, "_step_seconds", lambda *_, **__: rates)
    notes = Notes()
    trained(root, options=TINY | {"epochs": 1}, progress=notes)
    assert load_checkpoint(Run(root.run("a")).last).recipe.amp is pays
    (note,) = [note for note in notes.lines if "as fast here" in note]
    assert note == f"bfloat16 is {half / full:.1f} × as fast here: --{'' if pays else 'no-'}amp"
    again = Notes()
    trained(root, options={}, resume=True, progress=again)
    assert not [note for note in again.lines if "as fast here" in note]


def test_both_precisions_are_measured_by_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_MEASURE_S", 0.1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before = [each.clone() for each in network.parameters()]
    notes = Notes()
    measured_half(network, size_px=16, device=CPU, progress=notes)
    assert "bfloat16 is" in notes.lines[0]
    assert not torch.equal(before[0], next(network.parameters()))
