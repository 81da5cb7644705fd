"""A tree as it lies against what should lie there: what verify, adopt and repair share."""
