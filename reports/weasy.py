"""WeasyPrint, kept to what it is handed, and without its side effect on the rest of the process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import ImageFile

# Importing WeasyPrint makes Pillow accept truncated pictures in the whole process; an inspection must not.
_truncated_accepted = ImageFile.LOAD_TRUNCATED_IMAGES
from weasyprint import CSS, HTML, Attachment  # noqa: E402
from weasyprint.text.fonts import FontConfiguration  # noqa: E402
from weasyprint.urls import URLFetcher, URLFetcherResponse  # noqa: E402

from reports.record import AttachedFile, ReportError  # noqa: E402

ImageFile.LOAD_TRUNCATED_IMAGES = _truncated_accepted


@dataclass(frozen=True)
class Asset:
    """Bytes that a document may refer to by URL."""

    data: bytes
    media_type: str


class MemoryFetcher(URLFetcher):  # type: ignore[misc]  # WeasyPrint is untyped
    """Answers from a mapping of URLs to assets and refuses everything else, remembering what it refused."""

    def __init__(self, assets: Mapping[str, Asset]) -> None:
        super().__init__(allowed_protocols=())
        self._assets = assets
        self.refused: list[str] = []

    def fetch(self, url: str, headers: Mapping[str, str] | None = None) -> URLFetcherResponse:
        """Give the asset of this URL; raises `ValueError` for any other URL."""
        asset = self._assets.get(url)
        if asset is None:
            self.refused.append(url)
            raise ValueError(f"{url[:100]!r} is not among the document's own assets")
        return URLFetcherResponse(url, asset.data, {"Content-Type": asset.media_type})


def write_pdf(
    html: str, css: str, assets: Mapping[str, Asset], attached: Sequence[AttachedFile] = ()
) -> bytes:
    """Lay out HTML with a style sheet and assets as a tagged PDF that carries the attached files.

    Raises:
        ReportError: the document asked for something that it was not handed.
    """
    fetcher = MemoryFetcher(assets)
    fonts = FontConfiguration()
    style = CSS(string=css, url_fetcher=fetcher, font_config=fonts)
    pdf: bytes = HTML(string=html, url_fetcher=fetcher).write_pdf(
        stylesheets=[style],
        font_config=fonts,
        pdf_tags=True,
        pdf_identifier=True,
        attachments=[
            Attachment(
                string=file.text,
                name=file.name,
                description=file.description,
                created=file.at,
                modified=file.at,
                relationship="Data",
                url_fetcher=fetcher,
            )
            for file in attached
        ],
    )
    if fetcher.refused:
        raise ReportError(
            f"the document refers to {fetcher.refused[0][:200]!r}, which it was not handed; "
            "correct the template, a report never fetches"
        )
    return pdf
