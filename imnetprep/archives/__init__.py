"""Bytes to members: archives read as streams, over anything that can `read_at`."""
