"""Remote shards: fetched whole into a cache of bounded size on this machine."""
