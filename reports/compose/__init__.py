"""From a record to a document: what is said where."""
