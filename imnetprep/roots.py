"""Where things lie under a root."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Root:
    """The dataset on this machine: archives, the organized splits, their manifest, the runs."""

    path: Path

    @property
    def archives(self) -> Path:
        """The published files; `*.part` beside its state while it grows."""
        return self.path / "archives"

    @property
    def organizing(self) -> Path:
        """Splits while they grow, and `journal.db`. Local, never synced."""
        return self.path / ".organizing"

    @property
    def manifest(self) -> Path:
        """The list of all samples (SQLite)."""
        return self.path / "manifest.db"

    @property
    def receipt(self) -> Path:
        """Which bytes, from where, proved how, by which version (JSON)."""
        return self.path / "receipt.json"

    def split(self, split: str) -> Path:
        """The folder of class folders of an organized split."""
        return self.path / split

    def run(self, name: str) -> Path:
        """The folder of one training."""
        return self.path / "runs" / name

    @property
    def runs(self) -> Path:
        """The folder of all trainings."""
        return self.path / "runs"
