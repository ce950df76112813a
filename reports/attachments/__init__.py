"""What a report carries for machines: its record as JSON, the schema, the listing, the manifest."""
