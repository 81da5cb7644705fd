"""Archives as bytes: members, ranges and indexes of tars and zips, read from any place."""
