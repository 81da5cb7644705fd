"""What all that carries a sync out has at hand."""

from dataclasses import dataclass

from imnetprep.messages import Progress
from imnetprep.roots import Root
from imnetprep.s3.bucket import Bucket
from imnetprep.sync.jobs import Flow
from imnetprep.sync.journal import SyncJournal


@dataclass(frozen=True, kw_only=True)
class Work:
    """Both places, what is known of them, and who is told. `kind`: of the checksums made here."""

    root: Root
    bucket: Bucket
    journal: SyncJournal
    kind: str
    flow: Flow
    progress: Progress
