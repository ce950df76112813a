"""PDF audit reports: records in, bytes out. Same record, same bytes; nothing is ever fetched."""
