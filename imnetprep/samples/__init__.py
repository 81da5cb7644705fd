"""The samples of a root: listed, held out, and read as pixels of one image each."""

import imnetprep.pixels  # noqa: F401 - which says what torch is to know before it is loaded
