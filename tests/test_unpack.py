"""A zip of images is unpacked whole or not at all, and never outside its folder."""

import io
import shutil
import stat
import struct
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from imnetprep import api
from imnetprep.archives.zip import Directory
from imnetprep.messages import ImnetprepError, WrongBytes
from imnetprep.own_images import unpack

_NAMES = ("PetImages/Cat/1.jpg", "PetImages/Dog/1.jpg", "Größe/读我.txt")


def _zip(path: Path, *names: str, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name in names:
            file.writestr(name, name.encode() * 1000)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_each_file_lies_where_the_zip_says(method: int, tmp_path: Path) -> None:
    folder = api.unpack(_zip(tmp_path / "a.zip", *_NAMES, method=method), tmp_path / "a")
    bodies = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert bodies == {name: name.encode() * 1000 for name in _NAMES}


def test_a_folder_that_is_there_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = _zip(tmp_path / "a.zip", *_NAMES)
    folder = api.unpack(archive, tmp_path / "a")
    (folder / _NAMES[0]).unlink()
    api.unpack(archive, folder)
    assert not (folder / _NAMES[0]).exists()
    assert "not unpacked again" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names", [("../out.jpg",), ("/out.jpg",), ("a/../../out.jpg",), ("..\\out.jpg",)]
)
def test_nothing_is_written_outside_the_folder(names: tuple[str, ...], tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", "a/1.jpg", *names)
    with pytest.raises(WrongBytes, match="would leave its folder"):
        api.unpack(archive, tmp_path / "in" / "a")
    assert not (tmp_path / "in" / "a").exists()
    assert not [*tmp_path.rglob("*.jpg")]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a", "a")])
def test_two_files_of_one_place_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(WrongBytes, match="is there twice"):
        api.unpack(_zip(tmp_path / "a.zip", *names), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc")
        file.writestr("link/1.jpg", b"body")
    with pytest.raises(WrongBytes, match="is a link"):
        api.unpack(tmp_path / "a.zip", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_damaged_zip_leaves_no_folder(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", *_NAMES, method=zipfile.ZIP_STORED)
    body = bytearray(archive.read_bytes())
    body[5000] ^= 1
    archive.write_bytes(body)
    with pytest.raises(WrongBytes, match="has a wrong CRC"):
        api.unpack(archive, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert not [*tmp_path.glob(".a.unpacking/*")]


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"<html>" * 100)
    with pytest.raises(WrongBytes, match="is no zip"):
        api.unpack(tmp_path / "a.zip", tmp_path / "a")


def test_a_zip_that_the_disk_has_no_room_for_is_refused_before_a_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", ("total", "used", "free"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 0))
    zeros = io.BytesIO()
    with zipfile.ZipFile(zeros, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros.jpg", bytes(10 << 20))
    (tmp_path / "a.zip").write_bytes(zeros.getvalue())
    with pytest.raises(ImnetprepError, match=r"10\.5 MB unpacked, needs"):
        api.unpack(tmp_path / "a.zip", tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("mark", "offset", "value", "why"),
    [
        (b"PK\5\6", 10, b"\1\0", "it lists 2 members and counts 1"),
        (b"PK\1\2", 42, b"\xf0\xff\xff\0", "lies past its end"),
    ],
)
def test_a_directory_that_hides_a_member_is_refused(
    mark: bytes, offset: int, value: bytes, why: str, tmp_path: Path
) -> None:
    archive = _zip(tmp_path / "a.zip", *_NAMES[:2])
    body = bytearray(archive.read_bytes())
    at = body.rindex(mark) + offset
    body[at : at + len(value)] = value
    archive.write_bytes(body)
    with pytest.raises(WrongBytes, match=why):
        api.unpack(archive, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_count_of_16_bits_may_have_wrapped(tmp_path: Path) -> None:
    """As some programs write it of 65,536 members and more."""
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(65_540):
            file.writestr(f"{number}.txt", b"")
    body = archive.read_bytes()
    at = body.rindex(b"PK\6\6")
    size, start = struct.unpack_from("<2Q", body, at + 40)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 4, 4, size, start, 0)
    archive.write_bytes(body[:at] + end)
    directory = Directory(
        lambda place, length: archive.read_bytes()[place : place + length],
        archive.stat().st_size, name="a.zip", is_sample=lambda _path, _bytes: True,
    )  # fmt: skip
    assert len(directory._starts) == 65_540


def test_a_member_that_no_memory_should_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "_MOST_BYTES", 100)
    with pytest.raises(WrongBytes, match="which is no image"):
        api.unpack(_zip(tmp_path / "a.zip", *_NAMES), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_archive_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImnetprepError, match="there is no file"):
        api.unpack(tmp_path / "none.zip", tmp_path / "a")
