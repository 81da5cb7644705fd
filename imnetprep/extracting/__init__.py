"""Ranges of an archive to samples, handed to a sink."""
