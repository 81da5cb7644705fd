"""Files of Kaggle: `kaggle:competitions/NAME[/FILE]` and `kaggle:datasets/OWNER/NAME[/FILE]`.

One request with a token of the user leads to a signed address of Google's storage, good for some
days. Without FILE that is a zip of all.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.outside_text import quoted
from imnetprep.plain_values import plain_text, table
from imnetprep.sources.credentials import basic, bearer, bearer_of, home, secret_text
from imnetprep.sources.origin import Explanation, Origin, Refusal, url_path

EXAMPLE = "kaggle:competitions/imagenet-object-localization-challenge"
_SITE = "https://www.kaggle.com"
_API = f"{_SITE}/api/v1"
_PARTS = {"competitions": 1, "datasets": 2}  # of the name of each kind
_TOKEN_HINT = (
    f"make a token at {_SITE}/settings/api, as ~/.kaggle/access_token, ~/.kaggle/kaggle.json or"
    " KAGGLE_API_TOKEN"
)


def kaggle_origin(address: str) -> Origin:
    """The origin of an address of Kaggle. Raises WrongUsage where it is none."""
    kind, *parts = address.removeprefix("kaggle:").removesuffix("/").split("/")
    number = _PARTS.get(kind, 0)
    if not number or len(parts) < number or not all(parts):
        raise WrongUsage(
            f"{address} is no address of Kaggle",
            hint=f"{EXAMPLE}, kaggle:datasets/OWNER/NAME, each with a /FILE or without",
        )
    name, file = url_path("/".join(parts[:number])), url_path("/".join(parts[number:]))
    if kind == "datasets":
        path, page = f"datasets/download/{name}", f"{_SITE}/datasets/{name}"
    else:
        verb = "download" if file else "download-all"
        path, page = f"competitions/data/{verb}/{name}", f"{_SITE}/competitions/{name}/rules"
    url = f"{_API}/{path}{f'/{file}' if file else ''}"
    own_name = parts[-1] if file else f"{parts[-1]}.zip"

    def explain(refusal: Refusal) -> Explanation | None:
        if refusal.status == 401:
            return Explanation("Kaggle asks who you are (401)", _TOKEN_HINT)
        if refusal.status == 403:
            hint = f"accept the rules at {page}, signed in as the owner of the token"
            return Explanation(f"{_message(refusal)} (403)", hint)
        if refusal.status == 404:
            return Explanation("Kaggle has no such file (404)", f"look at {page}")
        return None

    return Origin(url, address, credentials(), explain, own_name)


def bundle_name(address: str) -> str | None:
    """What the zip is called that has all files of what `address` names; None: that is a file."""
    kind, *parts = address.removeprefix("kaggle:").removesuffix("/").split("/")
    return f"{parts[-1]}.zip" if parts and len(parts) == _PARTS.get(kind) else None


def _message(refusal: Refusal) -> str:
    with suppress(ValueError, KeyError, RecursionError):
        return quoted(plain_text(table(json.loads(refusal.body))["message"]))
    return "Kaggle refuses it"


def credentials() -> Mapping[str, str]:
    """Who the user is, as Kaggle's own programs find out. Raises ImnetprepError on a bad file."""
    if token := os.environ.get("KAGGLE_API_TOKEN", ""):
        path = Path(token).expanduser()
        return bearer_of(path) if _is_file(path) else bearer(token, "KAGGLE_API_TOKEN")
    for folder in _folders():
        for name in ("access_token", "access_token.txt"):
            if _is_file(path := folder / name):
                return bearer_of(path)
    user, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    if user and key:
        return basic(user, key)
    for folder in _folders():
        if _is_file(path := folder / "kaggle.json"):
            try:
                fields = table(json.loads(secret_text(path)))
                return basic(plain_text(fields["username"]), plain_text(fields["key"]))
            except (ValueError, LookupError, RecursionError) as error:
                raise ImnetprepError(f"{path} is no token of Kaggle", hint=_TOKEN_HINT) from error
    return {}


def _folders() -> Iterator[Path]:
    if folder := os.environ.get("KAGGLE_CONFIG_DIR"):
        yield Path(folder)
    yield home() / ".kaggle"
    yield home() / ".config" / "kaggle"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a token that is too long for a path
        return False
