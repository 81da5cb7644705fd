"""An object of a bucket on its way into a file."""

from collections.abc import Iterator
from pathlib import Path

from imnetprep.digests import Pieces
from imnetprep.proving.receipt import Proof, ServerChecksum, TorrentProof
from imnetprep.s3.failures import explained
from imnetprep.sync.plan import RANGE_BYTES, Step
from imnetprep.sync.survey import Survey
from imnetprep.transfers.checksums import Checksums
from imnetprep.transfers.flow import Flow
from imnetprep.transfers.range_download import RangeDownload, Remote, pull_part_path


class ObjectDownload(RangeDownload):
    """An object on its way. `target`: its checksums; None: the server keeps none."""

    def __init__(
        self,
        step: Step,
        path: Path,
        survey: Survey,
        flow: Flow,
        *,
        target: Checksums | None,
        pieces: Pieces | None = None,
    ) -> None:
        self.step, self.address = step, survey.address / step.path
        etag = step.etag or ""

        def chunks(start: int, end: int, length: int) -> Iterator[memoryview]:
            with explained(self.address):
                yield from survey.bucket.chunks(
                    self.address.key, start, end, etag=etag, length=length, on_request=flow.go_on
                )

        hint = "imnetprep sync-s3 --check --deep tells whether the bucket has them right"
        remote = Remote(str(self.address), step.size_bytes, etag, chunks, hint)
        super().__init__(
            step.path,
            path,
            pull_part_path(path),
            remote,
            survey.journal,
            flow,
            range_bytes=RANGE_BYTES,
            kind=survey.kind,
            target=target,
            pieces=pieces,
            note=survey.progress.note,
        )

    @property
    def proof(self) -> Proof | None:
        """What proves an archive that came, if anything does."""
        if (pieces := self.pieces) is not None:
            return TorrentProof(pieces.info_hash, pieces.count)
        if self.target is None:
            return None
        whole = self.checksums.whole
        return ServerChecksum(whole.kind, f"{whole.value:x}", str(self.address))
