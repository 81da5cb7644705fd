"""Text from outside made fit to be shown and kept: it steers no terminal, and tells no secret.

Names of files and classes, checkpoints, torrents and the words of servers come from strangers; an
address may carry a password, a signature or a passkey.
"""

import os
import re
import unicodedata

_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://|magnet:\?)\S+")
_MAGNET = "magnet:?"
_PUNCTUATION = "'\":;,.)]}>…"
_PASSKEY = re.compile(r"/[^/]+(?=/(?:announce|scrape)\b)")  # of a private tracker
_TELLING_NAME = (
    r"[\w-]*(?:token|signature|credential|secret|passw|passkey|api-?_?key|access-?_?key|authorization"
    r"|authkey|torrent_pass|jwt|\bsig\b)[\w-]*"
)
_SECRET_PAIR = re.compile(rf"(?i)(\b{_TELLING_NAME}[\"']?\s*(?:=|:|>)\s*)[^\s&;,<]+")
_USER = re.compile(r"[^\s:@/]+:[^\s@/]*@(?=[\w.\[-])")  # of an address without its scheme
_OPAQUE = re.compile(r"(?=[A-Za-z/+=_%-]*\d)(?=[\d/+=_%-]*[A-Za-z])[A-Za-z0-9/+=_%-]{32,}")
_SECRETS_OF_THE_MACHINE = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
_LONGEST_SAID = 300


def shown(text: object) -> str:
    """`text` as one line for a terminal: no control or bidirectional character, half a character
    or line break stands as itself, and addresses are public.
    """
    public = without_secrets(str(text), mark="…")
    return public if public.isprintable() else "".join(map(_escaped, public))


def _escaped(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()


def public_address(address: str, *, mark: str = "") -> str:
    """`address` without user, password, query, and the passkey or trackers of a torrent.

    `mark` stands for what is left out.
    """
    if address.startswith(_MAGNET):
        pairs = re.split("&(?:amp;)?", address.removeprefix(_MAGNET))
        public = [each for each in pairs if re.match(r"xt[.=]|dn=", each)]
        rest = [mark] if mark and len(public) < len(pairs) else []
        return _MAGNET + "&".join([*public, *rest])
    scheme, separator, rest_of_it = address.partition("://")
    if not separator:
        return address
    authority, path = re.fullmatch(r"(?s)([^/?#]*)(.*)", rest_of_it).groups()  # type: ignore[union-attr]
    if scheme.lower() == "s3" and (pair := re.match(r"[^@]*:[^@/]*@", rest_of_it)):
        user, authority, path = pair[0], *rest_of_it[pair.end() :].partition("/")[::2]
        path = f"/{path}" if path else ""
    elif re.search(r":(?!\d*$)", authority) and "@" in path and "@" not in authority:
        user, _, authority = rest_of_it.rpartition("@")  # a slash in a password
        authority, path = re.fullmatch(r"(?s)([^/?#]*)(.*)", authority).groups()  # type: ignore[union-attr]
    else:
        user, _, authority = authority.rpartition("@")
    # A key may have a question mark.
    if scheme.lower() != "s3" or _SECRET_PAIR.search(address.partition("?")[2]):
        path, *query = re.split(r"[?#]", path, maxsplit=1)
        path = _PASSKEY.sub(f"/{mark}" if mark else "", path)
        path += f"?{mark}" if query and mark else ""
    return f"{scheme}://{f'{mark}@' if user and mark else ''}{authority}{path}"


def has_secret(address: str) -> bool:
    """Has `address` a password, or a signature or a key in its query?"""
    query = address.partition("?")[2]
    return bool(_SECRET_PAIR.search(query)) or "//…@" in public_address(address, mark="…")


def without_secrets(text: str, *, mark: str = "") -> str:
    """`text` with each address in it public."""

    def public(match: re.Match[str]) -> str:
        address = match[0].rstrip(_PUNCTUATION)
        return public_address(address, mark=mark) + match[0].removeprefix(address)

    return _ADDRESS.sub(public, text) if ":" in text else text


def quoted(text: str) -> str:
    """What a server says, as a part of a line of ours: it may repeat what it was asked with."""
    text = " ".join(without_credentials(text).split())
    return _OPAQUE.sub("…", text)[:_LONGEST_SAID]


def without_credentials(text: str) -> str:
    """`text` without secrets by their form, by their name, and by the values that this process has
    from its environment.
    """
    text = without_secrets(text)
    for value in filter(None, map(os.environ.get, _SECRETS_OF_THE_MACHINE)):
        text = text.replace(value, "…")
    return _SECRET_PAIR.sub(r"\1…", _USER.sub("…@", text))
