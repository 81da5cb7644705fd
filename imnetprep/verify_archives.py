"""The published archives on this machine against what the dataset promises of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from imnetprep.catalog.datasets import Root, Split
from imnetprep.checking.check_archive import ArchiveCheck, ArchiveFinding, check_archive
from imnetprep.manifest import dataset_for
from imnetprep.messages import ImnetprepError, Progress
from imnetprep.proving.archive_at import home_of
from imnetprep.proving.receipt import (
    NoProof,
    Proof,
    if_possible,
    record_archive,
    record_verify,
    withdraw_archive,
)


class ArchiveReport(NamedTuple):
    """One archive: what was found in it, and what proves it if nothing was."""

    path: Path
    proof: Proof
    findings: tuple[ArchiveFinding, ...]


def archive_reports(
    root: Root,
    folder: Path | None,
    *,
    dataset: str | None = None,
    splits: Sequence[Split],
    jobs: int | None,
    record: bool = True,
    progress: Progress,
) -> Iterator[ArchiveReport]:
    """Read every archive in `folder` (those of `splits`, where some are named) and judge it.

    With `record`, the receipt learns which archives of ROOT/archives are proved, and forgets the
    proof of a wrong one.
    Raises ImnetprepError where an archive of a named split, or any, is not there.
    """
    origin = dataset_for(root.manifest, dataset).published
    folder = root.archives if folder is None else folder
    of_splits = origin.archives_for(splits)
    present = [each for each in of_splits or origin.archives if (folder / each.name).is_file()]
    for archive in of_splits or ([] if present else origin.archives[:1]):
        if archive not in present:
            raise ImnetprepError(
                f"{folder / archive.name} is not there",
                hint="imnetprep download, or name the folder where the archives are",
            )
    at_home = record and home_of(folder, root) is root
    total = 0
    for archive in present:
        path = folder / archive.name
        check = check_archive(path, archive, origin, jobs=jobs, progress=progress)
        if at_home:
            with if_possible():
                _note(root, path, check)
        total += len(check.findings)
        yield ArchiveReport(path, check.proof, check.findings)
    if at_home:
        checks = ["every byte"]
        record_verify(root, "archives", splits=splits, checks=checks, findings=total)


def _note(root: Root, path: Path, check: ArchiveCheck) -> None:
    if check.findings:
        withdraw_archive(root, path)
    elif not isinstance(check.proof, NoProof):
        record_archive(root, path, check.proof)
