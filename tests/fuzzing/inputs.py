"""What is read beside archives: tables, links and databases that others can write.

Each reader takes any bytes, and either reads them or raises ImnetprepError.
"""

import contextlib
import itertools
import json
import string
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import libtorrent as lt
from hypothesis import strategies as st

from imnetprep.archives.file import LocalFile
from imnetprep.archives.range_index import format_index, parse_index
from imnetprep.archives.ranges import plan_ranges
from imnetprep.archives.tar import _parse_header
from imnetprep.catalog.datasets import DEFINITION, Root, Split, load_dataset, parse_dataset
from imnetprep.catalog.subsets import SubsetList, subset_of
from imnetprep.manifest import dataset_for, open_manifest, organized_splits
from imnetprep.messages import ImnetprepError
from imnetprep.proving.receipt import archive_proof, read_receipt, record_split
from imnetprep.sources.torrent import parse_magnet, pieces_of, read_torrent
from tests.fuzzing.tars import Entry, _fields


class Input(NamedTuple):
    """What is drawn, and what reads it."""

    drawn: st.SearchStrategy[Any]
    read: Callable[[Any], None]

    def check(self, drawn: Any) -> bool:
        """Is it read? Any error but our own goes through, with the case as note."""
        try:
            self.read(drawn)
        except ImnetprepError as error:
            assert error.hint
            return False
        except Exception as error:
            error.add_note(f"the case: {drawn!r}")
            raise
        return True


_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from([10**30, -1, 1 << 63, "n01440764", "../x", "train", "\udcff"]),
)  # fmt: skip
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
_not_json = st.binary(max_size=60) | st.sampled_from([b"[" * 200_000, b"9" * 5000, b'{"a":1e999}'])


@st.composite
def _changed(draw: st.DrawFn, value: Any) -> Any:
    """`value` with another value somewhere in it, or without something."""
    if not isinstance(value, list | dict) or not value or draw(st.integers(0, 5)) == 0:
        return draw(_values)
    value = value.copy()
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = draw(st.sampled_from(keys))
    if draw(st.integers(0, 9)) == 0:
        del value[key]
    else:
        value[key] = draw(_changed(value[key]))
    return value


def _json(value: Any) -> st.SearchStrategy[bytes]:
    """JSON that is nearly `value`, or anything."""
    return _changed(value).map(lambda table: json.dumps(table).encode()) | _not_json


@st.composite
def _flipped(draw: st.DrawFn, body: bytes) -> bytes:
    """`body` with some bytes overwritten, cut out, or cut off."""
    new = bytearray(body)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(new)))
        patch = draw(st.binary(max_size=8) | st.just(b"\xff" * 4))
        new[at : at + draw(st.sampled_from([len(patch), len(patch), 0, 40]))] = patch
    cut = draw(st.none() | st.none() | st.integers(0, len(new)))
    return bytes(new) if cut is None else bytes(new[:cut])


def inputs(packed: Path, organized: Path, folder: Path) -> dict[str, Input]:
    """The readers by name; `packed` is a dataset's TOML, `organized` a root of it."""
    return {
        "header": Input(
            _fields.map(lambda fields: Entry(b"a", b"b" * 700)._replace(**fields)), _header
        ),
        "index": _index(packed),
        "magnet": Input(_magnets, _magnet),
        "torrent": Input(_torrents(), _torrent),
        "receipt": _receipt(organized, folder),
        "manifest": _manifest(organized, folder),
        "definition": _definition(packed),
    }


def _header(entry: Entry) -> None:
    """The fast path reads what tarfile reads, and tarfile's path is strict where Python is not."""
    header = entry.packed()[:512]
    ours = _parse_header(header, "test.tar", 0)
    try:
        theirs = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:  # over a mode, an owner or a date, which are nothing to us
        rest = bytearray(header)
        rest[100:124], rest[136:148], rest[329:345] = bytes(24), bytes(12), bytes(16)
        rest[148:156] = b" " * 8
        rest[148:156] = b"%06o\0 " % sum(rest)
        theirs = tarfile.TarInfo.frombuf(bytes(rest), "utf-8", "surrogateescape")
    assert ours == (theirs.name, theirs.size, theirs.type)


