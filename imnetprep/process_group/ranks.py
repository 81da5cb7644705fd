"""The processes that train one network together; alone, all that they would do is nothing.

Each has a rank from 0 on. They see the global batches that one process would see, a slice each;
rank 0 alone writes. Before each batch they agree on whether to go on, over gloo on the CPU: a
signal to one of them stops all at the same step, and one that died is missed at once, not after
half an hour as NCCL has it. `torchrun` says in the environment who is who.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from imnetprep.loading.order import mixed_seed
from imnetprep.messages import ImnetprepError, WrongUsage, count
from imnetprep.process_group.stop_request import StopNow, StopRequest

_PATIENCE = timedelta(minutes=30)  # for a peer that is alive: a validation, a save to a slow disk
_STOP, _SAVE, _FAILURE = range(3)
_OF_A_PEER = re.compile("gloo|NCCL|Connection (?:closed|reset)|Broken pipe")


class LostPeer(ImnetprepError):
    """A process of the training is gone."""


class FailedPeer(ImnetprepError):
    """A process of the training failed before a batch, and says itself why."""


@dataclass
class Agreement:
    """What all ranks have agreed on before a batch."""

    saves: bool = False


@dataclass(frozen=True)
class Ranks:
    """A process of those that train together: its rank, their number, the same on this machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    _group: distributed.ProcessGroup | None = field(default=None, repr=False)  # gloo, on the CPU

    @property
    def is_first(self) -> bool:
        """Is it the one that writes, and speaks to the user?"""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Is there no other process?"""
        return self.world == 1

    @property
    def note(self) -> str:
        """`, 4 processes`; nothing of one alone."""
        return "" if self.is_alone else f", {count(self.world, 'process')}"

    def noise(self, *parts: int | str) -> int:
        """The seed of this rank's noise at the position `parts`; of the first as of one alone."""
        return mixed_seed(*parts, "noise", *([self.rank] if self.rank else []))

    def slice(self, indices: Tensor) -> Tensor:
        """The rank's part of a global batch (B,): the parts together are the batch, in order."""
        return torch.tensor_split(indices, self.world)[self.rank]

    def with_one_batch_norm(self, model: nn.Module) -> nn.Module:
        """`model` with BatchNorm that sees the slices of all ranks together; its weights stay."""
        if self.is_alone:
            return model
        convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        return convert(model)

    def parallel(self, model: nn.Module, device: torch.device) -> nn.Module:
        """`model` as it is called in training: its gradients become the mean over all ranks."""
        if self.is_alone:
            return model
        with _peers():
            return DistributedDataParallel(
                model, device_ids=None if device.type == "cpu" else [device.index]
            )

    @contextmanager
    def summing(self, model: nn.Module, *, is_last: bool) -> Iterator[None]:
        """While the block runs `model` sums gradients over ranks, in the last part of a step."""
        waits = not self.is_alone and not is_last
        sums = model.no_sync() if waits else nullcontext()  # type: ignore[operator]
        with _peers(), sums:
            yield

    @contextmanager
    def one_voice(self) -> Iterator[None]:
        """Let the first rank say why, where all of them fail alike in the block."""
        try:
            yield
        except ImnetprepError as error:
            if self.is_first:
                raise
            raise FailedPeer("every process of the training failed", hint=error.hint) from error

    def totals(self, sums: dict[str, float]) -> dict[str, float]:
        """The sums over all ranks; whole numbers up to 2**53 exactly."""
        if self.is_alone:
            return sums
        values = torch.tensor([float(sums[name]) for name in sums], dtype=torch.float64)
        self._reduce(values)
        return dict(zip(sums, values.tolist(), strict=True))

    def share(self, body: bytes, rank: int = 0) -> bytes:
        """What that rank has; the others' `body` is not looked at."""
        if self.is_alone:
            return body
        size = torch.tensor([len(body) if self.rank == rank else 0])
        self._reduce(size)
        piece = torch.from_numpy(np.zeros(int(size), np.uint8))
        if self.rank == rank:
            piece.numpy()[:] = np.frombuffer(body, np.uint8)
        with _peers():
            distributed.broadcast(piece, rank, group=self._group)
        return piece.numpy().tobytes()

    def shares(self, body: bytes) -> list[bytes]:
        """What each rank has."""
        return [self.share(body, rank) for rank in range(self.world)]

    def share_buffers(self, model: nn.Module) -> None:
        """Give all ranks the buffers of rank 0: each has seen its own slices."""
        if not self.is_alone:
            with _peers():
                for each in model.buffers():
                    buffer = each.cpu()
                    distributed.broadcast(buffer, 0, group=self._group)
                    each.copy_(buffer)

    @contextmanager
    def together(self, stop: StopRequest, *, save: bool = False) -> Iterator[Agreement]:
        """Run the block on all ranks; then all go on, or none. `save`: this one wants a checkpoint.

        Raises StopNow where any rank is asked to stop, FailedPeer where another one failed in its
        block. Alone, a request interrupts the block.
        """
        agreement = Agreement(save)
        if self.is_alone:
            with stop.honoured():
                yield agreement
            return
        failure: Exception | None = None
        try:
            yield agreement
        except Exception as error:  # whatever it is, the others must not wait for this rank
            failure = error
        votes = torch.tensor([stop.is_made, save, failure is not None], dtype=torch.int64)
        self._reduce(votes)
        if failure is not None:
            raise failure
        if votes[_FAILURE]:
            raise FailedPeer("a process of the training failed", hint="it says why")
        if votes[_STOP]:
            raise StopNow
        agreement.saves = bool(votes[_SAVE])

    def _reduce(self, values: Tensor) -> None:
        with _peers():
            distributed.all_reduce(values, group=self._group)


ALONE = Ranks()


@contextmanager
def _peers() -> Iterator[None]:
    """What gloo says of a peer that is gone, in words."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, distributed.DistError) or _OF_A_PEER.search(str(error))):
            raise
        raise LostPeer(
            "a process of the training is gone",
            hint="if it says nothing it was killed, as the kernel does where memory is used up;"
            " imnetprep train --resume goes on from the last checkpoint",
        ) from error


def typed_ranks() -> Ranks:
    """The ranks that `torchrun` wrote into the environment; not yet joined. One: alone."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Ranks()
    try:
        rank, world, local_rank, local_world = (int(os.environ[name]) for name in names)
        return Ranks(rank, world, local_rank, local_world)
    except (KeyError, ValueError) as error:
        raise WrongUsage(
            f"torchrun left no rank in the environment: {error}",
            hint="imnetprep train --devices N starts N processes itself",
        ) from error


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[Ranks]:
    """The ranks once all of them are there, until the block ends."""
    if ranks.is_alone:
        yield ranks
        return
    with _peers():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        store, rank, world = next(rendezvous("env://", timeout=_PATIENCE))
        # After a restart the store has the addresses of processes that are gone.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = distributed.PrefixStore(attempt, store)  # type: ignore[attr-defined]
        distributed.init_process_group(
            backend, store=store, rank=rank, world_size=world, timeout=_PATIENCE
        )
        group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    assert isinstance(group, distributed.ProcessGroup)
    yield replace(ranks, _group=group)
    distributed.destroy_process_group()  # not after an error: it would wait for who is gone
