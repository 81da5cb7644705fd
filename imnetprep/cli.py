"""The command `imnetprep`: its verbs, and the one place where errors meet the user."""

import errno
import io
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import click

from imnetprep import __version__
from imnetprep.commands.terminal import outlive_terminal, print_note
from imnetprep.commands.verb import BrokenPipe, Verb
from imnetprep.machine import explain
from imnetprep.messages import (
    INTERRUPTED_EXIT_CODE,
    OUR_BUG_EXIT_CODE,
    TERMINATED_EXIT_CODE,
    UNREAD_EXIT_CODE,
    ImnetprepError,
    Interruption,
    Lack,
    WrongUsage,
    shell_command,
)
from imnetprep.outside_text import quoted, without_credentials


class _Verbs(click.Group):
    """The verbs in the order of the work, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; at a word that is none, hint at the one that it is like."""
        if not ctx.resilient_parsing and args[0] not in self.commands:
            from difflib import get_close_matches

            close = get_close_matches(args[0], self.commands, 1)
            hint = shell_command("imnetprep", *close, *args[1:]) if close else "imnetprep --help"
            raise WrongUsage(f"there is no verb {args[0]!r}", hint=hint)
        return super().resolve_command(ctx, args)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="imnetprep")
def imnetprep() -> None:
    """ImageNet from where it is to a verified, training-ready tree, and on to a trained ResNet.

    \b
    imnetprep prepare             download, organize and verify in one go; or one by one:
    imnetprep download            both archives by torrent, verified piece by piece
    imnetprep organize            train/<wnid>/ and val/<wnid>/ in one pass
    imnetprep verify              counts, names and sizes (--digests: every byte)
    imnetprep train --arch resnet18

    Everything lies under --root (or IMNETPREP_ROOT, or ./imagenet). A long command that was
    interrupted at any instant resumes when it is run again with the same options (train: with
    --resume).
    """


# In the order of the work; each is a module of `commands` with a command of its name.
for _verb in (
    "prepare",
    "download",
    "organize",
    "verify",
    "repair",
    "verify_archives",
    "repair_archives",
    "seed",
    "adopt",
    "divide",
    "subset",
    "status",
    "clean",
    "datasets",
    "sources",
    "sync_s3",
    "inspect",
    "archs",
    "recipes",
    "doctor",
    "ladder",
    "bench",
    "train",
    "evaluate",
    "predict",
    "serve",
    "show",
    "plot",
    "export",
    "sessions",
    "launch",
    "machines",
    "demo",
):
    imnetprep.add_command(getattr(import_module(f"imnetprep.commands.{_verb}"), _verb))


@imnetprep.command("help", cls=Verb, short_help="Show what a verb does, and its options.")
@click.argument(
    "verb",
    required=False,
    shell_complete=lambda _ctx, _param, start: [
        v for v in imnetprep.commands if v.startswith(start)
    ],
)
def show_help(verb: str | None) -> None:
    """Show what VERB does, and its options; without VERB, the list of verbs.

    \b
    imnetprep help organize
    """
    words = ["--help"] if verb is None else [verb, "--help"]
    imnetprep.main(words, prog_name="imnetprep", standalone_mode=False)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; what went wrong is told on stderr."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("once", Lack)
            setattr(warnings, "showwarning", _tell_lack)  # noqa: B010 - its type is another
            code = imnetprep.main(arguments, prog_name="imnetprep", standalone_mode=False) or 0
            sys.stdout.flush()  # at the exit nobody could tell of a full disk
            return code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return WrongUsage.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "imnetprep"
        return _tell(error.format_message(), f"{path} --help", error.exit_code)
    except ImnetprepError as error:
        return _tell(str(error), error.hint, error.exit_code)
    except Interruption as stop:
        print_note(f"Stopped: {stop}")
        return stop.exit_code
    except (KeyboardInterrupt, click.Abort):
        print_note("Stopped: run the same command to resume")
        return INTERRUPTED_EXIT_CODE
    except _Unwritten as error:
        return _tell_unwritten(error.failure, arguments)
    except Exception as error:
        cause = error.__cause__ if isinstance(error, BrokenPipe) else None
        words = _lacks_torch(error, arguments) or explain(cause or error)
        return _tell(*words, ImnetprepError.exit_code) if words else _our_bug()


