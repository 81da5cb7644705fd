"""Sources of archives: folders, pipes, buckets, web servers, services, BitTorrent swarms."""
