"""What a network was made with: version, commit, and the bytes of each split, as a checkpoint says.

The receipt of the root vouches for the bytes; a root without one says how many images there were.
"""

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import imnetprep
from imnetprep.catalog.datasets import Root
from imnetprep.messages import count
from imnetprep.plain_values import plain_text, table, whole_number
from imnetprep.proving.receipt import Proof, if_possible, parse_proof, read_receipt
from imnetprep.samples.sample_list import SampleList

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?(?:-dirty)?")
_GIT_S = 10


@dataclass(frozen=True)
class SplitOrigin:
    """A split as it was trained on: its images, what was done to them, the archives behind them.

    `proof` is what the receipt says verified the archives, None: the receipt says nothing.
    """

    samples: int
    layout: str
    change: str | None = None
    archives: tuple[str, ...] = ()
    proof: Proof | None = None

    def as_json(self) -> dict[str, Any]:
        """The form that `parse_origin` reads."""
        proof = self.proof.as_json() if self.proof else None
        return {**asdict(self), "archives": list(self.archives), "proof": proof}


@dataclass(frozen=True)
class Origin:
    """Version and commit of the code (None: no checkout) and, by name, the splits behind a run."""

    imnetprep: str = imnetprep.__version__
    commit: str | None = None
    splits: Mapping[str, SplitOrigin] | None = None

    def as_json(self) -> dict[str, Any]:
        """The form that `parse_origin` reads."""
        splits = {name: split.as_json() for name, split in (self.splits or {}).items()}
        return {"imnetprep": self.imnetprep, "commit": self.commit, "splits": splits}

    def described(self) -> Iterator[tuple[str, str]]:
        """What people read of it: names of facts, and their texts."""
        for name, split in (self.splits or {}).items():
            change = f", {split.change}" if split.change else ""
            proof = (
                f"; {', '.join(split.archives)}: {split.proof.describe()}" if split.proof else ""
            )
            yield name, f"{count(split.samples, 'image')}, {split.layout}{change}{proof}"
        commit = f", commit {self.commit}" if self.commit else ""
        yield "begun by", f"imnetprep {self.imnetprep}{commit}"


def read_origin(root: Root, splits: Iterable[SampleList]) -> Origin:
    """The origin of a training that begins now on `splits` of `root`. Raises OSError where the
    disk fails: what the receipt says would be lost to every checkpoint.
    """
    records: Mapping[str, Any] = {}
    with if_possible():  # a damaged receipt is no reason not to train
        records = read_receipt(root)["splits"]
    origins = {}
    for samples in splits:
        split = SplitOrigin(len(samples), str(samples.layout), samples.change)
        record = records.get(f"{samples.layout.parent}/{samples.split}".lstrip("/"), {})
        with suppress(ValueError):
            archives = record.get("archive") or ()
            archives = (archives,) if isinstance(archives, str) else archives
            proof = parse_proof(record["proof"]) if "proof" in record else None
            split = replace(split, archives=tuple(map(plain_text, archives)), proof=proof)
        origins[str(samples.split)] = split
    return Origin(commit=commit_of_checkout(), splits=origins)


def parse_origin(value: object) -> Origin:
    """The origin in a table that may come from a stranger. Raises ValueError if it is none."""
    facts = table(value)
    commit = facts["commit"]
    if commit is not None and not _COMMIT.fullmatch(plain_text(commit)):
        raise ValueError(f"{commit!r:.40} is no commit")
    splits = {
        plain_text(name): _parse_split(split) for name, split in table(facts["splits"]).items()
    }
    return Origin(plain_text(facts["imnetprep"]), commit, splits)


def _parse_split(value: object) -> SplitOrigin:
    facts = table(value)
    change, archives = facts["change"], facts["archives"]
    if not isinstance(archives, list):
        raise TypeError(f"{archives!r:.40} is no list of archives")
    proof = None if facts["proof"] is None else parse_proof(facts["proof"])
    if proof is not None:
        plain_text(proof.describe())
    return SplitOrigin(
        whole_number(facts["samples"]),
        plain_text(facts["layout"]),
        None if change is None else plain_text(change),
        tuple(map(plain_text, archives)),
        proof,
    )


def commit_of_checkout() -> str | None:
    """The commit of the checkout that this package runs from, `-dirty` where files differ."""
    package = Path(imnetprep.__file__).parent
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=64"]
    with suppress(OSError, subprocess.SubprocessError):  # without git nothing is known of it
        answer = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=True, timeout=_GIT_S
        )
        if _COMMIT.fullmatch(commit := answer.stdout.strip()):
            return commit
    return None
