"""Sources of archives: folders, buckets, web servers, pipes and BitTorrent swarms."""
