"""What this room raises."""


class ClassifierError(ValueError):
    """Something about a classifier, its data or its settings is wrong; the message says what to do."""


class PackageError(ClassifierError):
    """A model package is broken, tampered with, or cannot be used for what was asked."""
