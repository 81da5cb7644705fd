"""A damaged tree repaired: misplaced files move, damaged and missing ones come from archives."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from imnetprep.archive_parts import archive_in_parts
from imnetprep.catalog.datasets import Dataset, Root, Split
from imnetprep.checking.plan_repair import Move, Remedy, plan_remedy
from imnetprep.checking.recognise import Tree, opened_roster, require_share
from imnetprep.fs import locked, sync_file_system
from imnetprep.layouts.imagefolder import write_sample
from imnetprep.messages import (
    Checks,
    Finding,
    ImnetprepError,
    Progress,
    Task,
    WrongBytes,
    WrongUsage,
    move_away,
    shell_command,
)
from imnetprep.own_images.pixel_table import PixelOriginals, read_pixel_table
from imnetprep.proving.archive_at import ArchiveAt, archive_at
from imnetprep.proving.receipt import read_receipt
from imnetprep.single_samples import Originals, Retake, SamplePlace
from imnetprep.sources.places import STDIN, address_of, is_local
from imnetprep.split_from_folder import PIXELS
from imnetprep.synced_prefix import archives_at

# Taken samples wait for one sync of so many, and then all get their names.
_GROUP_BYTES = 64 << 20


@dataclass(frozen=True)
class RepairPlan:
    """What repair will do, split by split, and where the archives are that it takes from."""

    tree: Tree
    remedies: tuple[Remedy, ...]
    places: Mapping[Split, str | Path]
    delete: bool

    def address(self, split: Split) -> str:
        """The archive of `split` as people would write it, or the folder of one's own images."""
        if not self.tree.dataset.has_archive(split):
            return str(self.places[split])
        return address_of(self.places[split], self.tree.dataset.archive(split).name)


class Outcome(NamedTuple):
    """What was done for a split. `proof` says what proved the samples taken; None: nothing did."""

    split: Split
    moves: int
    takes: int
    deletions: int
    proof: str | None


def plan_repair(
    root: Root,
    tree: Tree,
    *,
    splits: Sequence[Split],
    checks: Checks,
    source: str | None,
    delete: bool,
    jobs: int | None,
    progress: Progress,
) -> RepairPlan:
    """Survey `splits` and decide what mends them; touches nothing.

    Raises ImnetprepError where the tree is another dataset than it is taken for, or a link, and
    where `source` has other images than a split that was made smaller.
    """
    remedies, places = [], {}
    if source == STDIN:
        raise WrongUsage(
            "repair looks for single images, and a pipe passes once",
            hint="--from with a folder, s3://… or https://…",
        )
    for split in tree.selected(root, splits):
        if (place := tree.places.get(split)) is not None:
            require_share(root, tree, place)
            if not place.folder.resolve().is_relative_to(root.path.resolve()):
                raise ImnetprepError(
                    f"{place.folder} is a link to {place.folder.readlink()}, outside of the root",
                    hint="name the root where the folder itself lies: --root DIR"
                    if tree.dataset.archives
                    else f"mend the images there, or leave them out: {adopting_anew(root)}",
                )
        places[split], has_archive = _place(root, tree.dataset, split, source)
        if has_archive and (whole := _read_whole(tree.dataset, split, places[split], root)):
            progress.note(
                f"{whole} is read as a whole: no single image is taken from it; to make the split"
                f" anew, {move_away(root.split(split))}, then imnetprep organize --split {split}"
            )
            has_archive = False
        is_listed = place is not None and place.listed
        with opened_roster(root, tree.dataset, split, listed=is_listed) as roster:
            if has_archive and roster.change:
                other = _other_images(root, split, roster.change)
                if source is not None:
                    raise other
                progress.note(f"{other}: nothing is taken from there")
            remedy = plan_remedy(
                root, tree, roster, archive=has_archive and not roster.change,
                checks=checks, jobs=jobs, progress=progress,
            )  # fmt: skip
            remedies.append(remedy)
    return RepairPlan(tree, tuple(remedies), places, delete)


def _read_whole(dataset: Dataset, split: Split, place: str | Path, root: Root) -> str | None:
    """The name of the archive of `split`, where it is compressed or its members have paths."""
    if not dataset.has_archive(split):
        return None
    archive = _archive(dataset, split, place, root).archive
    return archive.name if archive.members else None


def adopting_anew(root: Root) -> str:
    """The commands that make a root of one's own images anew, of what is whole in it."""
    words: list[object] = [root.path]
    for split in Split:
        folder = _source(root, split)
        if root.split(split).is_symlink() and folder.is_dir() and not root.path.samefile(folder):
            words = [folder, "--root", root.path]
    adopt = shell_command("imnetprep", "adopt", *words, "--skip-bad")
    return f"{move_away(root.manifest)}; then {adopt}"


