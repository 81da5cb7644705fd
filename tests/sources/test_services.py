"""Kaggle, the Hugging Face hub, Google's services and GitHub, as stand-ins on loopback answer.

What they are asked, and how they refuse, is as their own programs were recorded.
"""

import base64
import hashlib
import json
import random
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from imnetprep.digests import Checksum
from imnetprep.messages import ImnetprepError, SourceFailed, WrongUsage
from imnetprep.sources import drive, github, kaggle, storage
from imnetprep.sources.places import SCHEMES, open_address, open_archive
from imnetprep.sources.web import WebFile
from tests.conftest import Run, receipt_of, tree
from tests.http_server import Answering, http_served
from tests.servers import gcs_served

BODY = random.Random(7).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
TOKEN = "KGAT_do-not-tell-0815"
SIGNATURE = "5igned-0f-4n-hour"
DRIVE_ID = "1AbCdEfGhIjKlMnOpQrStUvWxYz0123456"
QUOTA_PAGE = b"<p>Too many users have viewed or downloaded this file recently.</p>"


class Services:
    """All services of one machine: `asked` are the paths with their Authorization."""

    def __init__(self, port: int) -> None:
        self.here, self.elsewhere = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        self.asked: list[tuple[str, str]] = []
        self.bodies: dict[str, bytes] = {}  # by the start of a path; else BODY
        self.given: tuple[bytes, dict[str, str]] = BODY, {}  # what Drive and Google's storage give
        self.is_honest = True  # about the checksum of what it gives
        self.refusal: tuple[bytes, int, dict[str, str]] | None = None

    def answer(self, request: Answering) -> None:
        """Answer as the service whose path it is."""
        path, authorization = request.path, request.headers.get("Authorization", "")
        if path.startswith("/bytes"):
            assert not authorization, "the token is of another host"
            self._give(request, self.bodies.get(path.partition("&of=")[2], BODY))
            return
        self.asked.append((path, authorization))
        if self.refusal:
            request.answer(self.refusal[0], *self.refusal[1:])
        elif path.startswith("/signed/") and not path.endswith("val.tar?sig=a/b"):
            request.answer(b"", 403)
        elif path.startswith(("/download?", "/bucket/", "/signed/")):
            self._give(request, *self.given)
        elif path in self.bodies or not self.bodies:
            headers = {"Location": f"{self.elsewhere}/bytes?Signature={SIGNATURE}&of={path}"}
            if path.startswith("/datasets/"):
                headers["X-Linked-Etag"] = f'"{SHA256}"'
            request.answer(b"", 302, headers)
        else:
            request.answer(b'{"code": 404}', 404)

    def _give(
        self, request: Answering, body: bytes, more: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers["Range"])
        assert match
        start, end = int(match[1]), min(int(match[2]) + 1, len(body))
        crc32c = Checksum.empty("crc32c").over(body if self.is_honest else b"").text
        md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(body)}", **more}
        headers["x-goog-hash"] = f"crc32c={crc32c},md5={md5}"
        request.answer(body[start:end], 206, headers)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Services]:
    """The services, and a home without any credentials."""
    held: list[Services] = []

    class Handler(Answering):
        def do_GET(self) -> None:
            held[0].answer(self)

    with http_served(Handler) as server:
        held.append(Services(server.server_address[1]))
        for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR",
                     "HF_TOKEN", "HF_HOME", "HF_TOKEN_PATH", "NETRC"):  # fmt: skip
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setattr("imnetprep.retry._FIRST_WAIT_S", 0.001)
        monkeypatch.setattr(kaggle, "_API", held[0].here)
        monkeypatch.setattr(drive, "_SITE", held[0].here)
        monkeypatch.setattr(github, "_SITE", held[0].here)
        monkeypatch.setenv("HF_ENDPOINT", held[0].here)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", held[0].here)
        yield held[0]


