"""What goes wrong in reports."""

from configs.credentials import masked_text


class ReportError(ValueError):
    """A report cannot be made from this record; the message names the field and the remedy, and no secret."""

    def __init__(self, message: str) -> None:
        super().__init__(masked_text(message))
