"""A split to shards, from class folders or straight from an archive."""
