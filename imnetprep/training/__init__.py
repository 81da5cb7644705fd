"""Networks trained and validated."""

import imnetprep.pixels  # noqa: F401 - which says what torch is to know before it is loaded