def _tell_unwritten(failure: OSError, arguments: list[str]) -> int:
    """Results that cannot be written end a command: exit code 0 would say that it is done."""
    with Path(os.devnull).open("w") as sink:  # what is left of them is written at the exit
        os.dup2(sink.fileno(), sys.stdout.fileno())
    if failure.errno == errno.EPIPE:  # whatever read them has seen enough
        return UNREAD_EXIT_CODE
    is_begun = arguments[:1] == ["train"] and not {"-h", "--help", "--dry-run"} & {*arguments}
    ending = "with --resume" if is_begun else "again"
    hint = f"look where stdout goes, then run the same command {ending}"
    sentence = f"the results cannot be written: {failure.strerror}"
    return _tell(sentence, hint, ImnetprepError.exit_code)


def _lacks_torch(error: Exception, arguments: list[str]) -> tuple[str, str] | None:
    """What to install, where it is a package of the extra [train]."""
    match error:
        case ModuleNotFoundError(name=("torch" | "torchvision" | "matplotlib") as name):
            hint = shell_command(sys.executable, "-m", "pip", "install", "imnetprep[train]")
            return f"imnetprep {arguments[0]} needs {name}, which is not installed", hint
    return None


def main() -> None:
    """Run the command line of this process, and end it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, _stop)
    threading.excepthook = _end_thread
    outlive_terminal()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # LC_ALL may know no letter but ASCII
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: else the next file that is opened would be it
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - until the end
    setattr(sys, "stdout", _Results(sys.stdout))  # noqa: B010 - its type is another
    setattr(sys, "stderr", _Talk(sys.stderr))  # noqa: B010
    exit_code = run(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left that ^C could save
    sys.exit(exit_code)


class _Unwritten(Exception):
    """Results were not written. No OSError: click and others would take it for one of theirs."""

    def __init__(self, failure: OSError) -> None:
        super().__init__(str(failure))
        self.failure = failure


class _Results:
    """A stdout whose failure is told from all others."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise _Unwritten(error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise _Unwritten(error) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Talk(_Results):
    """A stderr whose failure changes nothing, such as that of a log on a full disk."""

    def write(self, text: str) -> int:
        with suppress(_Unwritten):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(_Unwritten):
            super().flush()


def _stop(number: int, frame: FrameType | None) -> None:
    """Raise what ends the command. While modules are loaded, end it: they may swallow that, or tell
    it as a failure of their own.
    """
    exit_code = INTERRUPTED_EXIT_CODE if number == signal.SIGINT else TERMINATED_EXIT_CODE
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            with suppress(OSError):  # the terminal may be gone
                os.write(2, f"Stopped: {Interruption(exit_code)}\n".encode())
            os._exit(exit_code)
        frame = frame.f_back
    raise KeyboardInterrupt if number == signal.SIGINT else Interruption(exit_code)


def _end_thread(end: threading.ExceptHookArgs) -> None:
    """Tell what ended a thread, unless the machine did: whoever waits for the thread tells that."""
    if end.exc_value is None or explain(end.exc_value) is None:
        threading.__excepthook__(end)


_show_warning = warnings.showwarning


def _tell_lack(message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Tell in one line what a command goes on without; other warnings as Python does."""
    if issubclass(category, Lack):
        print_note(str(message))
    else:
        _show_warning(message, category, *place)


def _tell(sentence: str, hint: str, exit_code: int) -> int:
    print_note(f"Error: {sentence}")
    print_note(f"Hint: {hint}")
    return exit_code


def _our_bug() -> int:
    problem = quoted(traceback.format_exception_only(*sys.exc_info()[:2])[-1])
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            encoding="utf-8",
            errors="backslashreplace",
            prefix="imnetprep-",
            suffix=".traceback",
            delete=False,
        ) as file:
            file.write(without_credentials(traceback.format_exc()))
        hint = f"the traceback is in {file.name}; add it to a report"
    except OSError as error:
        hint = f"the traceback cannot be kept ({error.strerror}): run the command once more"
    return _tell(f"a bug in imnetprep: {problem}", hint, OUR_BUG_EXIT_CODE)
