"""A root and a bucket made equal."""
