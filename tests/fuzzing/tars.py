"""Tars as an enemy or a bad disk would write them: what a header says of its member need not be so.

`CORPUS` holds the hand-made ones by name, `tars` draws others. Both start from the entries of a
right archive and do things to them.
"""

import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hypothesis import strategies as st

BLOCK = 512
END = bytes(2 * BLOCK)


class Entry(NamedTuple):
    """A header and what follows it; the fields are as they are written, and None what is right."""

    name: bytes
    body: bytes = b""
    type: bytes = b"0"
    size: bytes | None = None
    checksum: bytes | None = None
    prefix: bytes = b""
    link: bytes = b""
    magic: bytes = b"ustar\x0000"
    mode: bytes = b"0000644\0"
    rest: bytes = b""  # of the header, behind the prefix: where GNU's sparse map is
    flips: tuple[tuple[int, int], ...] = ()  # bits of the header, once all is written

    def packed(self) -> bytes:
        """Header, body and padding."""
        size = b"%011o\0" % len(self.body) if self.size is None else self.size
        fields = [(self.name, 100), (self.mode, 8), (b"0000000\0", 8), (b"0000000\0", 8)]
        fields += [(size, 12), (b"11765441000\0", 12), (b" " * 8, 8), (self.type, 1)]
        fields += [(self.link, 100), (self.magic, 8), (b"", 80), (self.prefix, 155)]
        header = bytearray(b"".join(value[:most].ljust(most, b"\0") for value, most in fields))
        header += bytes(BLOCK - len(header))
        header[BLOCK - len(self.rest) :] = self.rest
        header[148:156] = self.checksum or b"%06o\0 " % sum(header)
        for at, bit in self.flips:
            header[at] ^= 1 << bit
        return bytes(header) + self.body + bytes(-len(self.body) % BLOCK)


def packed(entries: Sequence[Entry], end: bytes = END) -> bytes:
    """The tar of these entries."""
    return b"".join(each.packed() for each in entries) + end


def record(key: bytes, value: bytes) -> bytes:
    """One record of a PAX header (POSIX.1-2001, pax Extended Header)."""
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return b"%d %s=%s\n" % (length, key, value)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> Entry:
    """A header extension; of kind g it speaks for all that follows."""
    return Entry(b"PaxHeader", b"".join(record(*each) for each in records), kind)


def long_name(name: bytes, kind: bytes = b"L") -> Entry:
    """GNU's: the name of the next member, or the target of its link, as a body."""
    return Entry(b"././@LongLink", name, kind)


def base_256(number: int, width: int = 12) -> bytes:
    """A number as GNU writes what has too many octal digits."""
    first = b"\x80" if number >= 0 else b"\xff"
    rest: int = number % 256 ** (width - 1)
    return first + rest.to_bytes(width - 1, "big")


Entries = list[Entry]
Change = Callable[[Entries], Entries | bytes]


def _first(**fields: bytes) -> Change:
    return lambda all_: [all_[0]._replace(**fields), *all_[1:]]  # type: ignore[arg-type]


def _last(**fields: bytes) -> Change:
    return lambda all_: [*all_[:-1], all_[-1]._replace(**fields)]  # type: ignore[arg-type]


def _before(*entries: Entry) -> Change:
    return lambda all_: [*entries, *all_]


def _between(*entries: Entry) -> Change:
    return lambda all_: [all_[0], *entries, *all_[1:]]


def _behind(*entries: Entry) -> Change:
    return lambda all_: [*all_, *entries]


def _raw(change: Callable[[bytes], bytes]) -> Change:
    return lambda all_: change(packed(all_))


def _named_by_pax(all_: Entries, **more: bytes) -> Entries:
    """Each member under another name, the right one in its extension."""
    return [
        entry
        for each in all_
        for entry in (
            pax((b"path", each.name), *((key.encode(), value) for key, value in more.items())),
            each._replace(name=b"x"),
        )
    ]


def _sized_by_pax(all_: Entries) -> Entries:
    return [
        entry
        for each in all_
        for entry in (pax((b"size", b"%d" % len(each.body))), each._replace(size=b"0" * 11 + b"\0"))
    ]