ADDRESSES = {
    "kaggle:competitions/imagenet": ("/competitions/data/download-all/imagenet", "imagenet.zip"),
    "kaggle:competitions/imagenet/a/b c.zip": (
        "/competitions/data/download/imagenet/a/b%20c.zip", "b c.zip",
    ),
    "kaggle:datasets/me/pets": ("/datasets/download/me/pets", "pets.zip"),
    "kaggle:datasets/me/pets/x.tar": ("/datasets/download/me/pets/x.tar", "x.tar"),
    "hf:datasets/me/pets/data/x.tar": ("/datasets/me/pets/resolve/main/data/x.tar", "x.tar"),
    "hf:datasets/me/pets@v/2/x.tar": ("/datasets/me/pets/resolve/v/2/x.tar", "x.tar"),
    "hf:datasets/me/pets@refs/pr/1/x.tar": (
        "/datasets/me/pets/resolve/refs%2Fpr%2F1/x.tar", "x.tar",
    ),
    "hf:models/me/net@abc/best.pt": ("/me/net/resolve/abc/best.pt", "best.pt"),
    "gs://bucket/a b/x.tar": ("/bucket/a%20b/x.tar", "x.tar"),
    f"gdrive:{DRIVE_ID}": (f"/download?id={DRIVE_ID}&export=download&confirm=t", "download"),
    f"https://drive.google.com/file/d/{DRIVE_ID}/view?usp=sharing": (
        f"/download?id={DRIVE_ID}&export=download&confirm=t", "download",
    ),
    f"https://drive.google.com/uc?id={DRIVE_ID}": (
        f"/download?id={DRIVE_ID}&export=download&confirm=t", "download",
    ),
    "github:me/tool@v1.0#x.tar": ("/me/tool/releases/download/v1.0/x.tar", "x.tar"),
    "github:me/tool#x.tar": ("/me/tool/releases/latest/download/x.tar", "x.tar"),
}  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_each_address_leads_to_its_bytes(services: Services, address: str) -> None:
    path, name = ADDRESSES[address]
    with closing(open_address(address)) as file:
        assert b"".join(map(bytes, file.chunks(0, len(BODY), 1 << 16))) == BODY
        assert (file.size_bytes, file.name) == (len(BODY), name)
    assert services.asked[0] == (path, "")


@pytest.mark.parametrize(
    "address",
    ["kaggle:imagenet", "kaggle:datasets/pets", "kaggle:competitions/", "hf:me/pets/x.tar",
     "hf:datasets/me", "gdrive:folder", "https://drive.google.com/drive/folders/abc", "gs://bucket",
     "github:me", "ftp://host/x.tar", "gopher://x"],
)  # fmt: skip
def test_an_address_that_is_none_is_told_what_one_is(services: Services, address: str) -> None:
    with pytest.raises(WrongUsage) as refused:
        open_address(address)
    assert any(f"{name}:" in refused.value.hint for name in SCHEMES)
    assert services.asked == []


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("files", "environment", "expected"),
    [
        ({}, {"KAGGLE_API_TOKEN": TOKEN}, f"Bearer {TOKEN}"),
        ({".kaggle/access_token": TOKEN + "\n"}, {"KAGGLE_USERNAME": "me"}, f"Bearer {TOKEN}"),
        ({"token": TOKEN}, {"KAGGLE_API_TOKEN": "~/token"}, f"Bearer {TOKEN}"),
        ({}, {"KAGGLE_USERNAME": "me", "KAGGLE_KEY": "k"}, basic("me:k")),
        ({".kaggle/kaggle.json": '{"username": "me", "key": "k"}'}, {}, basic("me:k")),
        ({".config/kaggle/kaggle.json": '{"username": "me", "key": "k"}'}, {}, basic("me:k")),
        ({"k/kaggle.json": '{"username": "me", "key": "k"}'}, {"KAGGLE_CONFIG_DIR": "~/k"},
         basic("me:k")),
    ],
)  # fmt: skip
def test_kaggle_is_told_who_asks(
    services: Services,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: Mapping[str, str],
    environment: Mapping[str, str],
    expected: str,
) -> None:
    for name, text in files.items():
        path = tmp_path / "home" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("~", str(tmp_path / "home")))
    open_address("kaggle:competitions/imagenet").close()
    assert [authorization for _, authorization in services.asked] == [expected]


def test_a_token_of_kaggle_that_is_none_is_told(services: Services, tmp_path: Path) -> None:
    path = tmp_path / "home" / ".kaggle" / "kaggle.json"
    path.parent.mkdir(parents=True)
    path.write_text(f'{{"user": "{TOKEN}"}}')
    with pytest.raises(ImnetprepError, match=r"kaggle\.json is no token") as refused:
        open_address("kaggle:competitions/imagenet")
    assert TOKEN not in f"{refused.value}{refused.value.hint}"


def test_the_hub_is_told_who_asks(services: Services, tmp_path: Path) -> None:
    path = tmp_path / "home" / ".cache" / "huggingface" / "token"
    path.parent.mkdir(parents=True)
    path.write_text("hf_token\n")
    open_address("hf:datasets/me/pets/x.tar").close()
    assert [authorization for _, authorization in services.asked] == ["Bearer hf_token"]


