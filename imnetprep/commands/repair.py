"""`imnetprep repair`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imnetprep.catalog.datasets import Root, Split
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import json_option, print_finding, print_result, stderr_progress
from imnetprep.messages import FINDINGS_EXIT_CODE, count

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.repair import Outcome, RepairPlan


@verb.command(
    short_help="Repair the organized images.",
    headings={
        "What to check": ("splits", "digests", "decode"),
        "Where the archives lie": ("source", *verb.BUCKET),
    },
)
@verb.root_option
@verb.dataset_option
@verb.split_option()
@click.option(
    "--from",
    "source",
    metavar="PLACE",
    help="Where the archives lie: a folder, or an address as `imnetprep sources` lists them; of"
    " images of your own the folder that they came from.  [default: ROOT/archives, or that folder]",
)
@verb.bucket_options
@verb.digests_option
@verb.decode_option
@click.option("--delete", is_flag=True, help="Delete files that are no part of the dataset.")
@verb.jobs_option
@verb.dry_run_option()
@json_option
@verb.quiet_option
@session_options
def repair(
    root: Root,
    dataset: str | None,
    splits: tuple[Split, ...],
    source: str | None,
    request_payer: bool,
    no_sign_request: bool,
    digests: bool,
    decode: bool,
    delete: bool,
    jobs: int | None,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Repair what `imnetprep verify` finds with the same --digests and --decode.

    Images move to where their names belong; just the missing and damaged ones are read again
    from the archives, or images of your own from the folder that they came from. Nothing is deleted
    without --delete. What cannot be repaired is printed, and the exit code is 5. Interrupted at any
    instant, the same command resumes. Archives are repaired by `imnetprep repair-archives`.

    \b
    imnetprep repair --dry-run
    imnetprep repair --digests --from s3://my-bucket/imagenet
    """
    verb.read_bucket(source, request_payer=request_payer, no_sign_request=no_sign_request)
    from imnetprep.checking.recognise import recognise
    from imnetprep.messages import Checks
    from imnetprep.repair import Outcome, adopting_anew, carry_out_repair, plan_repair

    progress = stderr_progress(quiet=quiet)
    plan = plan_repair(
        root,
        recognise(root, dataset=dataset),
        splits=splits,
        checks=Checks(digests=digests, decode=decode),
        source=source,
        delete=delete,
        jobs=jobs,
        progress=progress,
    )
    if dry_run:
        _print_plan(plan)
        return 0
    finding_count, wrong = 0, list[Path]()
    for result in carry_out_repair(plan, root, progress=progress):
        if isinstance(result, Outcome):
            _print_outcome(result, plan)
        else:
            finding_count += 1
            wrong += [root.path / result.path] * (result.kind in ("digest", "size"))
            print_finding(result)
    if finding_count:
        print_result(f"{count(finding_count, 'finding')} left", findings=finding_count)
        if not plan.tree.dataset.archives:
            if wrong:  # they may decode, and nothing would tell them from right ones
                rest = f" and {len(wrong) - 5:,} more" if len(wrong) > 5 else ""
                progress.note(
                    f"{count(len(wrong), 'image')} to move away before it is adopted anew, or what"
                    f" is damaged is taken for right: {', '.join(map(str, wrong[:5]))}{rest}"
                )
            progress.note(f"what is whole makes a root: {adopting_anew(root)}")
    return FINDINGS_EXIT_CODE if finding_count else 0


def _print_plan(plan: "RepairPlan") -> None:
    def step(verb: str, path: str, to: str = "") -> None:
        text = f"{verb} {path}{f' to {to}' if to else ''}"
        print_result(text, step=verb, path=path, to=to or None)

    for remedy in plan.remedies:
        for move in [*remedy.renames, *remedy.moves]:
            step("move", move.path, move.to)
        for finding in [*remedy.takes.values(), *remedy.short.values()]:
            path = finding.belongs or finding.path
            archive = plan.address(remedy.split)
            text = f"take {path} from {archive}: {finding.message}"
            print_result(text, step="take", path=path, archive=archive)
        for path in remedy.extra if plan.delete else ():
            step("delete", path)
        for finding in [*remedy.leftovers, *(() if plan.delete else remedy.extra.values())]:
            text = f"leave {finding.path}: {finding.message}"
            print_result(text, step="leave", **finding._asdict())


def _print_outcome(outcome: "Outcome", plan: "RepairPlan") -> None:
    place = "the archive" if plan.tree.dataset.archives else plan.address(outcome.split)
    proof = f" (verified by {outcome.proof or 'nothing but their names'})" if outcome.takes else ""
    text = (
        f"{outcome.split}: {outcome.moves:,} moved,"
        f" {outcome.takes:,} taken from {place}{proof}, {outcome.deletions:,} deleted"
    )
    print_result(
        text,
        split=outcome.split,
        moved=outcome.moves,
        taken=outcome.takes,
        deleted=outcome.deletions,
        proof=outcome.proof,
    )
