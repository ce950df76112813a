"""The record: an append-only, hash-chained database of what was inspected, decided and why."""