def _index(packed: Path) -> Input:
    dataset = load_dataset(str(packed))
    archive = dataset.archive(Split.TRAIN)
    file = LocalFile(packed.parent / archive.name)
    planned = plan_ranges(archive, dataset, size_bytes=file.size_bytes or 0, read_at=file.read_at)
    right = json.loads(format_index(planned, of=file))

    def read(body: bytes) -> None:
        for each in parse_index(body, archive, dataset, of=file):
            assert type(each.start) is type(each.end) is int
            assert 0 <= each.start < each.end <= (file.size_bytes or 0)

    return Input(_json(right), read)


_hashes = st.text(string.hexdigits, min_size=40, max_size=40) | st.sampled_from(
    ["aa bb" * 8, "ı" * 32, "ß" * 16, "A" * 32, "%00" * 20, "1220" + "ab" * 32, "１" * 40]
)
_right = st.text("0123456789abcdefABCDEF", min_size=40, max_size=40)
_magnets = (
    st.text(max_size=60)
    | st.builds(
        "magnet:?xt=urn:btih:{}&{}={}".format,
        _right,
        st.sampled_from(["dn", "tr", "ws", "x.pe", "so", "xt", "kt"]),
        st.text(max_size=20)
        | st.sampled_from(["udp://[", "1.2.3.4:99999", "0-99999999999", "http://[::1"]),
    )
    | st.builds(
        "{}:{}?{}={}:{}&{}={}".format,
        st.sampled_from(["magnet", "magnet", "MAGNET", "http", "magnet://[", "magnet:"]),
        st.sampled_from(["", "", "//[::1", "//x", "?"]),
        st.sampled_from(["xt", "xt.1", "xt.²", "dn"]),
        st.sampled_from(["urn:btih", "urn:btmh", "urn:sha1"]),
        _hashes | st.text(max_size=45),
        st.sampled_from(["dn", "tr", "ws", "x.pe", "so", "xt"]),
        st.text(max_size=20) | st.sampled_from(["udp://[", "1.2.3.4:99999", "0-99999999999"]),
    )
)


def _magnet(text: str) -> None:
    magnet = parse_magnet(text)
    assert all(
        each is None or len(bytes.fromhex(each)) == n
        for each, n in ((magnet.v1, 20), (magnet.v2, 32))
    )
    hashes = lt.parse_magnet_uri(magnet.uri).info_hashes
    assert magnet.v1 is None or str(hashes.v1) == magnet.v1


def _torrents() -> st.SearchStrategy[bytes]:
    info = {b"name": b"a.tar", b"piece length": 16384, b"length": 40_000, b"pieces": bytes(60)}
    several = {key: value for key, value in info.items() if key != b"length"}
    several[b"files"] = [
        {b"length": 20_000, b"path": [b"..", b"\xff"]},
        {b"length": 20_000, b"path": [b"b"]},
    ]
    bodies = [
        bytes(lt.bencode({b"info": each, b"announce": b"udp://x"})) for each in (info, several)
    ]
    values = st.sampled_from(
        [0, -1, 1 << 62, b"", b"..", b"\xff\xfe", b"a/b", [], {}, 1 << 31, b"p" * 40]
    )
    changed = st.tuples(
        st.sampled_from([info, several]),
        st.sampled_from([*info, b"meta version", b"private", b"files"]),
        values,
    )
    rewritten = changed.map(
        lambda drawn: bytes(lt.bencode({b"info": {**drawn[0], drawn[1]: drawn[2]}}))
    )
    return st.sampled_from(bodies).flatmap(_flipped) | rewritten | st.binary(max_size=80)


