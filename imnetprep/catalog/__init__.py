"""Datasets as data: archives, splits, synsets, labels and counts, built in or from a TOML file."""
