"""A zip gives the files that were put in, or is refused, whatever is in it."""

import io
import struct
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imnetprep.archives.ranges import Range
from imnetprep.archives.tar import FileStream
from imnetprep.archives.zip import Directory
from imnetprep.messages import WrongBytes

FILES = {f"folder/{at}.jpg": bytes([at]) * (50 * at) for at in range(6)}


def _zipped(*, method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as out:
        out.comment = comment
        for name, body in FILES.items():
            out.writestr(name, body)
    return file.getvalue()


def _read(body: bytes) -> dict[str, bytes]:
    def read_at(offset: int, length: int) -> bytes:
        assert length <= len(body) + (1 << 22), "no more is read than there can be"
        return body[offset : offset + length]

    def take(offset: int, length: int) -> bytes:
        if len(part := read_at(offset, length)) != length:
            raise WrongBytes("short", hint="")
        return part

    directory = Directory(take, len(body), name="a.zip", is_sample=lambda _, size: size < 1 << 20)
    section = directory.section(Range(0, directory.end, None), FileStream(take))
    return {member.name: bytes(section.take(member.size_bytes)) for member in section.members}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("comment", [b"", b"x" * 60_000])
def test_what_was_put_in_comes_out(method: int, comment: bytes) -> None:
    assert _read(_zipped(method=method, comment=comment)) == FILES


def test_backslashes_are_between_folders_and_litter_is_passed_over() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("folder\\", b"")
        for name, body in FILES.items():
            out.writestr(name.replace("/", "\\"), body)
            out.writestr(f"__MACOSX/{name.replace('/', '/._')}", b"\0\5\x16\7")
            out.writestr(name.replace("/", "\\._"), b"\0\5\x16\7")
    assert _read(file.getvalue()) == FILES


@pytest.mark.parametrize("name", ["..\\a", "a/../b", "\\a", "../._a"])
def test_a_path_that_leads_elsewhere_is_refused(name: str) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr(name, b"x")
    with pytest.raises(WrongBytes, match="would leave its folder"):
        _read(file.getvalue())


def test_a_streamed_zip_has_its_sizes_in_the_directory_alone() -> None:
    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

    file = Unseekable()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, body in FILES.items():
            out.writestr(name, body)
    assert _read(file.getvalue()) == FILES


def test_large_numbers_stand_in_the_zip64_fields() -> None:
    name, body = b"folder/0.jpg", b"some bytes"
    crc = zlib.crc32(body)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 0, crc, 2**32 - 1, 2**32 - 1, 12, 0)
    extra = struct.pack("<2H3Q", 1, 24, len(body), len(body), 0)
    full = 2**32 - 1
    entry = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 0, crc, full, full, 12, 28, 0, 0, 0, 0, full
    )
    directory, start = entry + name + extra, len(local) + 12 + len(body)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, full, full, 0)
    assert _read(local + name + body + directory + end64 + locator + end) == {"folder/0.jpg": body}


@given(st.data())
@settings(max_examples=600, deadline=None)
def test_no_damage_makes_other_files_of_it(data: st.DataObject) -> None:
    body = bytearray(_zipped(method=data.draw(st.sampled_from([0, 8]))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    length = data.draw(
        st.sampled_from([len(body), len(body), data.draw(st.integers(0, len(body)))])
    )
    try:
        found = _read(bytes(body[:length]))
    except WrongBytes:
        return
    for name, content in found.items():  # a directory may list fewer, or other names
        assert name not in FILES or content == FILES[name]
    assert all(content in FILES.values() for content in found.values())


@given(st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(WrongBytes):
        _read(body)
