"""Commands that issue, sign and verify reports."""
