"""The command `imnetprep`, and `python -m imnetprep`: ^C tells no traceback from the start."""

import os
import signal
import sys


def main() -> None:
    """The console script."""
    if sys.getfilesystemencoding() != "utf-8":  # manifests name files in UTF-8, in every locale
        words = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execv(sys.executable, words)  # noqa: S606 - the very words of this process
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command line is loaded
    from imnetprep.cli import main as main_of_cli

    main_of_cli()


if __name__ == "__main__":
    main()
