"""A checkpoint comes back as it was; what a stranger made of it is refused and never run."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from imnetprep.messages import ImnetprepError
from imnetprep.pixels.transforms import Preprocessing
from imnetprep.proving.receipt import DigestProof
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.training.checkpoint import (
    FORM,
    Best,
    Checkpoint,
    Classes,
    Position,
    load_checkpoint,
    save_checkpoint,
)
from imnetprep.training.meters import COUNTS
from imnetprep.training.origin import Origin, SplitOrigin

CHECKPOINT = Checkpoint(
    recipe=plan_recipe({"image_size": 32}, amp_pays=False),
    classes=Classes("two", ("n1", "n2"), ("crane", "crane")),
    preprocessing=Preprocessing(32, 37),
    weights={"a": torch.rand(2, 3)},
    optimizer={"a": {"momentum_buffer": torch.rand(2, 3)}},
    position=Position(3, 14),
    sums=dict.fromkeys(("loss", *COUNTS, "images", "seconds", "waited_s"), 0.1 + 0.2),
    best=Best(2, 7, 9),
    train_samples=99,
    origin=Origin(
        commit="0123456789abcdef" * 2 + "01234567-dirty",
        splits={
            "train": SplitOrigin(99, "imagefolder", None, ("t.tar",), DigestProof("md5", "0f"))
        },
    ),
    scores=(3.0, 7.0, 5.0),
    average={"a": torch.rand(2, 3)},
)


def test_comes_back_as_it_was(tmp_path: Path) -> None:
    for saved in (CHECKPOINT, replace(CHECKPOINT, best=None, optimizer={}, sums={})):
        save_checkpoint(tmp_path / "c.pt", saved)
        loaded = load_checkpoint(tmp_path / "c.pt")
        assert torch.equal(loaded.weights["a"], saved.weights["a"])
        assert torch.equal(loaded.average["a"], saved.average["a"])
        plain: dict[str, Any] = {"weights": {}, "optimizer": {}, "average": {}}
        assert replace(loaded, **plain) == replace(saved, **plain)
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_what_was_read_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    """Whichever of its equal texts are one object: a run that is resumed leaves the same file."""
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    save_checkpoint(first, CHECKPOINT)
    save_checkpoint(second, load_checkpoint(first))
    assert first.read_bytes() == second.read_bytes()


class _Evil:
    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._trace,)


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    torch.save({"kind": "imnetprep checkpoint", "form": FORM, "x": _Evil(trace)}, tmp_path / "t.pt")
    (tmp_path / "p.pt").write_bytes(pickle.dumps(_Evil(trace)))
    for name in ("t.pt", "p.pt"):
        with pytest.raises(ImnetprepError, match="not a checkpoint"):
            load_checkpoint(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"PK\x03\x04" + b"\0" * 100, b"\x80\x02}q\x00.", b"\xff" * 1000]
)
def test_other_files_are_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "c.pt").write_bytes(body)
    with pytest.raises(ImnetprepError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, CHECKPOINT)
    body = path.read_bytes()
    for kept in (len(body) // 3, len(body) - 1):
        path.write_bytes(body[:kept])
        with pytest.raises(ImnetprepError, match="not a checkpoint"):
            load_checkpoint(path)


_ALTERATIONS: list[Callable[[dict[str, Any]], object]] = [
    lambda state: state.pop("recipe"),
    lambda state: state.update(recipe=3),
    lambda state: state["recipe"].update(epochs=-1),
    lambda state: state["recipe"].update(image_size="large"),
    lambda state: state.update(wnids=[]),
    lambda state: state.update(names=["one"]),
    lambda state: state.update(weights={"a": "no tensor"}),
    lambda state: state.update(weights={}),
    lambda state: state.update(optimizer=[1]),
    lambda state: state.update(position={"epoch": -1, "step": 0}),
    lambda state: state.update(sums={"loss": "x"}),
    lambda state: state["preprocessing"].update(resize=10**9),
    lambda state: state["preprocessing"].update(std=[0, 0, 0]),
    lambda state: state.update(best={"epoch": 1}),
    lambda state: state.update(written_by="\x1b[2J"),
    lambda state: state["origin"].update(commit="main"),
    lambda state: state["origin"].update(splits={"train": {"samples": 1}}),
    lambda state: state["origin"]["splits"]["train"].update(proof={"kind": "trust me"}),
    lambda state: state["origin"]["splits"]["train"].update(archives=["\n"]),
    lambda state: state["best"].update(is_average=1),
    lambda state: state.update(average={"a": 1}),
    lambda state: state.update(scores=[1.0]),
    lambda state: state.update(scores=["1", "2", "3"]),
    lambda state: state["recipe"].update(optimizer="lamb"),
    lambda state: state["recipe"].update(restart_epoch=90),
]


@pytest.mark.parametrize("alter", _ALTERATIONS)
def test_altered_values_are_refused(
    tmp_path: Path, alter: Callable[[dict[str, Any]], object]
) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, CHECKPOINT)
    state = torch.load(path, weights_only=True)
    alter(state)
    torch.save(state, path)
    with pytest.raises(ImnetprepError, match="not a checkpoint"):
        load_checkpoint(path)


def test_a_later_form_and_a_missing_file_are_said(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    torch.save(
        {"kind": "imnetprep checkpoint", "form": FORM + 1, "written_by": "imnetprep 9"}, path
    )
    with pytest.raises(ImnetprepError, match=f"form {FORM + 1}") as refused:
        load_checkpoint(path)
    assert "imnetprep 9" in refused.value.hint
    with pytest.raises(ImnetprepError, match="no checkpoint"):
        load_checkpoint(tmp_path / "absent.pt")
