"""How fast a machine trains, measured in some seconds, and what holds it back."""

import imnetprep.pixels  # noqa: F401 - which says what torch is to know before it is loaded
