"""Is the history intact? The walk over the chain, and witnesses kept elsewhere."""
