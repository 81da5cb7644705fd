"""Text from outside is shown in one line that steers no terminal; an address tells no secret."""

import os
import subprocess
from pathlib import Path

import pytest

from imnetprep.commands.terminal import stderr_progress
from imnetprep.messages import Progress, shell_command
from imnetprep.outside_text import (
    has_secret,
    public_address,
    quoted,
    shown,
    without_credentials,
    without_secrets,
)
from tests.conftest import Run

PLANTED = "cat\x1b[2J\x07\n\u202egpj.\u2066\x9b31m"


@pytest.mark.parametrize(
    ("address", "public", "marked"),
    [
        ("https://me:pw@host/a.tar", "https://host/a.tar", "https://…@host/a.tar"),
        ("https://me:p/w@host:8/a", "https://host:8/a", "https://…@host:8/a"),
        ("http://me:p@w@host", "http://host", "http://…@host"),
        ("https://host/a.tar?X-Amz-Signature=1&b", "https://host/a.tar", "https://host/a.tar?…"),
        ("https://host/a.tar#token=1", "https://host/a.tar", "https://host/a.tar?…"),
        ("http://host:80/a@2/b", "http://host:80/a@2/b", "http://host:80/a@2/b"),
        ("s3://bucket/what?/a", "s3://bucket/what?/a", "s3://bucket/what?/a"),
        ("s3://k:s@bucket/a", "s3://bucket/a", "s3://…@bucket/a"),
        ("s3://k:s/e@bucket/a", "s3://bucket/a", "s3://…@bucket/a"),
        ("s3://k/e:s@bucket/a", "s3://bucket/a", "s3://…@bucket/a"),
        ("s3://bucket/a@b", "s3://bucket/a@b", "s3://bucket/a@b"),
        ("s3://bucket/a?X-Amz-Signature=1", "s3://bucket/a", "s3://bucket/a?…"),
        ("udp://host:1/a1b2/announce", "udp://host:1/announce", "udp://host:1/…/announce"),
        ("magnet:?xt=urn:btih:aa&amp;dn=b&tr=udp://c/d", "magnet:?xt=urn:btih:aa&dn=b",
         "magnet:?xt=urn:btih:aa&dn=b&…"),
        ("/a/b?c", "/a/b?c", "/a/b?c"),
        ("-", "-", "-"),
    ],
)  # fmt: skip
def test_an_address_is_public(address: str, public: str, marked: str) -> None:
    assert public_address(address) == public
    assert public_address(address, mark="…") == marked
    assert public_address(marked, mark="…") == marked
    sentence = f"look at '{address}': it is there, and at {address}."
    assert without_secrets(sentence, mark="…") == sentence.replace(address, marked)


def test_what_has_a_secret_is_told_from_what_has_none() -> None:
    names = ["token", "sig", "X-Amz-Credential", "AWSAccessKeyId", "apikey", "X-Goog-Signature"]
    for address in ["https://a:b@c/d", *(f"https://c/d?x=1&{name}=e" for name in names)]:
        assert has_secret(address), address
    for address in ("https://c/d", "https://c/d?id=1&design=2", "s3://c/d@e", "/a@b"):
        assert not has_secret(address), address


def test_what_a_server_says_is_cut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "short+token")
    words = "Denied for GET https://u:p@h/k?X-Amz-Signature=aa, x-amz-security-token: bb, <Token>cc"
    words += "\nshort+token Key: a/b.tar " + "f00f" * 16 + " arn:aws:iam::123:user/me"
    assert quoted(words) == (
        "Denied for GET https://h/k, x-amz-security-token: …, <Token>… … Key: a/b.tar …"
        " arn:aws:iam::123:user/me"
    )
    assert len(quoted("a word " * 1000)) == 300
    assert without_credentials("x\n  short+token") == "x\n  …"


def test_nothing_steers_a_terminal() -> None:
    assert shown(PLANTED) == r"cat\x1b[2J\x07\n\u202egpj.\u2066\x9b31m"
    assert shown("\udcff \ud800 \u2028 狗 é 👍\u3000…") == "\\udcff \\ud800 \\u2028 狗 é 👍\u3000…"


@pytest.mark.parametrize("name", [PLANTED, "it's\n\\x", os.fsdecode(b"caf\xe9"), "a b", "-x"])
def test_a_command_of_a_hint_can_be_typed_whatever_the_name(name: str) -> None:
    typed = shell_command("printf", "%s", name)
    assert shown(typed) == typed
    done = subprocess.run(["bash", "-c", typed], capture_output=True, check=True)
    assert done.stdout == os.fsencode(name)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_steers_no_terminal(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("imnetprep.commands.terminal._SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    progress: Progress = stderr_progress(quiet=False)
    with progress.task(f"read {PLANTED}", total=2, unit="B") as task:
        task.tell(PLANTED)
        task.advance(2)
    progress.note(f"https://me:pw@host/{PLANTED}")
    told = capsys.readouterr().err.replace("\r", "").replace("\x1b[A", "")
    assert r"read cat\x1b[2J\x07\n\u202e" in told and "https://…@host/cat" in told
    assert all(line.isprintable() for line in told.split("\n"))


def test_names_of_files_are_escaped_in_findings_and_errors(organized: Path, here: Run) -> None:
    (organized / "train" / "n01440764" / PLANTED).write_bytes(b"x")
    (organized / "train" / PLANTED).mkdir()
    for words in (["verify"], ["status"], ["repair", "--dry-run"], ["clean"]):
        done = here(*words, "--root", organized)
        assert done.returncode in (0, 5), done.stderr
        assert_harmless(done.stdout + done.stderr)
    done = here("verify", "--root", organized, "--json")
    assert r"cat\u001b[2J\u0007\n\u202egpj" in done.stdout
    for words in (["inspect"], ["status", PLANTED], [PLANTED], ["adopt"]):
        done = here(*words, "--root", organized / PLANTED)
        assert done.returncode in (1, 2), (words, done)
        assert_harmless(done.stdout + done.stderr)


def assert_harmless(text: str) -> None:
    """Every line of what was printed is of printable characters."""
    assert all(line.isprintable() for line in text.splitlines(keepends=False)), text
    assert len(text.splitlines()) == len(text.split("\n")) - text.endswith("\n"), text
