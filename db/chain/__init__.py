"""The hash chain: how an event is written, and how rows are spelled, inserted and read for it."""
