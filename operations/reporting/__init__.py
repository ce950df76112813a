"""Reports of runs, periods, findings and parts: read from the record, issued, sealed, verified."""
