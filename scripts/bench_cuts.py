"""`scripts/bench cuts`: verbs whose power is cut before their n-th call of a kind, on ext4 and xfs.

Everything lies on a file system of its own in a file, mounted by a loop device: root is needed.
`faults.c` ends that file system (EXT4_IOC_SHUTDOWN, which xfs has too) and the command before some
call that writes or syncs: half of the cuts leave what is on the disk, the others every name as
well, of files whose data never got there. The next mount replays the journal. What is found then
may be unfinished, but nothing wrong that `verify` lets pass; and the same command comes to what an
unbroken run makes: the same files, manifest and receipt (but its times and inodes).

IMNETPREP_BENCH_ONLY=organize,train picks verbs, IMNETPREP_BENCH_DISKS=xfs a file system;
IMNETPREP_BENCH_CUTS (20) are the cuts of each command on each; IMNETPREP_BENCH_SEED the same random
places again; IMNETPREP_BENCH_FAULT=rename:3:CUT (CUT_NAMED: with every name) is that cut alone.
TMPDIR=/dev/shm spares the disk.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench_faults import (
    ALONE,
    SEED,
    VERBS,
    Commands,
    Ended,
    Verb,
    made,
    move_archives,
    opened_verbs,
    packed,
    problems_again,
)

from tests.faults import NO_FAULT, Fault, mounted

DISKS = os.environ.get("IMNETPREP_BENCH_DISKS", "ext4,xfs").split(",")
CUTS = int(os.environ.get("IMNETPREP_BENCH_CUTS", "20"))
_FORMATS = {"ext4": ["mkfs.ext4", "-q"], "xfs": ["mkfs.xfs", "-q", "-l", "size=64m"]}
_DISK_BYTES = 400 << 20  # xfs takes no less than 300 MB
_KINDS = (
    *("write", "pwrite", "fsync", "fsyncdir", "fdatasync", "syncfs", "rename", "link", "unlink"),
    *("mkdir", "rmdir", "close"),
)


def _system(*words: object) -> None:
    subprocess.run([*map(str, words)], check=True)


class _Disk:
    """A file system with what a verb begins with, and its copies, mounted where commands run."""

    def __init__(self, commands: Commands, image: Path) -> None:
        self._commands, self._image = commands, image
        self._copy, self._look = image.with_suffix(".copy"), image.with_suffix(".look")

    @classmethod
    def formatted(cls, form: str, commands: Commands, template: Path) -> "_Disk":
        """A new one that holds a copy of `template`."""
        image = template.with_name("disk")
        image.unlink(missing_ok=True)
        with image.open("wb") as file:
            file.truncate(_DISK_BYTES)
        _system(*_FORMATS[form], image)
        shutil.rmtree(commands.folder, ignore_errors=True)
        commands.folder.mkdir()
        with mounted(image, commands.folder):
            shutil.copytree(template, commands.folder, symlinks=True, dirs_exist_ok=True)
        return cls(commands, image)

    def run(self, verb: Verb, fault: Fault) -> tuple[Ended, bool]:
        """Run the verb on a fresh copy; was it cut? Then the copy is as the next boot finds it."""
        with self.started():
            ended = self._commands.run(verb.words, fault, verb.environment)
            try:
                (self._commands.folder / "probe").touch()
            except OSError:
                return ended, True
        return ended, False

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        """The copy, mounted: its journal is replayed."""
        with mounted(self._copy, self._commands.folder):
            yield

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        """A fresh copy, mounted."""
        _copied(self._image, self._copy)
        with self.mounted():
            yield

    @contextlib.contextmanager
    def looked_at(self) -> Iterator[None]:
        """Another copy of the copy, that may be changed."""
        _copied(self._copy, self._look)
        with mounted(self._look, self._commands.folder):
            yield


def _copied(image: Path, to: Path) -> None:
    to.unlink(missing_ok=True)  # a loop device that is not free yet may still have the file
    _system("cp", "--sparse=always", image, to)


def main(folder: Path) -> None:
    """Every verb on every file system, cut by cut."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if os.geteuid() != 0:
        sys.exit("root is needed: file systems are mounted and ended")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or all would stay mounted
    print(f"seed {SEED}, {CUTS} cuts of each command on each file system")
    makers = {name: make for name, make in VERBS.items() if name not in _LEFT_OUT}
    wrong = 0
    with contextlib.closing(Commands(folder)) as commands:
        for verb, template in opened_verbs({**makers, **_OWN}, folder, commands):
            for form in DISKS:
                disk = _Disk.formatted(form, commands, template)
                named = verb._replace(name=f"{template.name} on {form}")
                wrong += _sweep(commands, disk, named)
    sys.exit(1 if wrong else 0)


