"""A tar is written to the byte as Python's tarfile writes it, whatever the sizes."""

import io
import tarfile

import pytest

from imnetprep.archives.tar_writing import ending, header, padding


@pytest.mark.parametrize("sizes", [[], [0], [1, 511, 512, 513], [8191], [8192], [8193] * 3])
def test_it_is_what_tarfile_writes(sizes: list[int]) -> None:
    wanted = io.BytesIO()
    written = b""
    with tarfile.open(fileobj=wanted, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, size_bytes in enumerate(sizes):
            body = bytes([number + 1]) * size_bytes
            info = tarfile.TarInfo(f"{number}.JPEG")
            info.size, info.mtime = size_bytes, 1_339_632_000
            tar.addfile(info, io.BytesIO(body))
            written += header(info.name, size_bytes, mtime_s=1_339_632_000) + body
            written += padding(size_bytes)
    assert written + ending(len(written)) == wanted.getvalue()
