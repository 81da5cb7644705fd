"""One process for each device of this machine, started by torchrun's own agent."""

import logging
import os
import signal
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from imnetprep.jobs import Jobs
from imnetprep.messages import ImnetprepError

_GRACE_S = 600  # for all to save after a signal: a step on a CPU may take minutes


def run_on_devices(words: Sequence[str], *, processes: int) -> int:
    """Run `imnetprep WORDS` as so many processes; the exit code of the first that failed.

    Raises ImnetprepError where the first of them was killed, who says what goes wrong.
    """
    logging.disable(logging.ERROR)  # what the agent says of processes, they say better
    # Else each would compute with all cores, and they would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, Jobs().count() // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        run_id="imnetprep",
        max_restarts=0,
        shutdown_timeout=_GRACE_S,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "imnetprep", *words)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return int(failure.exitcode)
        if rank == 0:
            raise ImnetprepError(
                f"process 0 was killed ({signal.Signals(-failure.exitcode).name})",
                hint="the kernel does so where memory is used up;"
                " imnetprep train --resume goes on from the last checkpoint",
            ) from error
        return 128 - int(failure.exitcode)
    except SignalException as stop:
        return 128 + int(stop.sigval)
    return 0
