"""Processes that train one network: started, counted, agreed on each step, and stopped together."""

import imnetprep.pixels  # noqa: F401 - which says what torch is to know before it is loaded
