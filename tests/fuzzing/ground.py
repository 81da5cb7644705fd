"""Where hostile archives are let loose, and what must hold of each of them.

An archive is organized as other readers have it, or refused by an ImnetprepError, by both engines
alike. Meanwhile nothing is written but below the root, nothing is asked for that the archive does
not have, and memory stays small.
"""

import contextlib
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zlib
from base64 import b85decode, b85encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from imnetprep import cli
from imnetprep.archives.chunk_stream import ChunkStream
from imnetprep.archives.ranges import open_section, plan_ranges, sections
from imnetprep.catalog.datasets import Archive, Split, load_dataset
from imnetprep.catalog.file_names import is_litter
from imnetprep.extracting.class_folders import ClassFolders
from imnetprep.extracting.samples import Extraction
from imnetprep.manifest import SampleRecord
from imnetprep.messages import WrongBytes
from imnetprep.synthetic import pack_dataset
from tests.conftest import tree
from tests.fuzzing.tars import CORPUS, Change, Entry, packed, tars

Bodies = dict[str, bytes]
_FOUND = Path(__file__).with_name("found.txt")
_LONGEST_CASE_S = 20
_MOST_MEMORY_BYTES = 16 << 20
_CHUNK_BYTES = 700  # a header lies in two of them as often as not


class Form(NamedTuple):
    """A form of archive to be fuzzed: the split that has it, what is made by hand, what is drawn.

    `read` is another reader of it: the names and bodies, class folders in front where it has them.
    """

    split: Split
    corpus: dict[str, bytes]
    drawn: st.SearchStrategy[bytes]
    read: Callable[[Path], Bodies]


