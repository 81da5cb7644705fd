"""The samples of a root: listed, held out, read as pixels, and what stands in for a bad one."""

import imnetprep.pixels  # noqa: F401 - which says what torch is to know before it is loaded