# What has the samples.
_Origin = Retake | Originals | PixelOriginals


def _archive(dataset: Dataset, split: Split, place: str | Path, root: Root) -> ArchiveAt:
    """The archive of `split` at `place`, or what it was taken apart to."""
    parts = archive_in_parts(dataset, split, place)
    return parts[0] if parts else archive_at(dataset.archive(split), place, root)


def _place(
    root: Root, dataset: Dataset, split: Split, source: str | None
) -> tuple[str | Path, bool]:
    """Where the archive of `split` lies, or the images of one's own came from; is it there?"""
    if dataset.has_archive(split):
        names = (each.name for each in dataset.archives_of(split))
        archives = archives_at(source, names) if source else root.archives
        at = _archive(dataset, split, archives, root)
        if source and is_local(source) and not Path(source).exists():
            raise WrongUsage(f"--from {source} is not there", hint="name where the archives are")
        return archives, not at.is_local or bool(at.parts) or at.path.is_file()
    is_table = read_receipt(root)["splits"].get(split, {}).get("files") == PIXELS
    origin = Path(source) if source else _source(root, split)
    is_present = origin.is_file() if is_table else origin.is_dir()
    if source and not is_present:
        raise WrongUsage(
            f"{dataset.name} has no archive: --from {source} is not where its images came from",
            hint=f"--from with the {'table' if is_table else 'folder'} that they came from",
        )
    return origin, is_present and not origin.samefile(root.path)


def _source(root: Root, split: Split) -> Path:
    """Where images of one's own came from, by the receipt: the root where it does not say."""
    return Path(str(read_receipt(root)["splits"].get(split, {}).get("source") or root.path))


def _other_images(root: Root, split: Split, change: str) -> ImnetprepError:
    folder = root.split(split)
    return ImnetprepError(
        f"the {split} images are not those of their archive: {change}",
        hint=f"without --from misplaced files are moved; for the rest {move_away(folder)},"
        f" then imnetprep organize --split {split}, with the same --resize if any, makes it again",
    )


def carry_out_repair(
    plan: RepairPlan, root: Root, *, progress: Progress
) -> Iterator[Outcome | Finding]:
    """Do it; yields what was done for each split, and every finding that is left.

    An interruption leaves each file under its old name or its new one, whole; the next run resumes.
    """
    with locked(root.organizing):
        shutil.rmtree(_draft(root), ignore_errors=True)  # of a killed run
        for remedy in plan.remedies:
            yield from _Repair(plan, remedy, root, progress).carried_out()


def _draft(root: Root) -> Path:
    """Where samples are written until they are safe on the disk."""
    return root.organizing / "repair"


