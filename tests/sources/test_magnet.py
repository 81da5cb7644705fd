"""A magnet link is read in all its forms, and a bad one is told what is wrong with it."""

from urllib.parse import quote

import libtorrent as lt
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


_TRACKER = "udp://tracker.example.org:1337/announce"
_LINK = f"magnet:?xt=urn:btih:{_V1}&dn=val.tar&tr={quote(_TRACKER, safe='')}"


@pytest.mark.parametrize(
    "text",
    [
        f"  {_LINK}\r\n",
        f'"{_LINK}"',
        f"<{_LINK}>,",
        f"\u201c{_LINK}\u201d.",
        _LINK.replace("&", "&amp;"),
        _LINK.replace("&", "&#38;"),
        _LINK.replace("&", "&amp;amp;"),
        _LINK.replace("&", "\n  &"),
        _LINK.replace("?", "\\?").replace("=", "\\=").replace("&", "\\&"),
        _LINK.replace("magnet:?", "MAGNET:?"),
        _LINK.replace("magnet:?", "magnet://?"),
        _LINK.replace("urn:btih:", "urn%3Abtih%3A"),
        quote(_LINK, safe=""),
        quote(_LINK, safe=":&"),
    ],
    ids=[
        "spaces", "quoted", "in brackets", "of a text", "HTML", "HTML by number", "HTML twice",
        "of two lines", "escaped by a shell", "capitals", "two slashes", "its topic encoded",
        "all encoded", "half of it encoded",
    ],
)  # fmt: skip
def test_a_link_that_was_copied_is_the_one_that_was_written(text: str) -> None:
    magnet = parse_magnet(text)
    assert (magnet.v1, magnet.name) == (_V1, "val.tar")
    assert lt.parse_magnet_uri(magnet.uri).trackers == [_TRACKER]


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
