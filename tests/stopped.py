"""Commands that end, or halt, before a call of a function: `MODULE:NAME.NAME:NUMBER`."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_CODE = """
import os, sys, threading
at, act = sys.argv[1:3]
module, name, number = at.split(":")
__import__(module)
owner, calls = sys.modules[module], 0
*owners, name = name.split(".")
for each in owners:
    owner = getattr(owner, each)
replaced = getattr(owner, name)
def counted(*arguments, **options):
    global calls
    calls += 1
    if calls == int(number):
        if act == "end":
            os._exit(9)
        print("halted", flush=True)
        threading.Event().wait()
    return replaced(*arguments, **options)
setattr(owner, name, counted)
from imnetprep import cli
cli.run(sys.argv[3:])
"""


def run_stopped(root: Path, at: str, *words: object) -> None:
    """Run a command that ends, as if killed, before that call."""
    full = [sys.executable, "-c", _CODE, at, "end", *map(str, words), "--root", str(root)]
    done = subprocess.run([*full, "--quiet"], capture_output=True, check=False)
    assert done.returncode == 9, (words, done.stderr)


@contextmanager
def halted(
    at: str, *words: object, environment: Mapping[str, str], output: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A command that waits for ever before that call; after the block it is killed by -9.

    What it says is in `output`.
    """
    full = [sys.executable, "-c", _CODE, at, "halt", *map(str, words)]
    with output.open("wb") as file:
        process = subprocess.Popen(
            full, stdout=subprocess.PIPE, stderr=file, env={**os.environ, **environment}
        )
        assert process.stdout is not None
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line == b"halted\n":
                    break
            assert lines[-1:] == [b"halted\n"], (words, lines, output.read_text())
            yield process
        finally:
            process.kill()
            process.wait()
            rest = process.stdout.read()
            process.stdout.close()
            file.write(b"".join([*lines, rest]))