def test_a_private_object_is_asked_for_again_with_a_token(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First as anybody: to find a token may take seconds."""
    monkeypatch.setenv("GOOGLE_OAUTH_ACCESS_TOKEN", TOKEN)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setattr(storage, "_SITE", services.here)
    services.refusal = (b"", 403, {})
    with pytest.raises(SourceFailed, match=r"access denied \(403\)"):
        open_address("gs://bucket/x.tar")
    assert [authorization for _, authorization in services.asked] == ["", f"Bearer {TOKEN}"]


@pytest.mark.parametrize("end", ["\nX-Evil: 1", "\0", "€", " x"])
@pytest.mark.parametrize("address", ["hf:datasets/a/b/x", "kaggle:competitions/a"])
def test_a_token_that_is_none_is_told_and_not_shown(
    services: Services, tmp_path: Path, address: str, end: str
) -> None:
    for name in (".cache/huggingface/token", ".kaggle/access_token"):
        path = tmp_path / "home" / name
        path.parent.mkdir(parents=True)
        path.write_text(TOKEN + end)
    with pytest.raises(ImnetprepError, match="has no token, but other text") as refused:
        open_address(address)
    assert TOKEN not in f"{refused.value}{refused.value.hint}"
    assert services.asked == []


def test_a_file_of_a_token_that_is_no_text_is_told(services: Services, tmp_path: Path) -> None:
    path = tmp_path / "home" / ".kaggle" / "access_token"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ImnetprepError, match="is no text"):
        open_address("kaggle:competitions/a")


def test_a_user_without_a_home_is_anybody(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    for address in ("kaggle:competitions/a", "hf:datasets/a/b/x", f"{services.here}/download?x"):
        open_address(address).close()


@pytest.mark.parametrize(
    "address",
    ["gs://b/a/../../c/x.tar", "hf:datasets/a/b/../../x", "kaggle:datasets/a/b/../c",
     "hf:datasets/a/b/x?token=t", "https:/me:secret@host/x", "http:me:secret@host/x",
     "http://me:secret@ho℀st/x", "gs:b/x", "https://"],
)  # fmt: skip
def test_an_address_that_leads_elsewhere_is_refused(services: Services, address: str) -> None:
    with pytest.raises(WrongUsage) as refused:
        open_archive(address, "x.tar")
    assert "secret" not in f"{refused.value}{refused.value.hint}"
    assert services.asked == []


def test_a_scheme_may_be_written_in_any_way(services: Services) -> None:
    for address in (
        "GS://bucket/x",
        "KAGGLE:competitions/a",
        "hf://datasets/a/b/x",
        "Hf:datasets/a/b/x",
    ):
        with closing(open_address(address)) as file:
            assert file.size_bytes == len(BODY)


def test_a_folder_with_a_colon_is_a_folder(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gs:data").mkdir()
    (tmp_path / "gs:data" / "x.tar").write_bytes(b"x")
    with closing(open_archive("gs:data", "x.tar")) as file:
        assert file.size_bytes == 1


def test_one_file_of_drive_is_organized_by_its_name(
    services: Services, packed: Path, organized_once: Path, tmp_path: Path, here: Run
) -> None:
    """Whatever else is asked for is not there, such as the index that may lie beside an archive."""
    name = "ILSVRC2012_img_val.tar"
    services.given = (
        (packed.parent / name).read_bytes(),
        {"Content-Disposition": f'attachment; filename="{name}"'},
    )
    words = ["--root", tmp_path, "--dataset", packed, "--archives", f"gdrive:{DRIVE_ID}"]
    done = here("organize", *words)
    assert done.returncode == 2 and "an address of one file carries one archive" in done.stderr
    done = here("organize", *words, "--split", "val")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "val") == tree(organized_once / "val")
    done = here("organize", *words, "--split", "train")
    assert done.returncode == 3 and f"is called {name}, not" in done.stderr


def test_a_signed_address_of_one_archive_keeps_its_signature(
    services: Services, packed: Path, organized_once: Path, tmp_path: Path, here: Run
) -> None:
    name = "ILSVRC2012_img_val.tar"
    services.given = (packed.parent / name).read_bytes(), {}
    address = f"{services.here}/signed/{name}?sig=a/b"
    words = ["--root", tmp_path, "--dataset", packed, "--split", "val", "--archives", address]
    done = here("organize", *words)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "val") == tree(organized_once / "val")


GATED = {"X-Error-Code": "GatedRepo"}
RULES = json.dumps({"code": 403, "message": "You must accept this competition's rules."}).encode()


@pytest.mark.parametrize(
    ("address", "refusal", "reason", "hint"),
    [
        ("kaggle:competitions/imagenet", (b"", 401, {}), "asks who you are", "KAGGLE_API_TOKEN"),
        ("kaggle:competitions/imagenet", (RULES, 403, {}), "You must accept",
         "kaggle.com/competitions/imagenet/rules"),
        ("kaggle:datasets/a/b", (b"", 404, {}), "no such file", "kaggle.com/datasets/a/b"),
        ("hf:datasets/a/b/x", (b"", 401, GATED), "asks who you are", "HF_TOKEN"),
        ("hf:datasets/a/b/x", (b"", 403, GATED), "no access", "accept the terms"),
        ("hf:datasets/a/b@v1/x", (b"", 404, {}), "no such file", "datasets/a/b/tree/v1"),
        (f"gdrive:{DRIVE_ID}", (QUOTA_PAGE, 200, {}), "for up to 24 hours", "make a copy"),
        (f"gdrive:{DRIVE_ID}", (b"<html>", 200, {}), "a page, not the file", "Anyone with"),
        ("gs://bucket/x.tar", (b"", 404, {}), "no such object", "gcloud storage ls"),
        ("github:me/tool#x.tar", (b"", 404, {}), "no such file", "me/tool"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_with_the_page_to_visit(
    services: Services, address: str, refusal: Any, reason: str, hint: str
) -> None:
    services.refusal = refusal
    with pytest.raises(SourceFailed) as refused:
        open_address(address)
    assert reason in str(refused.value) and hint in refused.value.hint
    assert address in str(refused.value)


def test_a_competition_of_kaggle_is_organized_from_there(
    services: Services,
    packed: Path,
    organized_once: Path,
    tmp_path: Path,
    here: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its zip has all splits, and no file of the published names is there. Nothing that was kept or
    said has the token or the signature.
    """
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    folder = tmp_path / "set"
    folder.mkdir()
    text = packed.read_text().partition("[[archives]]")[0]
    for path in packed.parent.iterdir():
        if path.suffix not in (".toml", ".tar"):
            (folder / path.name).write_bytes(path.read_bytes())
    definition = folder / "pets.toml"
    definition.write_text(
        text + '[[archives]]\nname = "pets.zip"\nform = "zip"\n'
        'members.train = "train/{wnid}/{name}"\nmembers.val = "val/{wnid}/{name}"\n'
    )
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for split in ("train", "val"):
            for name, body in tree(organized_once / split).items():
                archive.writestr(f"{split}/{name}", body)
    services.bodies = {"/competitions/data/download-all/pets": path.read_bytes()}
    words = ["--root", tmp_path / "root", "--dataset", definition]
    done = here("organize", *words, "--archives", "kaggle:competitions/pets")
    assert done.returncode == 0, done.stderr
    for split in ("train", "val"):
        assert tree(tmp_path / "root" / split) == tree(organized_once / split)
    proofs = [str(each["proof"]) for each in receipt_of(tmp_path / "root")["splits"].values()]  # type: ignore[index]
    assert proofs and all("crc32c" in proof for proof in proofs)
    assert {f"Bearer {TOKEN}"} == {authorization for _, authorization in services.asked}
    texts = [path.read_bytes() for path in (tmp_path / "root").rglob("*") if path.is_file()]
    texts += [done.stdout.encode(), done.stderr.encode()]
    services.is_honest = False
    words[1] = tmp_path / "other"
    done = here("organize", *words, "--archives", "kaggle:competitions/pets")
    assert done.returncode == 4 and "crc32c is" in done.stderr
    assert not (tmp_path / "other" / "train").exists()
    assert not [text for text in texts if TOKEN.encode() in text or SIGNATURE.encode() in text]


@pytest.mark.network
def test_organizes_from_a_bucket_of_google(
    packed: Path, organized_once: Path, tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real server of its API; it tells the MD5 and CRC-32C of each object with every range."""
    folder = tmp_path / "data" / "bucket" / "a prefix"
    folder.mkdir(parents=True)
    for path in packed.parent.glob("*.tar"):
        (folder / path.name).write_bytes(path.read_bytes())
    with gcs_served(tmp_path / "data") as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        words = ["--root", tmp_path / "root", "--dataset", packed]
        done = here("organize", *words, "--archives", "gs://bucket/a prefix")
        assert done.returncode == 0, done.stderr
        with closing(open_archive("gs://bucket/a prefix", "ILSVRC2012_img_val.tar")) as file:
            body = (packed.parent / file.name).read_bytes()
            assert isinstance(file, WebFile)
            assert file.digests["md5"] == hashlib.md5(body).hexdigest()
        with pytest.raises(SourceFailed, match="no such object"):
            open_archive("gs://bucket/a prefix", "absent.tar")
    for split in ("train", "val"):
        assert tree(tmp_path / "root" / split) == tree(organized_once / split)


def test_all_are_listed_with_an_example(here: Run) -> None:
    done = here("sources")
    assert done.returncode == 0
    assert all(f"{scheme}:" in done.stdout for scheme in SCHEMES if scheme != "http")
