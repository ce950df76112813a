"""From a document to the bytes of a PDF: templates, layout, tags, joining."""
