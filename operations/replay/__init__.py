"""A recorded decision computed again, and compared."""
