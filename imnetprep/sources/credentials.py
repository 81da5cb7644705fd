"""Credentials that people keep on their machine for other programs too."""

import base64
import netrc
import os
from pathlib import Path
from urllib.parse import unquote

from imnetprep.messages import ImnetprepError


def basic(user: str, password: str) -> dict[str, str]:
    """The header of a user and a password (RFC 7617)."""
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {token}"}


def bearer(token: str) -> dict[str, str]:
    """The header of a token (RFC 6750)."""
    return {"Authorization": f"Bearer {token}"}


def basic_of(text: str) -> dict[str, str]:
    """The header of the `user:password` of an address."""
    user, _, password = text.partition(":")
    return basic(unquote(user), unquote(password))


def netrc_header(host: str) -> dict[str, str]:
    """The header that ~/.netrc, or the file of NETRC, has for `host`; empty: none.

    A `default` entry is of no host, and so of none here. Raises ImnetprepError where the file
    cannot be read.
    """
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    if not path.exists():
        return {}
    try:
        entry = netrc.netrc(path).hosts.get(host)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "msg", None) or "is no text"
        raise ImnetprepError(
            f"{path}: {reason}", hint="mend the file, or name another by NETRC"
        ) from error
    return basic(entry[0], entry[2] or "") if entry else {}
