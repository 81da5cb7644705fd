"""One process for each device of this machine, started by torchrun's own agent."""

import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

_GRACE_S = 600  # for all to save after a signal: a step on a CPU may take minutes


def run_on_devices(words: Sequence[str], *, processes: int) -> int:
    """Run `imnetprep WORDS` as so many processes; the exit code of the first that failed."""
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
        return int(error.get_first_failure()[1].exitcode)
    except SignalException as stop:
        return 128 + int(stop.sigval)
    return 0