class Ground:
    """A dataset small enough to be organized ten thousand times, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packed = pack_dataset(
            folder / "packed", classes=3, train_per_class=3, val_per_class=2, image_bytes=400
        )
        self._toml = [
            line
            for line in self.packed.read_text().splitlines()
            if not line.startswith(("md5", "size_bytes"))
        ]
        self.packed.write_text("\n".join(self._toml))
        self.dataset = load_dataset(str(self.packed))
        self.forms = {"flat": self._flat(), "class tars": self._class_tars()}

    def check(self, form: Form, body: bytes, *, thoroughly: bool = False) -> bool:
        """Is it organized? AssertionError where what must hold does not, with the case as note."""
        try:
            with _written_only_below(self.folder / "root"), _in_time():
                organized = self._agreed(form, body)
                if thoroughly:
                    self._through_the_command(form, body, organized)
            return organized
        except Exception as error:
            case = b85encode(zlib.compress(body, 9)).decode()
            error.add_note(f"{_FOUND.name}: {form.split} {case}")
            raise
        finally:
            shutil.rmtree(self.folder / "root", ignore_errors=True)

    def organized(self) -> Path:
        """A root of the right archives."""
        root = self.folder / "organized"
        words = ["--root", root, "--dataset", self.packed, "--archives", self.packed.parent]
        assert cli.run(list(map(str, ["organize", *words, "--quiet"]))) == 0
        return root

    def _agreed(self, form: Form, body: bytes) -> bool:
        """What both engines say of it."""
        results: list[Bodies | None] = []
        for engine in (self._side_by_side, self._in_order):
            root = self.folder / "root" / engine.__name__
            try:
                records = engine(form, body, root)
            except WrongBytes as error:
                assert str(error).isprintable() and error.hint
                results.append(None)
            else:
                results.append(tree(root / form.split) if self._is_whole(form, records) else None)
        assert results[0] == results[1], "the engines differ"
        if results[0] is not None:
            assert results[0] == self._as_others_read_it(form, body)
        return results[0] is not None

    def _side_by_side(self, form: Form, body: bytes, root: Path) -> list[SampleRecord]:
        def read_at(offset: int, length: int) -> bytes:
            assert 0 <= offset <= offset + length <= len(body), "asks for what is not there"
            return body[offset : offset + length]

        archive = self.dataset.archive(form.split)
        sink = ClassFolders(self.dataset, root)
        extraction = Extraction(archive, [form.split], dataset=self.dataset, sink=sink)
        records: list[SampleRecord] = []
        planned = plan_ranges(archive, self.dataset, size_bytes=len(body), read_at=read_at)
        for each in planned:
            stream = _stream(body, each.start, each.end, archive)
            section = open_section(each, stream, archive)
            extraction.extract(
                section, stream, lambda batch: records.extend(extraction.write(batch))
            )
        return records

    def _in_order(self, form: Form, body: bytes, root: Path) -> list[SampleRecord]:
        archive = self.dataset.archive(form.split)
        sink = ClassFolders(self.dataset, root)
        extraction = Extraction(archive, [form.split], dataset=self.dataset, sink=sink)
        stream = _stream(body, 0, len(body), archive)
        records: list[SampleRecord] = []
        for section in sections(stream, archive, self.dataset, end=len(body)):
            extraction.extract(
                section, stream, lambda batch: records.extend(extraction.write(batch))
            )
        return records

    def _is_whole(self, form: Form, records: list[SampleRecord]) -> bool:
        """As `Work.grown` counts: each name once, and none missing."""
        wanted = [
            (label, name)
            for label in range(len(self.dataset.synsets))
            for name in self.dataset.names(form.split, label) or ()
        ]
        return sorted((record.label, record.name) for record in records) == sorted(wanted)

    def _as_others_read_it(self, form: Form, body: bytes) -> Bodies:
        """By class folders, as we have it."""
        path = self.folder / "root" / "archive"
        path.write_bytes(body)
        found = {}
        for path_there, content in form.read(path).items():
            *folders, name = path_there.replace("\\", "/").removeprefix("./").split("/")
            if any(map(is_litter, [*folders, name])):
                continue
            label = self.dataset.label_of(form.split, name)
            assert label is not None, path_there
            found[f"{self.dataset.synsets[label].wnid}/{name}"] = content
        return found

    def _through_the_command(self, form: Form, body: bytes, organized: bool) -> None:
        """Both engines once more, as a user has them."""
        place = self.folder / "root" / "place"
        archive = self.dataset.archive(form.split)
        shutil.copytree(self.packed.parent, place)
        (place / archive.name).write_bytes(body)
        for proof in ("", f'md5 = "{hashlib.md5(body).hexdigest()}"'):
            toml = place / f"{'ordered' if proof else 'plain'}.toml"
            at = self._toml.index(f'name = "{archive.name}"')
            toml.write_text("\n".join([*self._toml[: at + 1], proof, *self._toml[at + 1 :]]))
            words = ["--root", place.parent / toml.stem, "--dataset", toml, "--archives", place]
            words = ["organize", *words, "--split", form.split, "--quiet", "--jobs", "2"]
            told = io.StringIO()
            tempfile.tempdir = str(self.folder / "root")
            try:
                with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
                    code = cli.run(list(map(str, words)))
            finally:
                tempfile.tempdir = None
            assert code == (0 if organized else WrongBytes.exit_code), told.getvalue()
            assert organized or told.getvalue().count("\n") == 2, told.getvalue()
            assert (place.parent / toml.stem / form.split).exists() == organized

    def _flat(self) -> Form:
        entries = _entries((self.packed.parent / "ILSVRC2012_img_val.tar").read_bytes())
        corpus = {name: _tar(change, entries) for name, change in CORPUS.items()}
        return Form(Split.VAL, corpus | _found(Split.VAL), tars(entries), read_quickly)

    def _class_tars(self) -> Form:
        outer = _entries((self.packed.parent / "ILSVRC2012_img_train.tar").read_bytes())
        inner = _entries(outer[0].body)
        others = [each._replace(body=packed(_entries(each.body))) for each in outer[1:]]

        def around(body: bytes) -> list[Entry]:
            return [outer[0]._replace(body=body), *others]

        right = around(packed(inner))
        corpus = {f"{name}, outside": _tar(change, right) for name, change in CORPUS.items()}
        corpus |= {
            f"{name}, inside": packed(around(_tar(change, inner)))
            for name, change in CORPUS.items()
        }
        drawn = tars(inner).map(lambda body: packed(around(body))) | tars(right)
        return Form(Split.TRAIN, corpus | _found(Split.TRAIN), drawn, read_quickly)


def read_quickly(path: Path) -> Bodies:
    """What Python makes of a tar, or GNU tar where Python wants a mode or a date to be a number."""
    try:
        return read_by_tarfile(path)
    except (tarfile.TarError, ValueError):  # it trips over an hdrcharset that is no UTF-8
        return read_by_gnu_tar(path)


def read_by_tarfile(path: Path) -> Bodies:
    """What Python makes of a tar, and of the tars in it."""
    bodies: Bodies = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            is_hidden = is_litter(Path(member.name).name)
            if file is not None and member.name.endswith(".tar") and not is_hidden:
                inner = path.with_name("inner.tar")
                inner.write_bytes(file.read())
                bodies |= read_by_tarfile(inner)
            elif file is not None:
                assert member.name not in bodies
                bodies[member.name] = file.read()
    return bodies


def read_by_gnu_tar(path: Path) -> Bodies:
    """What GNU tar makes of it; only for what was not refused, since it makes links and devices."""
    folder = path.with_name("unpacked")
    folder.mkdir()
    words = ["tar", "-C", str(folder), "--no-same-owner", "-xf"]
    subprocess.run([*words, path], stderr=subprocess.DEVNULL, check=False)  # it warns of modes
    for inner in folder.rglob("*.tar"):
        if is_litter(inner.name):
            continue
        inner.rename(path.with_name("inner.tar"))
        subprocess.run(
            [*words, path.with_name("inner.tar")], stderr=subprocess.DEVNULL, check=False
        )
    bodies = tree(folder)
    shutil.rmtree(folder)
    return bodies


def _entries(archive: bytes) -> list[Entry]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return [
            Entry(member.name.encode(), tar.extractfile(member).read())  # type: ignore[union-attr]
            for member in tar
        ]


def _tar(change: Change, entries: list[Entry]) -> bytes:
    changed = change(list(entries))
    return changed if isinstance(changed, bytes) else packed(changed)


def _found(split: Split) -> dict[str, bytes]:
    """What scripts/fuzz found once, a line each: the split, and its bytes deflated, in base 85."""
    lines = [line.split() for line in _FOUND.read_text().splitlines()]
    return {
        f"found {number}": zlib.decompress(b85decode(words[1]))
        for number, words in enumerate(lines)
        if words[0] == split
    }


def _stream(body: bytes, start: int, end: int, archive: Archive) -> ChunkStream:
    whole = memoryview(body)
    spans = range(start, end, _CHUNK_BYTES)
    chunks = (whole[at : min(at + _CHUNK_BYTES, end)] for at in spans)
    return ChunkStream(chunks, start, name=archive.name)


_allowed: str | None = None
_PATHS_OF = {"os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.chmod": 1, "os.chown": 1}
_PATHS_OF |= {"os.truncate": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _allowed is None or not (event == "open" or event in _PATHS_OF):
        return
    if event == "open" and not (arguments[2] or 0) & _WRITES:
        return
    if isinstance(arguments[0], int) or (event in ("os.remove", "os.rmdir") and arguments[1] != -1):
        return  # of a folder that is open
    for path in arguments[: _PATHS_OF.get(event, 1)]:
        place = os.path.realpath(os.fsdecode(path))
        if not f"{place}/".startswith((f"{_allowed}/", "/dev/null/")):
            raise AssertionError(f"{event} of {place}")


sys.addaudithook(_watch)


@contextmanager
def _written_only_below(root: Path) -> Iterator[None]:
    """Nothing is opened to be written, made, renamed or removed elsewhere."""
    global _allowed
    root.mkdir()
    before = sorted(root.parent.iterdir())
    _allowed = str(root.resolve())
    try:
        yield
    finally:
        _allowed = None
    assert sorted(root.parent.iterdir()) == before


@contextmanager
def _in_time() -> Iterator[None]:
    def late(*_: Any) -> None:
        raise AssertionError(f"takes more than {_LONGEST_CASE_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_LONGEST_CASE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
