"""`imnetprep verify --archives`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import Split
from imnetprep.commands.terminal import print_result, progress
from imnetprep.errors import FINDINGS_EXIT_CODE
from imnetprep.roots import Root
from imnetprep.units import count, format_bytes


def verify_archives(
    root: Root,
    folder: str,
    *,
    dataset: str | None,
    splits: Sequence[Split],
    jobs: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Print what is wrong with each archive, or how it is proved; the exit code."""
    from imnetprep.verify_archives import ArchiveReport, archive_reports

    def tell(report: ArchiveReport) -> None:
        path = str(report.path)
        for finding in report.findings:
            text = f"{finding.kind}: {path} {finding.what}"
            print_result(text, as_json=as_json, path=path, **finding._asdict())
        if not report.findings:
            size_bytes, proof = report.path.stat().st_size, report.proof
            print_result(
                f"{path}: {format_bytes(size_bytes)}, {_format_proof(proof)}",
                as_json=as_json,
                path=path,
                size_bytes=size_bytes,
                proof=proof,
            )

    found = read = 0
    for report in archive_reports(
        root,
        Path(folder) if folder else None,
        dataset=dataset,
        splits=splits,
        jobs=jobs,
        progress=progress(quiet=quiet),
    ):
        tell(report)
        found += len(report.findings)
        read += 1
    summary = f"{count(found, 'finding')} in {count(read, 'archive')}"
    print_result(summary, as_json=as_json, findings=found, archives=read)
    return FINDINGS_EXIT_CODE if found else 0


def _format_proof(proof: Mapping[str, Any]) -> str:
    if proof["kind"] == "torrent":
        return f"all {proof['pieces']:,} pieces right (torrent {proof['info_hash']})"
    if proof["kind"] == "none":
        return f"not proved: {proof['why']}; what can be seen of its form is right"
    return f"its {proof['kind']} is right ({proof['digest']})"
