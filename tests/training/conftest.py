"""Drawn roots to train on, and torch as a small network wants it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from imnetprep.catalog.datasets import Root
from tests.drawn import draw_root

# These networks are too small to share: on a busy machine two threads wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def plain_cpu() -> Iterator[None]:
    """Whatever the processor can, 16 bits are not measured where no test asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            patch.setattr(torch.cpu, name, lambda: False)
        yield


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Three classes, 60 training and 21 validation images. Nobody writes into it."""
    return draw_root(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def root(drawn: Root, tmp_path: Path) -> Root:
    """The drawn root with runs of its own."""
    for part in ("train", "val", "manifest.db"):
        (tmp_path / part).symlink_to(drawn.path / part)
    return Root(tmp_path)
