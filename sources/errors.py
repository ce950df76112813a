"""The exceptions of this room: about a source as a whole, and about one picture of it."""

from configs.credentials import masked_text


class SourceError(Exception):
    """The source itself cannot be used; the message names the input and the remedy, and no secret."""

    def __init__(self, message: str) -> None:
        super().__init__(masked_text(message))


class SourceAwayError(SourceError):
    """The source cannot be opened or listed at present: not mounted, or its server is away."""


class Unreadable(Exception):  # noqa: N818 - named after the verdict it leads to
    """One picture cannot be used; `str(error)` is the reason that is recorded, and holds no secret."""

    def __init__(self, reason: str) -> None:
        super().__init__(masked_text(reason))
