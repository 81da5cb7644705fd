"""What `imnetprep repair --archives` does behind its options."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imnetprep.catalog.datasets import Split
from imnetprep.commands.terminal import print_result, progress
from imnetprep.roots import Root
from imnetprep.units import format_bytes

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.sources.session import Network


def repair_archives(
    root: Root,
    folder: Path | None,
    *,
    splits: Sequence[Split],
    address: str | None,
    network: "Network",
    wait: float,
    jobs: int | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print what is wrong with each archive (a dry run), or that it is right now."""
    from imnetprep.repair_archives import Swarm, carry_out_archive_repair, plan_archive_repair

    shown = progress(quiet=quiet)
    plan = plan_archive_repair(root, folder, splits=splits, jobs=jobs, progress=shown)
    source = address or Swarm(network, wait)
    done = (
        plan.archives
        if dry_run
        else carry_out_archive_repair(plan, root, source=source, progress=shown)
    )
    for planned in done:
        size_bytes = planned.wrong_bytes
        size = "what its part lacks" if size_bytes is None else format_bytes(size_bytes)
        what = "to fetch" if dry_run else "fetched"
        text = f"{planned.path}: all pieces right"
        if not planned.is_right:
            text = f"{planned.path}: {size} {what}" + ("" if dry_run else ", all pieces right")
        print_result(
            text,
            as_json=as_json,
            path=planned.path,
            wrong_bytes=size_bytes,
            repaired=not dry_run and not planned.is_right,
            proof=None if dry_run else planned.proof,
        )