def _torrent(body: bytes) -> None:
    torrent = read_torrent(body)
    for file in torrent.files:
        assert "/" not in file.name and file.size_bytes >= 0
    pieces = pieces_of(body)
    if pieces is not None:
        assert 0 <= pieces.count * pieces.length_bytes - pieces.size_bytes < pieces.length_bytes
    torrent.params()


def _receipt(organized: Path, folder: Path) -> Input:
    root = Root(folder / "receipt")
    root.archives.mkdir(parents=True)
    (root.archives / "a.tar").write_bytes(b"a")
    record = json.loads((organized / "receipt.json").read_text())
    record["archives"] = {"a.tar": {"size_bytes": 1, "proof": {"kind": "md5", "digest": "0"}}}

    def read(body: bytes) -> None:
        root.receipt.write_bytes(body)
        for split in read_receipt(root)["splits"].values():
            split.get("proof")
        proof = archive_proof(root, root.archives / "a.tar")
        assert proof is None or proof.describe()
        record_split(root, "val", archive="a.tar", proof={"kind": "none", "why": "nothing"})

    return Input(_json(record), read)


def _manifest(organized: Path, folder: Path) -> Input:
    root = Root(folder / "manifest")
    (root.path / "train").mkdir(parents=True)

    def read(body: bytes) -> None:
        root.manifest.write_bytes(body)
        with contextlib.suppress(FileNotFoundError):
            root.path.joinpath("manifest.db-journal").unlink()
        dataset_for(root.manifest, None)
        organized_splits(root)
        with open_manifest(root.manifest) as manifest:
            for held in manifest.splits().values():
                for _, columns in manifest.columns(held):
                    assert columns.names.decode().count("\0") == columns.samples
            for held, synset in itertools.product(manifest.splits().values(), manifest.synsets()):
                for sample in manifest.samples(held, synset.label):
                    assert set(map(type, sample[:3])) == {int, str} and len(sample.xxh128) == 16
                    assert not {"/", "\\", "\0"} & {*sample.name}

    return Input(_flipped((organized / "manifest.db").read_bytes()), read)


def _definition(packed: Path) -> Input:
    whole = load_dataset(str(packed))
    part = subset_of(whole, SubsetList("two", [("", each.wnid) for each in whole.synsets[:2]]))
    words = st.sampled_from(
        [
            *('"x"', "-1", "1.5", "[]", "{}", "true", '""', "9" * 30, '"../x"', '"a.gz"', '"test"'),
            *('"whole"', '"cifar10"'),
            *('"{wnid}{number}"', '"{number}{x}"', '"{wnid}/{number}"', '"{number:099999999999}"'),
            '"{number}{number:>9999999999}"',
        ]
    )

    @st.composite
    def changed(draw: st.DrawFn) -> dict[str, bytes]:
        files = draw(st.sampled_from([whole, part])).definition()
        new, name = dict(files), draw(st.sampled_from([*files]))
        if name.endswith(DEFINITION) and draw(st.booleans()):
            lines = files[name].decode().splitlines()
            at = draw(st.sampled_from([at for at, line in enumerate(lines) if " = " in line]))
            lines[at] = f"{lines[at].split(' = ')[0]} = {draw(words)}"
            return new | {name: "\n".join(lines).encode()}
        return new | {name: draw(_flipped(files[name]))}

    def read(files: dict[str, bytes]) -> None:
        dataset = parse_dataset(lambda name: files.get(name, b"\x1f\x8b"))
        dataset.definition()
        for archive in dataset.archives:
            f"{archive.size_bytes or 0:,}"
            assert all(isinstance(digest, str) for digest in archive.digests.values())
        for split in dataset.splits:
            dataset.preload(split)
            assert dataset.samples(split) >= 0
            for label in range(len(dataset.synsets)):
                for name in itertools.islice(dataset.names(split, label) or (), 5):
                    assert "/" not in name and dataset.label_of(split, name) is not None
            assert sum(dataset.counts(split)) >= 0

    return Input(changed(), read)
