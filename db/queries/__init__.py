"""Questions to the record: runs, findings, events, parts, recalls."""
