"""Numbers for reports, as of an event: scopes, periods, series, changes, agreement."""
