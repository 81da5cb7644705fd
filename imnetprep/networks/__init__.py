"""Networks by their names, and weights of other programs; nothing here knows of training."""

import imnetprep.pixels  # noqa: F401 - which says what torch is to know before it is loaded
