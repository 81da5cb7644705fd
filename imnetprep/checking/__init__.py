"""A tree or its shards against what should lie there."""
