"""`--compile`: torch.compile of the network as it is called in training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from imnetprep.messages import ImnetprepError

_BACKEND = "inductor"
_ROOMS = ("torch._dynamo", "torch._inductor")  # where what raises its errors lives


def compiled(network: nn.Module) -> nn.Module:
    """`network`, which stays as it is, behind a call that compiles it for each shape of a batch.

    Validation goes on without: its score is that of `evaluate` to the bit. No kernel is for
    several shapes, else the numbers would depend on the shapes that a process met earlier.
    """
    # A shape each: crops that grow, and parts of a batch. After 8 torch would give up silently.
    torch._dynamo.config.cache_size_limit = 64
    call = torch.compile(network, backend=_BACKEND, dynamic=False)
    assert isinstance(call, nn.Module)
    return call


@contextmanager
def compiler_errors() -> Iterator[None]:
    """What the compiler cannot do while the block runs becomes an ImnetprepError."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(_ROOMS):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ImnetprepError(
            f"--compile: the network cannot be compiled: {reason}",
            hint="begin another run without --compile; on a CPU it needs a C++ compiler and the"
            " headers of Python (apt install g++ python3-dev), on a GPU Triton"
            " (pip install triton)",
        ) from error
