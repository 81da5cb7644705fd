"""Where a source begins: what to ask, what to say of oneself there, and how a refusal reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

from imnetprep.outside_text import public_address
from imnetprep.sources.credentials import basic_of, cookie_header, netrc_header


class Refusal(NamedTuple):
    """What a server says in place of bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Explanation(NamedTuple):
    """A refusal in words, and what to do about it."""

    reason: str
    hint: str


@dataclass(frozen=True)
class Origin:
    """Where a source begins: the address to ask, and the headers for its host alone.

    `title` is what people call it, without secrets. `explain` makes words of a refusal; None: it
    has none of its own. `name` of the file, where the address has another. `sign_in` gives headers
    to come again with where anybody is refused; empty: there are none.
    """

    address: str = field(repr=False)
    title: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    explain: Callable[[Refusal], Explanation | None] = lambda _refusal: None
    name: str = ""
    sign_in: Callable[[], Mapping[str, str]] = dict


def web_origin(address: str) -> Origin:
    """The origin of a plain address, with the user and password in it, or of ~/.netrc; and with
    the user's cookies for it.

    All are sent to its host, and never shown. Raises ImnetprepError on a damaged file of them.
    """
    parts = urlsplit(address)
    user, separator, host = parts.netloc.rpartition("@")
    headers = basic_of(user) if separator else netrc_header(parts.hostname or "")
    url = urlunsplit(parts._replace(netloc=host))
    return Origin(url, public_address(address), {**headers, **cookie_header(url)})


def url_path(text: str) -> str:
    """A path of names as a part of an address, whatever bytes are in them."""
    return quote(text, errors="surrogateescape")
