"""Credentials that people keep on their machine for other programs too."""

import base64
import netrc
import os
from http.cookiejar import LoadError, MozillaCookieJar
from pathlib import Path
from urllib.parse import unquote
from urllib.request import Request

from imnetprep.messages import ImnetprepError
from imnetprep.outside_files import read_text


def home() -> Path:
    """The home of the user; where there is none, a folder without anything."""
    try:
        return Path.home()
    except RuntimeError:  # a user that no list of users has, as in a container
        return Path(os.devnull)


def basic(user: str, password: str) -> dict[str, str]:
    """The header of a user and a password (RFC 7617)."""
    body = f"{user}:{password}".encode(errors="surrogateescape")
    return {"Authorization": f"Basic {base64.b64encode(body).decode()}"}


def basic_of(text: str) -> dict[str, str]:
    """The header of the `user:password` of an address."""
    user, _, password = text.partition(":")
    return basic(unquote(user), unquote(password))


def bearer(token: str, origin: str | Path) -> dict[str, str]:
    """The header of a token (RFC 6750), white space around it left out.

    Raises ImnetprepError where it is none: `origin` says where it was found.
    """
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ImnetprepError(f"{origin} has no token, but other text", hint="write it anew")
    return {"Authorization": f"Bearer {token}"}


def bearer_of(path: Path) -> dict[str, str]:
    """The header of the token in the file at `path`. Raises ImnetprepError where it is none."""
    return bearer(secret_text(path), path)


def secret_text(path: Path) -> str:
    """The text of a file that may hold a secret. Raises ImnetprepError, which tells none of it."""
    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        raise ImnetprepError(f"{path} is no text", hint="write it anew") from error
    except OSError as error:
        raise ImnetprepError(
            f"{path}: {error.strerror}", hint="mend it, or move it away"
        ) from error


def netrc_header(host: str) -> dict[str, str]:
    """The header that ~/.netrc, or the file of NETRC, has for `host`; empty: none.

    A `default` entry is of no host, and so of none here. Raises ImnetprepError where the file
    cannot be read.
    """
    path = Path(os.environ.get("NETRC") or home() / ".netrc")
    if not path.is_file():
        return {}
    try:
        entry = netrc.netrc(path).hosts.get(host)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None)  # its message has the word, which may be a password
        place = f", line {line}," if line else ""
        raise ImnetprepError(
            f"{path}{place} cannot be read", hint="mend the file, or name another by NETRC"
        ) from error
    return basic(entry[0], entry[2] or "") if entry else {}


def cookie_header(url: str) -> dict[str, str]:
    """The header of the cookies for `url` in the file of IMNETPREP_COOKIES, as browsers export
    them (cookies.txt of Netscape); empty: none.

    Raises ImnetprepError where the file cannot be read.
    """
    if not (path := os.environ.get("IMNETPREP_COOKIES")):
        return {}
    jar, request = MozillaCookieJar(), Request(url)  # noqa: S310 - it is never opened
    try:
        jar.load(path, ignore_discard=True, ignore_expires=True)
    except (OSError, LoadError, UnicodeDecodeError):  # whose message may have a line of it
        raise ImnetprepError(
            f"{path}, of IMNETPREP_COOKIES, cannot be read as cookies",
            hint="export cookies.txt in Netscape's form, as browser extensions write it",
        ) from None
    for each in jar:
        each.expires = each.expires or None  # 0 is of a session, and not of 1970
    jar.add_cookie_header(request)
    cookie = request.get_header("Cookie")
    return {"Cookie": cookie} if cookie else {}
