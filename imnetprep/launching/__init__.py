"""A training on a machine of EC2: its plan, its price, the machine's own work, and its end.

A group of one machine respawns it and a scheduled action ends it: both are AWS's own engines, so
nothing depends on the laptop. All that laptop and machine say to each other are objects under
`PREFIX/launches/RUN/`.
"""