def _sweep(commands: Commands, disk: _Disk, verb: Verb) -> int:
    """All cuts of one verb; prints what is wrong, then a row of the table."""
    with disk.started():
        initial = made(commands.folder / "root")
    ended, _ = disk.run(verb, NO_FAULT)
    assert ended.code == 0, ended
    calls = commands.calls()
    with disk.mounted():
        wanted = made(commands.folder / "root")
    wrong = cuts = whole = 0
    begun = time.monotonic()
    for fault in _sampled(calls, random.Random(f"{SEED} {verb.name}")):
        ended, is_cut = disk.run(verb, fault)
        if not is_cut:  # this run had fewer calls
            assert ended.code == 0, ended
            continue
        cuts += 1
        # A process beside the one that is cut may find its disk gone before it is killed.
        is_told = ended.code in (0, 1, -9) and "Traceback" not in ended.told
        problems = [] if is_told else [f"code {ended.code}: {ended.told[-400:]!r}"]
        with disk.looked_at():
            problems += _problems(commands, wanted, initial)
        with disk.mounted():
            whole += (commands.folder / "root" / "receipt.json").exists()
            problems += problems_again(commands, verb, wanted)
        if problems:
            wrong += 1
            print(f"  {verb.name} {fault}: {'; '.join(problems)}")
    print(f"{verb.name}: {sum(calls[kind] for kind in _KINDS):,} calls, {cuts} cuts, {whole} with a"
          f" receipt, {cuts - wrong} to the same end, {wrong} wrong"
          f" ({time.monotonic() - begun:.0f} s)")  # fmt: skip
    return wrong


def _sampled(calls: dict[str, int], chance: random.Random) -> Iterator[Fault]:
    """Places of all kinds alike, and both ways to lose what was not synced."""
    if "*" not in ALONE:
        yield Fault.parse(ALONE)
        return
    kinds = [kind for kind in _KINDS if calls[kind]]
    for number in range(CUTS):
        kind = kinds[number % len(kinds)]
        error = chance.choice(["CUT", "CUT_NAMED"])
        yield Fault(kind, chance.randint(1, calls[kind]), error)


def _problems(
    commands: Commands, wanted: dict[str, object], initial: dict[str, object]
) -> list[str]:
    """What is wrong with how verbs that only look find a root whose power was cut.

    A file that is as it was `initial`ly was damaged for the verb to repair.
    """
    problems = []
    for verb in ("status", "verify"):
        ended = commands.run([verb, "--root", "root"], NO_FAULT, {})
        if ended.code in (None, 70) or (ended.code or 0) < 0 or "Traceback" in ended.told:
            problems.append(f"{verb}: code {ended.code}: {ended.told[-400:]!r}")
        if verb == "verify" and ended.code == 0:
            found = made(commands.folder / "root")
            images = [name for name in found if name.startswith(("train/", "val/", "shards/"))]
            passed = [
                name for name in images if found[name] not in (wanted.get(name), initial.get(name))
            ]
            problems += [f"verify lets pass {', '.join(passed[:3])}"] if passed else []
    return problems


# The verbs.

_LEFT_OUT = ("side-by-side", "verify", "download", "train-by-workers")


@contextlib.contextmanager
def _organize(template: Path, _commands: Commands) -> Iterator[Verb]:
    """With the archives in the root: the receipt says of each what proved it, which is its MD5."""
    definition = packed(template)
    move_archives(template)
    words = ["organize", "--root", "root", "--dataset", definition, "--jobs", "2", "--quiet"]
    yield Verb("organize", words)


@contextlib.contextmanager
def _pieces(template: Path, commands: Commands) -> Iterator[Verb]:
    """As `_organize`, proved by the pieces of torrents."""
    from imnetprep.sources.seeder import make_torrent

    with _organize(template, commands) as verb:
        definition = template / "archives" / "drawn.toml"
        text = definition.read_text()
        for tar in (template / "root" / "archives").glob("*.tar"):
            torrent, name = definition.with_name(f"{tar.stem}.torrent"), f'name = "{tar.name}"\n'
            torrent.write_bytes(make_torrent(tar, piece_bytes=1 << 14))
            text = text.replace(name, f'{name}torrent = "{torrent.name}"\n')
        definition.write_text(text)
        yield verb


_OWN = {"organize": _organize, "pieces": _pieces}
