"""The errors that this room raises."""


class ClassifierError(ValueError):
    """A classifier, its data or its settings are wrong; the message says what to do."""


class PackageError(ClassifierError):
    """A model package is broken, was tampered with, or cannot be used for what was asked."""
