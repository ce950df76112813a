"""Where pictures come from: listing and reading a source, decoding safely, part and lot metadata."""

from sources.decoding import DecodedImage, decode
from sources.errors import SourceError, Unreadable
from sources.folder import ListedImage, Source, open_source
from sources.metadata import Metadata
from sources.picture_statistics import PictureStatistics, picture_statistics

__all__ = [
    "DecodedImage",
    "ListedImage",
    "Metadata",
    "PictureStatistics",
    "Source",
    "SourceError",
    "Unreadable",
    "decode",
    "open_source",
    "picture_statistics",
]
