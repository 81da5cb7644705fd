"""Small datasets packed as others pack theirs: names, nesting and side files as published."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

Files = dict[str, bytes]


def picture(name: str) -> bytes:
    """Bytes of its own for every name; nothing decodes them."""
    return b"\xff\xd8" + name.encode() * 40 + b"\xff\xd9"


def openable(comment: str) -> bytes:
    """A JPEG by its header and its end, with nothing between them; its comment is its own."""
    text, size = comment.encode(), b"\xff\xc0\0\x0b\x08\0\x08\0\x08\x01\x01\x11\0"
    start = b"\xff\xd8\xff\xfe" + (2 + len(text)).to_bytes(2) + text
    return start + size + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0\0\xff\xd9"


def write_tar(path: Path, files: Files, *, mode: str = "w:gz") -> Path:
    """As `tar -czf` writes folders: each with an entry of its own, before what is in it."""
    folders: set[str] = set()
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, body in files.items():
            parents = [str(each) for each in Path(name).parents][:-1]
            for folder in reversed([each for each in parents if each not in folders]):
                info = tarfile.TarInfo(folder)
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
                folders.add(folder)
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return path


def write_zip(path: Path, files: Files, *, packed: bool = False) -> Path:
    """As `zip -r` writes folders; JPEGs are stored, or deflated where `packed`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as out:
        for folder in sorted({str(each) for name in files for each in Path(name).parents} - {"."}):
            out.writestr(f"{folder}/", b"")
        for name, body in files.items():
            out.writestr(name, body)
    return path


def write_dataset(folder: Path, text: str, lists: Iterable[tuple[str, str]]) -> Path:
    """A user's definition and its lists, beside each other."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in lists:
        (folder / name).write_text(body)
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def cifar_batch(labels: list[int], planes: bytes, *, names: str) -> bytes:
    """One of CIFAR-10's pickles, instruction by instruction as Python 2 wrote them."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09"
        b"(K\x01" + number(len(labels)) + number(3072) + b"\x86"
        b"cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b"
        b"(K\x03U\x01|NNN" + number(-1) + number(-1) + b"K\x00tb\x89"
        b"T" + struct.pack("<i", len(planes)) + planes + b"tb"
    )
    files = b"".join(text(f"{names}_{at}.png") for at in range(len(labels)))
    return (
        b"\x80\x02}q\x01("
        + text("batch_label") + text(names)
        + text("labels") + b"]q\x05(" + b"".join(b"K" + bytes([each]) for each in labels) + b"e"
        + text("data") + array
        + text("filenames") + b"](" + files + b"eu."
    )  # fmt: skip
