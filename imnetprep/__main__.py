"""`python -m imnetprep` is `imnetprep`."""

from imnetprep.cli import main

main()
