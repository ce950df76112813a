"""The exceptions of this room: about a source as a whole, and about one picture of it."""


class SourceError(Exception):
    """The source itself cannot be used; the message names the input and the remedy."""


class Unreadable(Exception):  # noqa: N818 - named after the verdict it leads to
    """One picture cannot be used; `str(error)` is the reason that is recorded."""
