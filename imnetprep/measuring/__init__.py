"""How fast a machine trains, measured in some seconds, and what holds it back."""

import imnetprep.loading  # noqa: F401  # says how the threads of torch wait, before it is loaded
