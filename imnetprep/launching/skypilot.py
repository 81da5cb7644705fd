"""A launch as a task of SkyPilot, for other clouds and many machines: its YAML, as text."""

import json
import shlex
from collections.abc import Iterator

from imnetprep.launching.contents import ARCHIVES
from imnetprep.launching.orders import Orders
from imnetprep.launching.plan import LaunchPlan

_ROOT, _HOME = "$HOME/imagenet", "/opt/imnetprep"


def skypilot_task(plan: LaunchPlan) -> str:
    """What `sky launch`, or `sky jobs launch` for spot, takes (SkyPilot 0.14)."""
    return "".join(f"{line}\n" for line in _lines(plan))


def _lines(plan: LaunchPlan) -> Iterator[str]:
    orders = plan.orders
    wheel = shlex.quote(orders.wheel)
    verb = "jobs launch" if plan.is_spot else "launch"
    yield f"# sky {verb} FILE; beside FILE lies {orders.wheel}, made by"
    yield "# python -m pip wheel --no-deps --wheel-dir . CHECKOUT"
    if orders.dataset_files:
        yield "# and dataset/ with dataset.toml, and the files that it names"
    yield f"name: {json.dumps(orders.group)}"
    yield "resources:"
    yield f"  infra: aws/{orders.region}"
    if len(orders.types) == 1:
        yield f"  instance_type: {orders.types[0]}"
    else:
        yield "  any_of:"
        yield from (f"    - instance_type: {each}" for each in orders.types)
    yield f"  use_spot: {json.dumps(plan.is_spot)}"
    yield f"  disk_size: {plan.volume_gib}"
    yield f"  image_id: {plan.image.id}"
    yield "  autostop: {idle_minutes: 10, down: true}"
    if plan.is_spot:
        yield "  job_recovery: {strategy: FAILOVER, max_restarts_on_errors: 2}"
    yield "file_mounts:"
    yield f"  {_HOME}/{orders.wheel}: ./{orders.wheel}"
    if orders.dataset_files:
        yield f"  {_HOME}/dataset: ./dataset"
    yield "setup: |"
    yield "  python3 -m venv ~/venv"
    yield f"  ~/venv/bin/pip install {_HOME}/{wheel}'[train]'"
    yield "run: |"
    yield from (f"  {line}" for line in _script(orders))


def _script(orders: Orders) -> Iterator[str]:
    """What the machine runs: as our own supervisor, without its watch for a notice."""
    address = shlex.quote(orders.address)
    sync, run = f"imnetprep sync-s3 {address}", f"--what runs --run {orders.run}"
    yield "set -eu"
    yield f'export PATH="$HOME/venv/bin:$PATH" IMNETPREP_ROOT="{_ROOT}"'
    yield f"export AWS_DEFAULT_REGION={orders.region}"
    if orders.endpoint_url:
        yield f"export AWS_ENDPOINT_URL_S3={shlex.quote(orders.endpoint_url)}"
    yield f"{sync} --pull {run} || [ $? -eq 1 ]  # 1: there is none yet"
    if orders.source == ARCHIVES:
        words = ["imnetprep", "organize", "--archives", orders.address]
        if orders.dataset_files:
            words += ["--dataset", f"{_HOME}/dataset/{orders.dataset}"]
        elif orders.dataset:
            words += ["--dataset", orders.dataset]
        yield shlex.join(words)
    else:
        yield f"{sync} --pull --what shards,manifest"
    push = f"{sync} --push --replace {run}"
    yield f"while sleep {orders.push_s:.0f}; do {push} || true; done &"
    yield f"imnetprep {shlex.join(orders.command)} --run {orders.run} --resume"
    yield "kill $!"
    yield push
