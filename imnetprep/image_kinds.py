"""What kind of file an image is, or what else a file is that is none, by its first bytes."""

import re
from collections.abc import Sequence
from pathlib import Path

from imnetprep.messages import WrongUsage

# Those that are read, by Pillow's names: none that runs a program (EPS).
_READ = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    *((0, b"P%d" % number, "PPM") for number in range(1, 7)),
)
_OTHER_IMAGES = (
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"8BPS", "a Photoshop image"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"\x76\x2f\x31\1", "an OpenEXR image"),
    (0, b"#?RADIANCE", "a Radiance image"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw image"),
    (128, b"DICM", "a DICOM image"),
)
_NO_IMAGES = (
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"PK\3\4", "a zip archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file"),
    (4, b"ftyp", "a video"),
    (8, b"AVI ", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (0, b"\0\5\x16\7", "a companion file of macOS (AppleDouble)"),
    (0, b"version https://git-lfs", "a Git LFS pointer (`git lfs pull` fetches the image)"),
)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}


def kind_of(body: bytes) -> str | None:
    """Pillow's name for the kind of image that `body` begins as, where it is one that is read."""
    return _match(body, _READ) or ("AVIF" if _brands(body) & _AVIF_BRANDS else None)


def why_unread(body: bytes) -> str:
    """What a file is that is not read: "is empty", "is a TGA image, which is not read"."""
    if not body:
        return "is empty"
    head = body[:1000].lstrip(b"\xef\xbb\xbf \t\r\n")
    if image := _other_image(body, head):
        return f"is {image}"
    if thing := _match(body, _NO_IMAGES):
        return f"is {thing}, not an image"
    if not body.strip(b"\0"):
        return "is nothing but zeros, as a file whose bytes never reached the disk"
    if re.match(rb"<!doctype html|<html|<head", head, re.IGNORECASE):
        return "is a web page, not an image"
    if "".join(head.decode(errors="ignore").split()).isprintable() and head.isascii():
        return "is text, not an image"
    return "is not an image of a kind that is read"


def _other_image(body: bytes, head: bytes) -> str | None:
    if brands := _brands(body):
        if brands & _AVIF_BRANDS:
            return "an AVIF image, which Pillow reads from 11.3 on"
        if brands & _HEIC_BRANDS:
            return "a HEIC image, as phones make them: `heif-convert` makes a JPEG of it"
    kind = _match(body, _OTHER_IMAGES)
    if b"<svg" in head:
        kind = "an SVG drawing"
    if body.endswith(b"TRUEVISION-XFILE.\0"):
        kind = "a TGA image"
    return kind and f"{kind}, which is not read: convert it to JPEG or PNG"


def _brands(body: bytes) -> set[bytes]:
    """What an ISO media file (AVIF, HEIC, MP4) says it is; empty for any other."""
    end = min(int.from_bytes(body[:4]), 256) if body[4:8] == b"ftyp" else 0
    return {body[at : at + 4] for at in range(8, end, 4)}


def _match(body: bytes, kinds: Sequence[tuple[int, bytes, str]]) -> str | None:
    return next((kind for at, magic, kind in kinds if body.startswith(magic, at)), None)


def refuse_other_sheet(option: str, path: Path) -> None:
    """Raise WrongUsage where the file of a drawing is called otherwise than as a PNG or a JPEG."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise WrongUsage(
            f"{option} {path}: a sheet is a PNG or a JPEG",
            hint=f"{option} {path.with_suffix('.png')}, or .jpg",
        )
