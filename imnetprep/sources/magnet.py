"""Magnet links, parsed strictly: a mistyped one is refused with what is wrong in it (BEP 9)."""

import base64
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from imnetprep.messages import WrongUsage


@dataclass(frozen=True)
class Magnet:
    """A magnet link: the info-hashes as hex (v1 SHA-1, v2 SHA-256), and the link itself."""

    v1: str | None
    v2: str | None
    name: str
    uri: str


def parse_magnet(text: str) -> Magnet:
    """The magnet link in `text`. Raises WrongUsage that says what is wrong with it."""
    uri = text.strip()
    if not uri.startswith("magnet:?"):
        raise _bad(uri, "it does not begin with magnet:?")
    fields = parse_qsl(urlsplit(uri).query)
    topics = [value for key, value in fields if re.fullmatch(r"xt(\.\d+)?", key)]
    if not topics:
        raise _bad(uri, "it has no xt=urn:btih:… with an info-hash")
    v1 = v2 = None
    for topic in topics:
        kind, _, value = topic.rpartition(":")
        if kind == "urn:btih":
            v1 = _v1(uri, value)
        elif kind == "urn:btmh":
            v2 = _v2(uri, value)
        else:
            raise _bad(uri, f"xt={topic} is neither urn:btih (v1) nor urn:btmh (v2)")
    return Magnet(v1=v1, v2=v2, name=dict(fields).get("dn", v1 or v2 or ""), uri=uri)


def _v1(uri: str, value: str) -> str:
    """Forty hexadecimal or thirty-two base32 digits, as forty hexadecimal ones."""
    if len(value) not in (32, 40):
        raise _bad(uri, f"its info-hash has {len(value)} digits, not 40 (hex) or 32 (base32)")
    if len(value) == 40 and re.fullmatch(r"[0-9a-fA-F]*", value):
        return value.lower()
    if len(value) == 32 and re.fullmatch(r"[a-zA-Z2-7]*", value):
        return base64.b32decode(value.upper()).hex()
    kind = "hexadecimal" if len(value) == 40 else "base32"
    raise _bad(uri, f"its info-hash {value!r} has a digit that is not {kind}")


def _v2(uri: str, value: str) -> str:
    """A multihash: 1220 (SHA-256, 32 bytes) and sixty-four hexadecimal digits."""
    if not re.fullmatch(r"1220[0-9a-fA-F]{64}", value):
        raise _bad(uri, "its v2 info-hash is not 1220 and 64 hexadecimal digits")
    return value[4:].lower()


def _bad(uri: str, problem: str) -> WrongUsage:
    excerpt = uri if len(uri) <= 80 else f"{uri[:77]}…"
    return WrongUsage(
        f"bad magnet link {excerpt!r}: {problem}",
        hint="copy the whole link, and quote it: the shell reads & as the end of the command",
    )
