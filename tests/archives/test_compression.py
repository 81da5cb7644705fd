"""Compressed streams come out as they went in, however they are cut, or are refused."""

import gzip
import lzma
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imnetprep.archives.chunk_stream import ChunkStream
from imnetprep.archives.compression import decompressed
from imnetprep.messages import WrongBytes

PACK: dict[str, Callable[[bytes], bytes]] = {"tar.gz": gzip.compress, "tar.xz": lzma.compress}


def _chunks(body: bytes, size: int) -> Iterator[memoryview]:
    return (memoryview(body[at : at + size]) for at in range(0, len(body), size))


def _out(body: bytes, form: str, size: int = 1 << 16) -> bytes:
    return b"".join(decompressed(_chunks(body, size), form=form, name="a"))


@pytest.mark.parametrize("form", PACK)
@given(bodies=st.lists(st.binary(max_size=2000), min_size=1, max_size=4), size=st.integers(1, 999))
@settings(max_examples=100, deadline=None)
def test_streams_that_follow_each_other_and_zeros_behind(
    form: str, bodies: list[bytes], size: int
) -> None:
    packed = b"".join(map(PACK[form], bodies))
    assert _out(packed, form, size) == b"".join(bodies)
    assert _out(packed + bytes(512), form, size) == b"".join(bodies)


@pytest.mark.parametrize("form", PACK)
def test_a_read_that_ends_in_a_header_or_a_trailer_is_not_the_end(form: str) -> None:
    packed = PACK[form](b"x" * 700) + PACK[form](b"y" * 700)
    for cut in range(1, len(packed)):
        chunks = iter([memoryview(packed[:cut]), memoryview(packed[cut:])])
        stream = ChunkStream(decompressed(chunks, form=form, name="a"), 0, name="a")
        assert bytes(stream.take(1400)) == b"x" * 700 + b"y" * 700
        assert stream.drain(0)
        assert next(chunks, None) is None, "what lies behind is looked at too"


@pytest.mark.parametrize("form", PACK)
def test_a_bomb_comes_in_small_pieces(form: str) -> None:
    bomb = PACK[form](bytes(40 << 20))
    pieces = decompressed(_chunks(bomb, len(bomb)), form=form, name="a")
    assert max(map(len, pieces)) <= 1 << 20


@pytest.mark.parametrize("form", PACK)
@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damage_is_told(form: str, data: st.DataObject) -> None:
    body = bytes(range(256)) * 20
    packed = bytearray(PACK[form](body))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        assert _out(bytes(packed), form) == body  # a gzip header's time and system say nothing
    except WrongBytes:
        return


@pytest.mark.parametrize("form", PACK)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_stream_that_ends_early_is_truncated(form: str, share: float) -> None:
    packed = PACK[form](bytes(range(256)) * 20)
    with pytest.raises(WrongBytes, match="is truncated"):
        _out(packed[: int(len(packed) * share)], form)


def test_what_follows_that_is_no_stream_is_told() -> None:
    with pytest.raises(WrongBytes, match=r"is no gz file"):
        _out(gzip.compress(b"x") + b"junk", "tar.gz")
