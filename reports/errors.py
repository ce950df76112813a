"""What goes wrong in reports."""


class ReportError(ValueError):
    """A report cannot be made from this record; the message names the field and the remedy."""
