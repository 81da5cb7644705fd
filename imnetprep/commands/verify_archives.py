"""`imnetprep verify-archives`."""

from typing import TYPE_CHECKING

import click

from imnetprep.catalog.datasets import Root, Split
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import json_option, print_result, stderr_progress
from imnetprep.messages import FINDINGS_EXIT_CODE, count, format_bytes

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.verify_archives import ArchiveReport


@verb.command("verify-archives", short_help="Read the archives and verify every byte.")
@verb.root_option
@verb.dataset_option
@verb.split_option()
@click.option(
    "--archives",
    metavar="PLACE",
    help="Where the archives lie: a folder, or an address as `imnetprep sources` lists them."
    "  [default: ROOT/archives]",
)
@verb.bucket_options
@verb.jobs_option
@verb.dry_run_option("Read and judge the archives, and leave the receipt as it is.")
@json_option
@verb.quiet_option
@session_options
def verify_archives(
    root: Root,
    dataset: str | None,
    splits: tuple[Split, ...],
    archives: str | None,
    request_payer: bool,
    no_sign_request: bool,
    jobs: int | None,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Read every byte of the published archives, and name the wrong bytes and the images in them.

    An archive is verified by the pieces of its torrent, else by its digest; where the dataset has
    neither, its structure and counts are checked, and in a bucket the object's own checksum. An
    archive far away is read without a copy on this disk. The receipt of ROOT records which archives
    of ROOT/archives are verified, so that organize, sync-s3 and clean need not read them again; a
    wrong one loses its record.

    A line for each finding; exit code 5 if there is any. `imnetprep repair-archives` repairs them.

    \b
    imnetprep verify-archives
    imnetprep verify-archives --archives /data/archives --dataset ilsvrc2012 --split val
    imnetprep verify-archives --archives s3://my-bucket/imagenet
    """
    verb.read_bucket(archives, request_payer=request_payer, no_sign_request=no_sign_request)
    from imnetprep.verify_archives import archive_reports

    found = read = 0
    for report in archive_reports(
        root,
        archives,
        dataset=dataset,
        splits=splits,
        jobs=jobs,
        record=not dry_run,
        progress=stderr_progress(quiet=quiet),
    ):
        _print_report(report)
        found += len(report.findings)
        read += 1
    summary = f"{count(found, 'finding')} in {count(read, 'archive')}"
    print_result(summary, findings=found, archives=read)
    return FINDINGS_EXIT_CODE if found else 0


def _print_report(report: "ArchiveReport") -> None:
    path = report.address
    for finding in report.findings:
        text = f"{finding.kind}: {path} {finding.message}"
        print_result(text, path=path, **finding._asdict())
    if not report.findings:
        print_result(
            f"{path}: {format_bytes(report.size_bytes)}, {report.proof.describe()}",
            path=path,
            size_bytes=report.size_bytes,
            proof=report.proof,
        )