def _sparse_1_0(all_: Entries) -> Entries:
    """GNU's newest form: the map is the head of the body, the name and the size are in PAX."""
    first = all_[0]
    body = (b"1\n0\n%d\n" % len(first.body)).ljust(BLOCK, b"\0") + first.body
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")]
    records += [(b"GNU.sparse.name", first.name), (b"GNU.sparse.realsize", b"%d" % len(first.body))]
    return [pax(*records), first._replace(body=body), *all_[1:]]


def _sparse_0_1(all_: Entries) -> Entries:
    first = all_[0]
    numbers = b"0,%d" % len(first.body)
    records = [(b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", numbers)]
    records += [(b"GNU.sparse.size", b"%d" % (len(first.body) + 5000))]
    return [pax(*records), *all_]


def _sparse_old(all_: Entries, blocks: int = 1) -> Entries:
    first = all_[0]
    spans = b"".join(b"%011o\0%011o\0" % (0, len(first.body)) for _ in range(blocks)).ljust(96)
    real = b"\0%011o\0" % (len(first.body) + 70_000)
    rest = spans[:96] + real
    return [first._replace(type=b"S", magic=b"ustar  \0", rest=rest.ljust(126, b"\0")), *all_[1:]]


def _nested_deep(all_: Entries) -> Entries:
    body = all_[0].body
    for _ in range(40):
        body = packed([Entry(all_[0].name, body)])
    return [all_[0]._replace(body=body), *all_[1:]]


_SIZES = {
    "of seven octal digits": b"0000400\0",
    "of twelve octal digits": b"000000000400",
    "of twelve octal digits that are many": b"777777777777",
    "in blanks": b"        400 ",
    "that is empty": b"\0" * 12,
    "with a digit of ten": b"00000000900\0",
    "with an underscore": b"000000_0400\0",
    "with a prefix of Python's": b"0o000000400\0",
    "with a sign": b"+0000000400\0",
    "below zero in octal": b"-0000000400\0",
    "below zero in base 256": base_256(-BLOCK),
    "in base 256": base_256(BLOCK // 2),
    "of 2 to the 62": base_256(1 << 62),
    "of 2 to the 87": base_256((1 << 87) - 1),
    "just beyond the end": b"%011o\0" % 100_000,
    "with something behind it": b"00000000400x",
    "with a NUL in the middle": b"0000\x00000400",
    "in other digits": "٤٠٠".encode().ljust(12, b"\0"),
}
_NAMES = {
    "absolute": b"/etc/passwd",
    "upwards": b"../../../evil",
    "upwards behind a folder": b"a/../../evil",
    "of a DOS drive": b"C:\\evil",
    "with backslashes": b"..\\..\\evil",
    "that is empty": b"",
    "of one dot": b".",
    "of two dots": b"..",
    "of dots and slashes": b"./.././evil",
    "that starts with a hyphen": b"--checkpoint-action=exec=sh",
    "with a newline": b"a\nb.JPEG",
    "with an escape": b"\x1b]0;evil\x07.JPEG",
    "that is not UTF-8": b"\xff\xfe\xe9.JPEG",
    "in UTF-16": "n01440764_1.JPEG".encode("utf-16"),
    "in fullwidth letters": "ｎ01440764_1.JPEG".encode(),
    "in another normal form": unicodedata.normalize("NFD", "é.JPEG").encode(),
    "of the journal": b"journal.db",
    "of 100 bytes": b"n" * 100,
}


def _corpus() -> dict[str, Change]:
    corpus: dict[str, Change] = {"nothing wrong": lambda all_: all_}
    for what, size in _SIZES.items():
        corpus[f"a size {what}"] = _first(size=size)
        corpus[f"a last size {what}"] = _last(size=size)
    for what, name in _NAMES.items():
        corpus[f"a name {what}"] = _first(name=name)
        corpus[f"a folder's name {what}"] = _before(Entry(name, type=b"5"))
        corpus[f"a PAX name {what}"] = _before(pax((b"path", name)))
        corpus[f"a GNU name {what}"] = _before(long_name(name))
    for kind in b"12346789ABDEKLMNSVXZgx\0\xff":
        corpus[f"a member of type {bytes([kind])!r}"] = _between(
            Entry(b"a", b"", bytes([kind]), link=b"/etc/passwd")
        )
        corpus[f"the first is of type {bytes([kind])!r}"] = _first(
            type=bytes([kind]), link=b"../../../evil"
        )
    corpus |= {
        "a name in another case": lambda all_: [
            all_[0]._replace(name=all_[0].name.swapcase()),
            *all_[1:],
        ],
        "a name twice": lambda all_: [*all_, all_[0]],
        "a name twice in two cases": lambda all_: [
            *all_,
            all_[0]._replace(name=all_[0].name.lower()),
        ],
        "a name with a NUL behind it": lambda all_: [
            all_[0]._replace(name=all_[0].name + b"\0/../../evil"),
            *all_[1:],
        ],
        "a name with a slash behind it": lambda all_: [
            all_[0]._replace(name=all_[0].name + b"/"),
            *all_[1:],
        ],
        "a folder that has a sample's name": lambda all_: [
            Entry(all_[0].name + b"/", type=b"5"),
            *all_,
        ],
        "names with ./": lambda all_: [
            Entry(b"./", type=b"5"),
            *(each._replace(name=b"./" + each.name) for each in all_),
        ],
        "what a Mac leaves": lambda all_: [
            entry
            for each in all_
            for entry in (Entry(b"._" + each.name, b"\0\5\x16\7" + bytes(100)), each)
        ],
        "what a Mac leaves at both ends": lambda all_: [
            Entry(b".DS_Store", b"x" * 600),
            *all_,
            Entry(b"__MACOSX/._" + all_[-1].name, b"x"),
        ],
        "names in a folder": lambda all_: [
            Entry(b"top/", type=b"5"),
            *(each._replace(name=b"top/" + each.name) for each in all_),
        ],
        "names in folders, by backslashes": lambda all_: [
            each._replace(name=b"top\\sub\\" + each.name) for each in all_
        ],
        "a name twice, in two folders": lambda all_: [
            *all_,
            all_[0]._replace(name=b"again/" + all_[0].name),
        ],
        "a hidden symlink": _before(Entry(b"._a", b"", b"2", link=b"/tmp")),
        "a folder with a body": _before(Entry(b"folder/", b"x" * 700, b"5")),
        "a folder's name that is old": _before(Entry(b"folder/", b"", b"\0")),
        "a folder at the end": _behind(Entry(b"folder/", type=b"5")),
        "a prefix": _first(prefix=b"../../.."),
        "a prefix of a dot": _first(prefix=b"."),
        "a prefix that GNU's magic forbids": _first(prefix=b"evil", magic=b"ustar  \0"),
        "an older form without magic": _first(magic=b"", type=b"\0"),
        "a magic of nobody": _first(magic=b"evil\0\0\0\0"),
        "a mode that is no number": _first(mode=b"rw-r--r-"),
        "a setuid mode": _first(mode=b"0004777\0"),
        "a checksum of blanks": _first(checksum=b"        "),
        "a checksum of seven digits": _first(checksum=b"0012345\0"),
        "a checksum below zero": _first(checksum=b"-12345\0 "),
        "a checksum in base 256": _first(checksum=base_256(5000, 8)),
        "names by PAX": _named_by_pax,
        "names by PAX, hdrcharset binary": lambda all_: _named_by_pax(all_, hdrcharset=b"BINARY"),
        "names by GNU": lambda all_: [
            entry
            for each in all_
            for entry in (long_name(each.name + b"\0"), each._replace(name=b"x"))
        ],
        "sizes by PAX": _sized_by_pax,
        "a PAX size of many digits": _before(pax((b"size", b"9" * 5000))),
        "a PAX size below zero": _before(pax((b"size", b"-512"))),
        "a PAX size of nothing": _before(pax((b"size", b""))),
        "a PAX size in other digits": _before(pax((b"size", "٤".encode()))),
        "a PAX size that lies": _before(pax((b"size", b"3"))),
        "a PAX size of too much": _before(pax((b"size", b"%d" % (1 << 40)))),
        "a PAX path twice": _before(pax((b"path", b"../evil"), (b"path", b"evil"))),
        "two PAX headers": _before(pax((b"path", b"evil")), pax((b"path", b"evil2"))),
        "a PAX path and a GNU name": _before(pax((b"path", b"evil")), long_name(b"evil2")),
        "a GNU name and a PAX path": _before(long_name(b"evil2"), pax((b"path", b"evil"))),
        "a global path": _before(pax((b"path", b"evil"), kind=b"g")),
        "a global size": _before(pax((b"size", b"3"), kind=b"g")),
        "a global comment, as of git": _before(pax((b"comment", b"a" * 40), kind=b"g")),
        "a global header that is malformed": _before(Entry(b"g", b"9999 a=b", b"g")),
        "a PAX linkpath": _before(pax((b"linkpath", b"/etc/passwd"))),
        "a PAX header without a newline": _before(Entry(b"x", b"8 path=a", b"x")),
        "a PAX record without =": _before(Entry(b"x", b"7 path\n", b"x")),
        "a PAX record of no length": _before(Entry(b"x", b"0 path=a\n", b"x")),
        "a PAX record as long as itself": _before(Entry(b"x", b"2 1 path=a\n", b"x")),
        "a PAX record that is too long": _before(Entry(b"x", b"99 path=a\n", b"x")),
        "a PAX record of many digits": _before(Entry(b"x", b"9" * 9000 + b" path=a\n", b"x")),
        "a PAX header of nothing": _before(Entry(b"x", b"", b"x")),
        "a PAX header of many records": _before(Entry(b"x", b"4 =\n" * 250_000, b"x")),
        "a PAX header that says 8 GB": _before(Entry(b"x", b"", b"x", size=b"77777777777\0")),
        "a GNU name that says 8 GB": _before(Entry(b"x", b"", b"L", size=b"77777777777\0")),
        "a GNU name of a megabyte": _before(long_name(b"n" * 1_000_000)),
        "many PAX headers in a row": _before(*[pax((b"comment", b"c"))] * 300),
        "a PAX header and then the end": _behind(pax((b"path", b"evil"))),
        "a link's GNU target": _before(long_name(b"/etc/passwd", b"K")),
        "sparse, GNU 1.0": _sparse_1_0,
        "sparse, GNU 0.1": _sparse_0_1,
        "sparse, old GNU": _sparse_old,
        "a sparse map that overlaps itself": lambda all_: _sparse_old(all_, 4),
        "a symlink, then a file through it": _before(
            Entry(b"n01440764", b"", b"2", link=b"/tmp"), Entry(b"n01440764/evil", b"x")
        ),
        "a link to a sample": lambda all_: [
            *all_[:-1],
            all_[-1]._replace(body=b"", type=b"1", link=all_[0].name),
        ],
        "a tar in a tar in a tar": _nested_deep,
        "a tar of another kind behind it": _raw(lambda body: body + packed([Entry(b"evil", b"x")])),
        "two tars, one behind the other": _raw(lambda body: body + body),
        "two tars without an end between them": lambda all_: packed(all_, b"") + packed(all_),
        "no end": lambda all_: packed(all_, b""),
        "half an end": lambda all_: packed(all_, END[:BLOCK]),
        "an end that is cut": lambda all_: packed(all_, END[:100]),
        "nothing but an end": _raw(lambda body: END),
        "nothing": _raw(lambda body: b""),
        "a block of zeros in the middle": lambda all_: (
            packed(all_[:1], bytes(BLOCK)) + packed(all_[1:])
        ),
        "noise behind the end": _raw(lambda body: body + b"\xa5" * 777),
        "gzip's magic": _raw(lambda body: b"\x1f\x8b\x08\0" + body),
        "an HTML page": _raw(lambda body: b"<!DOCTYPE html><title>404</title>" + bytes(9999)),
        "nothing but 0xff": _raw(lambda body: b"\xff" * 4096),
    }
    for at in (1, 100, 511, 512, 513, 1000, 1024, 1025):
        corpus[f"cut at byte {at}"] = _raw(lambda body, at=at: body[:at])  # type: ignore[misc]
        corpus[f"cut {at} before its end"] = _raw(lambda body, at=at: body[:-at])  # type: ignore[misc]
    return corpus


CORPUS = _corpus()

_names = st.sampled_from([*_NAMES.values()]) | st.binary(max_size=120)
_records = st.tuples(
    st.sampled_from([b"path", b"size", b"linkpath", b"comment", b"GNU.sparse.name", b"hdrcharset"]),
    _names | st.sampled_from([b"%d" % number for number in (0, 1, 3, 700, 1 << 40)]),
)
_sizes = (
    st.sampled_from([*_SIZES.values()])
    | st.integers(0, 3000).map(lambda size: b"%011o\0" % size)
    | st.binary(min_size=12, max_size=12)
)
_types = st.binary(min_size=1, max_size=1) | st.sampled_from([b"0", b"\0", b"5", b"x", b"L"])
_bits = st.tuples(st.integers(0, BLOCK - 1), st.integers(0, 7))
_fields = st.one_of(
    _bits.map(lambda bit: {"flips": (bit,)}),
    _sizes.map(lambda size: {"size": size}),
    _names.map(lambda name: {"name": name}),
    _types.map(lambda kind: {"type": kind}),
    st.binary(max_size=8).map(lambda checksum: {"checksum": checksum}),
    st.binary(max_size=20).map(lambda prefix: {"prefix": prefix}),
    st.binary(max_size=900).map(lambda body: {"body": body}),
)
_strangers = st.one_of(
    st.tuples(st.lists(_records, max_size=3), st.sampled_from([b"x", b"g", b"X"])).map(
        lambda drawn: pax(*drawn[0], kind=drawn[1])
    ),
    st.tuples(_names, st.sampled_from([b"L", b"K"])).map(lambda drawn: long_name(*drawn)),
    st.tuples(st.just(b"x"), st.binary(max_size=60), st.sampled_from([b"x", b"g", b"L"])).map(
        lambda drawn: Entry(*drawn)
    ),
    st.tuples(_names, st.binary(max_size=600), _types, _sizes | st.none()).map(
        lambda drawn: Entry(*drawn)
    ),
)
_steps = st.one_of(
    st.tuples(st.just("field"), st.integers(0, 20), _fields),
    st.tuples(st.just("insert"), st.integers(0, 20), _strangers),
    st.tuples(st.just("rename"), st.integers(0, 20), st.sampled_from([b"x", b"L"])),
    st.tuples(
        st.sampled_from(["drop", "double", "corpus"]),
        st.integers(0, 20),
        st.integers(0, len(CORPUS) - 1),
    ),
)
_endings = st.one_of(
    st.just(END), st.just(END), st.binary(max_size=40), st.integers(0, 2100).map(bytes)
)
_cuts = st.none() | st.integers(0, 1 << 16)


@st.composite
def tars(draw: st.DrawFn, entries: Sequence[Entry]) -> bytes:
    """`entries` as a tar to which one to three things were done."""
    all_ = list(entries)
    for what, at, how in draw(st.lists(_steps, min_size=1, max_size=3)):
        at %= len(all_) or 1
        if what == "insert":
            all_.insert(at, how)
        elif what == "corpus":
            changed = [*CORPUS.values()][how](all_) if all_ else all_
            if isinstance(changed, bytes):
                return changed
            all_ = changed
        elif not all_:
            continue
        elif what == "field":
            all_[at] = all_[at]._replace(**how)
        elif what == "rename":
            name = all_[at].name
            all_[at] = all_[at]._replace(name=b"x")
            all_.insert(at, pax((b"path", name)) if how == b"x" else long_name(name))
        elif what == "drop":
            del all_[at]
        else:
            all_.append(all_[at])
    body = packed(all_, draw(_endings))
    cut = draw(_cuts)
    return body if cut is None else body[: cut % (len(body) + 1)]
