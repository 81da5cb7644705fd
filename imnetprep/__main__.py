"""The command `imnetprep`, and `python -m imnetprep`: ^C tells no traceback from the start."""

import signal


def main() -> None:
    """The console script."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command line is loaded
    from imnetprep.cli import main as main_of_cli

    main_of_cli()


if __name__ == "__main__":
    main()
