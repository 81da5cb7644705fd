"""A magnet link is read in all its forms, and a bad one is told what is wrong with it."""

import pytest

from imnetprep.messages import WrongUsage
from imnetprep.sources.torrent import parse_magnet

_V1 = "5d6d0df7ed81efd49ca99ea4737e0ae5e3a5f2e5"
_V2 = "ab" * 32


def test_hex_and_base32_are_the_same_torrent() -> None:
    assert parse_magnet(f"magnet:?xt=urn:btih:{_V1}&dn=val.tar").v1 == _V1
    base32 = "lvwq357nqhx5jhfjt2shg7qk4xr2l4xf"
    assert parse_magnet(f"magnet:?xt=urn:btih:{base32}").v1 == _V1
    assert parse_magnet(f"magnet:?xt=urn:btih:{base32.upper()}").v1 == _V1


def test_v2_and_hybrid_links_are_read() -> None:
    assert parse_magnet(f"magnet:?xt=urn:btmh:1220{_V2}").v2 == _V2
    both = parse_magnet(f"magnet:?xt.1=urn:btih:{_V1}&xt.2=urn:btmh:1220{_V2}")
    assert (both.v1, both.v2) == (_V1, _V2)


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("https://example.org/a.torrent", "does not begin with magnet:"),
        ("magnet:?dn=val.tar", "has no xt=urn:btih"),
        (f"magnet:?xt=urn:btih:{_V1[:-1]}", "has 39 digits"),
        (f"magnet:?xt=urn:btih:{_V1[:-1]}g", "not hexadecimal"),
        ("magnet:?xt=urn:btih:" + "1" * 32, "not base32"),
        ("magnet:?xt=urn:ed2k:" + "0" * 32, "neither urn:btih"),
        (f"magnet:?xt=urn:btmh:1220{_V2[:-2]}", "64 hexadecimal digits"),
    ],
)
def test_a_bad_link_is_told_what_is_wrong(uri: str, told: str) -> None:
    with pytest.raises(WrongUsage, match=told):
        parse_magnet(uri)
