"""Statistics that reports print: control charts, Nelson's rules, drift, agreement."""