class _Repair:
    def __init__(self, plan: RepairPlan, remedy: Remedy, root: Root, progress: Progress) -> None:
        self._plan, self._remedy, self._root, self._progress = plan, remedy, root, progress
        self._dataset = plan.tree.dataset
        self._leftovers = list(remedy.leftovers)
        self._arrivals: set[str] = set()  # places of taken samples
        self._draft = _draft(root)

    def carried_out(self) -> Iterator[Outcome | Finding]:
        remedy = self._remedy
        moves = self._move([*remedy.renames, *remedy.moves])
        proof = self._take() if remedy.takes or remedy.short else None
        deletions = self._delete()
        if moves or self._arrivals or deletions or remedy.folders:
            sync_file_system(self._root.path)
        yield Outcome(remedy.split, moves, len(self._arrivals), deletions, proof)
        yield from self._leftovers

    def _move(self, steps: Sequence[Move]) -> int:
        """How many files and folders moved: nothing is moved to where something else lies."""
        if not steps:
            return 0
        moves, title = 0, f"sort {self._remedy.split}"
        with self._progress.task(title, total=len(steps), unit="files") as task:
            for move in steps:
                source, target = self._root.path / move.path, self._root.path / move.to
                if target.parent.is_symlink() or (os.path.lexists(target) and not move.replaces):
                    reason = "something is in the way, or its folder is a link"
                    self._leave("conflict", move.to, f"cannot take {move.path}: {reason}")
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    source.rename(target)
                    moves += 1
                task.advance(1)
        return moves

    def _take(self) -> str | None:
        """Missing and damaged samples from the archive; says what proved them."""
        labels = {label for label, _ in self._remedy.takes} | set(self._remedy.short)
        self._draft.mkdir(parents=True)
        with self._opened() as retake:
            found = list(retake.found(labels, self._wants))
            total = sum(each.end - each.start for each in found)
            with self._progress.task(f"take {self._remedy.split}", total=total, unit="B") as task:
                self._take_all(retake, found, task)
            proof = retake.proof
        shutil.rmtree(self._draft)
        self._leave_untaken()
        if self._arrivals and self._remedy.listed:
            return f"the manifest's digests, {proof}" if proof else "the manifest's digests"
        return proof if self._arrivals else None

    @contextmanager
    def _opened(self) -> Iterator[_Origin]:
        split = self._remedy.split
        place = self._plan.places[split]
        if not self._dataset.has_archive(split):
            if Path(place).is_file():
                table = read_pixel_table(Path(place), self._progress)
                yield PixelOriginals(self._dataset, split, table)
            else:
                yield Originals(self._dataset, split, Path(place))
            return
        at = _archive(self._dataset, split, place, self._root)
        with closing(at.open()) as file:
            yield Retake(self._dataset, split, at.archive, file, earlier=at.proof)

    def _wants(self, label: int, name: str) -> bool:
        if (label, name) in self._remedy.takes:
            return True
        path = self._root.path / self._home(label) / name
        return label in self._remedy.short and not os.path.lexists(path)

    def _take_all(self, retake: _Origin, samples: Sequence[SamplePlace], task: Task) -> None:
        """Into the draft folder, whole groups synced, and only then under their names."""
        group: list[tuple[str, Path]] = []  # where each belongs, and where it waits
        size_bytes, remedy = 0, self._remedy
        with opened_roster(self._root, self._dataset, remedy.split, listed=remedy.listed) as roster:
            for each, body in retake.bodies(samples):
                task.advance(each.end - each.start)
                place = f"{self._home(each.label)}/{each.name}"
                record = (roster.records(each.label) or {}).get(each.name)
                if isinstance(body, WrongBytes):
                    self._leave("archive", place, f"stays as it is: {body}")
                elif record is not None and not record.is_right(body):
                    message = f"has another digest in the manifest than in {self._source}"
                    self._leave("digest", place, message)
                else:
                    draft = self._draft / f"{len(group)}"
                    write_sample(str(self._draft), draft.name, body)
                    group.append((place, draft))
                    size_bytes += len(body)
                if size_bytes >= _GROUP_BYTES:
                    self._give_names(group)
                    size_bytes = 0
            self._give_names(group)

    def _give_names(self, group: list[tuple[str, Path]]) -> None:
        sync_file_system(self._draft)
        for place, draft in group:
            path = self._root.path / place
            is_folder = path.is_dir() and not path.is_symlink()
            if is_folder or path.parent.is_symlink():  # nothing is written through a link
                message = "is a folder" if is_folder else "has a link for a class folder"
                self._leave("conflict", place, message)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.replace(path)
            self._arrivals.add(place)
        group.clear()

    def _leave(self, kind: str, place: str, message: str) -> None:
        self._leftovers.append(Finding(kind, place, message, place))

    def _leave_untaken(self) -> None:
        paths = {finding.path for finding in self._leftovers} | self._arrivals
        for finding in self._remedy.takes.values():
            if finding.path not in paths:
                message = f"{finding.message}; {self._source} lacks it"
                self._leftovers.append(finding._replace(message=message))
        for label, finding in self._remedy.short.items():
            home = self._root.path / self._home(label)
            images = len(list(home.iterdir())) if home.is_dir() else 0
            if images != self._dataset.counts(self._remedy.split)[label]:
                self._leftovers.append(finding)

    def _delete(self) -> int:
        """What is too many, if asked for; folders in which nothing is left, in any case."""
        deletions, open_places = 0, {finding.path for finding in self._leftovers}
        for path, finding in self._remedy.extra.items():
            if not self._plan.delete or finding.belongs in open_places:
                self._leftovers.append(finding)
                continue
            (self._root.path / path).unlink(missing_ok=True)
            deletions += 1
        for path in self._remedy.folders:
            for folder, _, _ in os.walk(self._root.path / path, topdown=False):
                if not os.listdir(folder):  # noqa: PTH208
                    Path(folder).rmdir()
        return deletions

    @property
    def _source(self) -> str:
        return self._plan.address(self._remedy.split)

    def _home(self, label: int) -> str:
        """The class folder of a label, as findings name it."""
        return f"{self._remedy.split}/{self._dataset.synsets[label].wnid}"
