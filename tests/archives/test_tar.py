"""A tar is read to its end marker or refused, and nothing in it is trusted."""

import contextlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imnetprep.archives.tar import FileStream, members
from imnetprep.messages import WrongBytes
from tests.fuzzing.tars import Entry, packed, pax

_NAMES = st.text("abcdefghij0123456789_.é", min_size=1, max_size=180).filter(
    lambda name: name[0] != "."  # hidden files are passed over
)


def _tar(contents: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, body in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            info.mtime = 1.5  # makes the pax form write extended headers
            tar.addfile(info, io.BytesIO(body))
    return file.getvalue()


def _one(kind: bytes, name: str = "a", link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info.tobuf() + bytes(1024)


def _read(archive: bytes) -> dict[str, bytes]:
    stream = FileStream(lambda offset, length: archive[offset : offset + length])
    return {
        member.name: bytes(stream.take(member.size_bytes))
        for member in members(stream, name="test.tar", end=len(archive))
    }


@given(
    contents=st.dictionaries(_NAMES, st.binary(max_size=1500), max_size=6),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_reads_what_python_wrote(contents: dict[str, bytes], form: int) -> None:
    assert _read(_tar(contents, form)) == contents


@given(st.data())
def test_a_cut_anywhere_is_refused(data: st.DataObject) -> None:
    archive = _tar({"a": b"x" * 700, "b": b"", "c": b"y" * 512})
    contents_end = 512 + 1024 + 512 + 512 + 512
    cut = data.draw(st.integers(0, contents_end))
    with pytest.raises(WrongBytes, match="truncated"):
        _read(archive[:cut])


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "..\\a", "..", "./../a", "a/../._b", "./"])
def test_a_name_that_leaves_its_folder_is_refused(name: str) -> None:
    with pytest.raises(WrongBytes, match="leave its folder"):
        _read(_one(tarfile.REGTYPE, name) if name != "./" else _tar({"x/../..": b""}))


@pytest.mark.parametrize("name", ["a/b", "a\\b", "./b", "x/y\\b"])
def test_a_folder_in_front_of_a_name_is_passed_over(name: str) -> None:
    assert _read(_tar({name: b"body"})) == {"b": b"body"}


def test_what_a_mac_and_windows_leave_beside_files_is_passed_over() -> None:
    litter = ["._a", ".DS_Store", "__MACOSX/._a", "Thumbs.db", "x/desktop.ini", ".hidden/b"]
    contents = dict.fromkeys(litter, b"left")
    assert _read(_tar({**contents, "a": b"body", "._z": b""})) == {"a": b"body"}


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_a_link_or_device_is_refused_by_name(kind: bytes) -> None:
    with pytest.raises(WrongBytes, match=r"member 'a' is (a link|not a regular file)"):
        _read(_one(kind, link="/etc/passwd"))


def test_a_size_below_zero_is_refused() -> None:
    header = bytearray(_one(tarfile.REGTYPE))
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"  # base-256: -512
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    with pytest.raises(WrongBytes, match="has -512 bytes"):
        _read(bytes(header))


@pytest.mark.parametrize(
    ("size", "read"),
    [
        (b"00000000014\0", 12),
        (b"000000000014", 12),
        (b"          14", 12),
        (b"\x80" + bytes(10) + b"\x0c", 12),
        (b"000000000_14", None),
        (b"0o000000014\0", None),
        (b"+0000000014\0", None),
        (b"00000000014x", None),
    ],
)
def test_a_size_is_what_gnu_tar_takes_for_one(size: bytes, read: int | None) -> None:
    body = Entry(b"a", b"b" * 12, size=size).packed() + bytes(1024)
    if read is None:
        with pytest.raises(WrongBytes):
            _read(body)
    else:
        assert _read(body) == {"a": b"b" * read}


def test_a_checksum_that_is_off_by_the_modulus_is_refused() -> None:
    right = Entry(b"a").packed()
    total = int(right[148:154], 8)
    wrong = Entry(b"a", checksum=b"%06o\0 " % (total + 65521)).packed()
    with pytest.raises(WrongBytes, match="bad checksum"):
        _read(wrong + bytes(1024))


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (pax((b"path", b"x"), kind=b"g"), "gives one path to all members"),
        (pax((b"GNU.sparse.map", b"0,1")), "is sparse"),
        (Entry(b"folder/", b"x", b"5"), "has a body of 1 bytes"),
        (Entry(b"../folder/", b"", b"5"), "would leave its folder"),
        (Entry(b"x", b"8 path=a", b"x"), "malformed"),
    ],
)
def test_what_others_read_otherwise_is_refused(before: Entry, told: str) -> None:
    with pytest.raises(WrongBytes, match=told):
        _read(packed([before, Entry(b"a", b"b")]))


def test_a_megabyte_of_records_is_read_at_once() -> None:
    many = Entry(b"x", b"4 =\n" * 250_000, b"x")
    with pytest.raises(WrongBytes, match="malformed"):
        _read(packed([many, Entry(b"a", b"b")]))
    assert _read(packed([many._replace(body=b"6 k=v\n" * 150_000), Entry(b"a", b"b")])) == {
        "a": b"b"
    }


def test_noise_is_refused() -> None:
    with pytest.raises(WrongBytes, match="no tar header at byte 0"):
        _read(b"\x89PNG" * 600)


def test_a_folder_entry_makes_nothing() -> None:
    assert _read(_one(tarfile.DIRTYPE, "folder")) == {}


@given(st.binary(max_size=300))
def test_a_malformed_extension_is_refused_or_read(body: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    header = info.tobuf() + body + bytes(-len(body) % 512)
    with contextlib.suppress(WrongBytes):
        assert list(_read(header + _tar({"a": b"b"}))) != []
