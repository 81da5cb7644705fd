"""What proves the bytes of an archive, and what the receipt says of it."""
