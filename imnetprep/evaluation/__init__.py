"""A network scored on the validation images of a root, and what it gets wrong."""

import imnetprep.pixels  # noqa: F401 - which says what torch is to know before it is loaded
