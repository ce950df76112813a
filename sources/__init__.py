"""Where pictures come from: listing and reading a source, decoding safely, part and lot metadata."""
