"""A CRC put together from those of the parts is that of the whole."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imnetprep.digests import Checksum


@pytest.mark.parametrize("kind", ["crc32", "crc32c", "crc64nvme"])
@settings(deadline=None)
@given(parts=st.lists(st.binary(max_size=300), max_size=6))
def test_the_parts_make_the_whole(kind: str, parts: list[bytes]) -> None:
    if not Checksum.is_known(kind):
        pytest.skip("awscrt is not installed")
    together = Checksum.empty(kind)
    for part in parts:
        together = together.followed_by(Checksum.empty(kind).over(part))
    assert together == Checksum.empty(kind).over(b"".join(parts))


def test_crc32c_is_the_one_of_google() -> None:
    assert Checksum.empty("crc32c").over(b"123456789").value == 0xE3069283  # the check value


def test_crc32_is_the_one_of_zlib_and_of_s3() -> None:
    assert Checksum.empty("crc32").over(b"123456789").value == zlib.crc32(b"123456789")
    assert Checksum.parse("crc32", "y/Q5Jg==", 9).value == 0xCBF43926  # the check value of CRC-32
