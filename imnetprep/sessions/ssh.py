"""A command of ours on another machine, by the program `ssh`.

It brings ~/.ssh/config, jump hosts, agents, security keys and known hosts, as the user has them.
"""

import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from imnetprep.messages import ImnetprepError, SourceFailed, shell_command
from imnetprep.outside_text import quoted
from imnetprep.sessions.multiplexer import socket_folder

_SSH_FAILURE, _NO_PROGRAM, _NO_PERMISSION = 255, 127, 126
_OPTIONS = (
    *("-o", "ConnectTimeout=30"),
    # A connection that is lost ends after a minute; the next command uses one that is there.
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"),
    *("-o", "ControlMaster=auto", "-o", "ControlPersist=60"),
)


class Host(NamedTuple):
    """A machine as ssh names it, and the command `imnetprep` there."""

    name: str
    program: str

    @classmethod
    def parse(cls, text: str) -> "Host":
        """`[USER@]HOST`, an alias of ~/.ssh/config, or with `:PATH` of the command imnetprep there.

        Raises ValueError.
        """
        match = re.fullmatch(r"(ssh://\S+|[^\s/]+?)(?::([^:]*/[^:]*))?", text)
        if not match or text.startswith("-"):
            raise ValueError(f"{text!r} is no [USER@]HOST, or [USER@]HOST:PATH of imnetprep there")
        # A path of ssh begins at the home there.
        return cls(match[1], (match[2] or "imnetprep").removeprefix("~/"))


def run_there(host: Host, words: Sequence[str], *, terminal: bool) -> int:
    """Run `imnetprep WORDS` on `host`, on a terminal there or not; its exit code.

    Raises ImnetprepError where ssh is not installed, or imnetprep not found, and SourceFailed where
    ssh fails.
    """
    with tempfile.NamedTemporaryFile(prefix="imnetprep-", suffix=".ssh") as messages:
        command = [
            *("ssh", "-E", messages.name, *_OPTIONS, "-o", f"ControlPath={_sockets()}/%C"),
            *(["-t"] if terminal else ["-T"]),
            *(host.name, "--", shlex.join([host.program, *words])),
        ]
        try:
            code = subprocess.run(command, check=False).returncode
        except FileNotFoundError as error:
            hint = "install OpenSSH: apt-get install openssh-client"
            raise ImnetprepError("ssh is not installed", hint=hint) from error
        if code == _SSH_FAILURE:
            raise _failure(host, Path(messages.name).read_text(errors="replace"))
    if code in (_NO_PROGRAM, _NO_PERMISSION):
        raise ImnetprepError(
            f"{host.name} has no command {host.program}",
            hint=f"name it as it lies there: --host {host.name}:venv/bin/imnetprep",
        )
    return code


def _sockets() -> Path:
    return socket_folder("ssh")


# What ssh says, and what to type next.
_HINTS = (
    ("Host key verification failed", "look at its key once: ssh {host}"),
    ("Permission denied", "let a key in: ssh-copy-id {host}"),
    ("Too many authentication failures", "name one key by IdentitiesOnly in ~/.ssh/config"),
    ("Could not resolve", "look at the name, and at ~/.ssh/config: ssh -G {host}"),
    ("Connection refused", "no ssh server listens there: look at its port in ~/.ssh/config"),
    ("timed out", "look at the network, and at what lets ssh in there: ssh -v {host}"),
    ("No route", "look at the network: ssh -v {host}"),
)  # fmt: skip
# Where ssh has the key that it knows, and by which name: that of ~/.ssh/config may be another.
_CHANGED_KEY = re.compile(
    r"Offending .* in (\S.*):\d+\r?\n(?:.*\n)*?Host key for (\S+) has changed"
)
_LOSS = "a session there is not touched: run the same command again"


def _failure(host: Host, messages: str) -> SourceFailed:
    """The error of an ssh that said so, which may have said it in many lines."""
    name = shell_command(host.name)
    hint = next((hint.format(host=name) for words, hint in _HINTS if words in messages), _LOSS)
    if change := _CHANGED_KEY.search(messages):
        file, known_as = change.groups()
        command = shell_command("ssh-keygen", "-f", file, "-R", known_as)
        hint = f"is it another machine? If it is to be: {command}"
    lines = [line for line in messages.splitlines() if line.strip(" @\r")]
    reason = lines[-1] if lines else "the connection was lost"
    return SourceFailed(f"ssh to {host.name}: {quoted(reason)}", hint=hint)
