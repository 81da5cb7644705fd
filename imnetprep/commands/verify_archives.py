"""`imnetprep verify-archives`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imnetprep.catalog.datasets import Root, Split
from imnetprep.commands.terminal import print_result, stderr_progress
from imnetprep.commands.verb import (
    Verb,
    archives_folder_option,
    dataset_option,
    dry_run_option,
    jobs_option,
    json_option,
    quiet_option,
    root_option,
    split_option,
)
from imnetprep.messages import FINDINGS_EXIT_CODE, count, format_bytes

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.verify_archives import ArchiveReport


@click.command("verify-archives", cls=Verb, short_help="Read the archives and verify every byte.")
@root_option
@dataset_option
@split_option()
@archives_folder_option
@jobs_option
@dry_run_option("Read and judge the archives, and leave the receipt as it is.")
@json_option
@quiet_option
def verify_archives(
    root: Root,
    dataset: str | None,
    splits: tuple[Split, ...],
    archives: Path | None,
    jobs: int | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Read every byte of the published archives, and name the wrong bytes and the images in them.

    An archive is verified by the pieces of its torrent, else by its digest; where the dataset has
    neither, its structure and counts are checked. The receipt of ROOT records which archives of
    ROOT/archives are verified, so that organize, sync-s3 and clean need not read them again; a
    wrong one loses its record.

    A line for each finding; exit code 5 if there is any. `imnetprep repair-archives` repairs them.

    \b
    imnetprep verify-archives
    imnetprep verify-archives --archives /data/archives --dataset ilsvrc2012 --split val
    """
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
        _print_report(report, as_json=as_json)
        found += len(report.findings)
        read += 1
    summary = f"{count(found, 'finding')} in {count(read, 'archive')}"
    print_result(summary, as_json=as_json, findings=found, archives=read)
    return FINDINGS_EXIT_CODE if found else 0


def _print_report(report: "ArchiveReport", *, as_json: bool) -> None:
    path = str(report.path)
    for finding in report.findings:
        text = f"{finding.kind}: {path} {finding.message}"
        print_result(text, as_json=as_json, path=path, **finding._asdict())
    if not report.findings:
        size_bytes, proof = report.path.stat().st_size, report.proof
        print_result(
            f"{path}: {format_bytes(size_bytes)}, {proof.describe()}",
            as_json=as_json,
            path=path,
            size_bytes=size_bytes,
            proof=proof,
        )
