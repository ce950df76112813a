"""The exception of this room."""


class ExplainerError(ValueError):
    """An explanation cannot be made; the message names the input or model and the remedy."""
