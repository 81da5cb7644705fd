"""Whatever is wrong with a tar, what lies between two of its bytes is named or passed over."""

import io
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st

from imnetprep.archives.damaged_tar import Stretch, members_between


def _tar(names: list[str], body: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return file.getvalue()


IMAGES = [f"a_{number}.JPEG" for number in range(20)]
WHOLE = _tar(["a.tar", "b.tar"], _tar(IMAGES, b"x" * 1500))


def _between(body: bytes, start: int, end: int) -> list[Stretch]:
    known = {*IMAGES, "a.tar", "b.tar"}
    return list(
        members_between(
            lambda offset, length: body[offset : offset + length],
            start,
            end,
            is_member=known.__contains__,
        )
    )


def test_in_a_whole_tar_every_image_is_named_once_and_nothing_is_unknown() -> None:
    assert [each.name for each in _between(WHOLE, 0, len(WHOLE))] == IMAGES * 2


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=700))),
    st.integers(0, len(WHOLE)),
    st.integers(0, len(WHOLE)),
    st.integers(1, len(WHOLE) * 2),
)
def test_any_damage_is_survived_and_no_name_is_made_up(
    damage: list[tuple[int, bytes]], size_bytes: int, start: int, length: int
) -> None:
    body = bytearray(WHOLE)
    for at, wrong in damage:
        body[at : at + len(wrong)] = wrong
    found = _between(bytes(body[:size_bytes]), start, start + length)
    assert {each.name for each in found} <= {*IMAGES, ""}
    assert all(each.end > start and each.start < start + length for each in found)
    starts = [each.start for each in found]
    assert starts == sorted(set(starts))
