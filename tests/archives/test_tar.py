"""A tar is read to its end marker or refused, and nothing in it is trusted."""

import contextlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imnetprep.archives.tar import FileStream, members
from imnetprep.errors import WrongBytes

_NAMES = st.text("abcdefghij0123456789_.é", min_size=1, max_size=180).filter(
    lambda name: name not in (".", "..")
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


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/b", "a\\b", "..", "./../a", "./"])
def test_a_name_that_leaves_its_folder_is_refused(name: str) -> None:
    with pytest.raises(WrongBytes, match="leave its folder"):
        _read(_one(tarfile.REGTYPE, name) if name != "./" else _tar({"x/../..": b""}))


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
