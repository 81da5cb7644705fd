"""A tree, its shards or its archives against what should lie there."""
