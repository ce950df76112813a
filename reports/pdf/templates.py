"""Prints templates, a user's before kensa's own, in a sandbox that reads nothing else."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any

from jinja2 import BaseLoader, ChoiceLoader, FunctionLoader, PackageLoader, PrefixLoader, StrictUndefined
from jinja2.exceptions import TemplateNotFound, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from reports import wording
from reports.charts.layout import key_places
from reports.document import Document
from reports.errors import ReportError
from reports.pdf.tags import ADDRESS

# Where a user's assets are found: in templates asset("seal.png"), in extra.css url(kensa:own/seal.png).
OWN = "kensa:own/"
_LARGEST = 2_000_000  # bytes, of a file in a user's folder
_LOGOS = ("logo.svg", "logo.png")


class OwnFolder:
    """A user's folder of overrides. Nothing outside it and nothing large is ever read."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ReportError(f"templates: {folder} is not a folder; correct report.templates or create it")
        self._folder = folder.resolve()

    def read(self, name: str) -> bytes | None:
        """Read a file; None where there is none.

        Raises:
            ReportError: the path leads out of the folder, or the file is above 2 MB.
        """
        if "\x00" in name:
            return None
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder):
            raise ReportError(f"templates: {name!r} leads out of {self._folder}; keep assets inside it")
        if not path.is_file():
            return None
        if path.stat().st_size > _LARGEST:
            raise ReportError(f"templates: {path} is larger than {_LARGEST // 1_000_000} MB; make it smaller")
        return path.read_bytes()

    def text(self, name: str) -> str | None:
        """Read a file as UTF-8 text; None where there is none.

        Raises:
            ReportError: as `read`, or the file is something else.
        """
        data = self.read(name)
        try:
            return None if data is None else data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ReportError(f"templates: {self._folder / name} is not UTF-8 text: {error}") from error

    def source(self, name: str) -> tuple[str, str, Callable[[], bool]] | None:
        """Load a template for Jinja, which asks for it again at each rendering."""
        text = self.text(name)
        return None if text is None else (text, str(self._folder / name), lambda: False)

    @property
    def logo(self) -> str | None:
        """The URL of the logo, if there is one."""
        return next((OWN + name for name in _LOGOS if self.read(name) is not None), None)


def print_block(
    document: Document,
    template: str,
    context: Mapping[str, Any],
    page_of: Callable[[str], object],
    constants: Mapping[str, Any],
) -> str:
    """Return a block as a whole HTML document: the body's template between the document's head and foot.

    Args:
        document: the document that the block belongs to.
        template: the name of the body's template.
        context: what the template prints.
        page_of: returns the page of an id.
        constants: what all templates may print.

    Raises:
        ReportError: a template is not there or fails; the message names the file and the line.
    """
    style = document.style
    folder = None if style.templates is None else OwnFolder(style.templates)
    try:
        return (
            _environment(style.templates)
            .get_template("base.html")
            .render(
                constants,
                **context,
                body=template,
                document=document,
                page_of=page_of,
                link=_link_url,
                asset=_asset_url,
                logo=None if folder is None else folder.logo,
                has_address=folder is not None and folder.read("address.html") is not None,
                when=partial(wording.when, style=style),
                day=partial(wording.day, style=style),
            )
        )
    except ReportError:
        raise
    except TemplateNotFound as error:
        raise ReportError(
            f"template {error.name!r} is not there; templates lie in reports/templates"
        ) from error
    except TemplateSyntaxError as error:
        raise ReportError(f"{error.filename or error.name}, line {error.lineno}: {error.message}") from error
    except Exception as error:  # a template may do anything; whatever it did wrong is told by file and line
        raise ReportError(
            f"{_failing_template(error.__traceback__)}: {type(error).__name__}: {error}"
        ) from error


@cache
def _environment(folder: Path | None) -> ImmutableSandboxedEnvironment:
    package = PackageLoader("reports")
    own: list[BaseLoader] = [] if folder is None else [FunctionLoader(OwnFolder(folder).source)]
    environment = ImmutableSandboxedEnvironment(
        # "kensa/finding.html" is kensa's own, for a file that builds on the one it replaces.
        loader=ChoiceLoader([*own, package, PrefixLoader({"kensa": package})]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_clean_value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        clip=wording.clip,
        grouped=wording.grouped,
        plural=wording.plural,
        score=wording.score,
        threshold=wording.threshold,
        percent=wording.percent,
        lasting=wording.lasting,
        digest=_digest_lines,
        short=wording.short_digest,
        links=_link_urls,
        key_places=key_places,
    )
    return environment


def compile_templates() -> None:
    """Compile kensa's own templates, for the processes that are forked from this one."""
    environment = _environment(None)
    for name in environment.list_templates(extensions=["html", "svg"]):
        environment.get_template(name)


def _failing_template(trace: TracebackType | None) -> str:
    """Return the innermost template in a traceback: Jinja gives its frames the template's file and lines."""
    place = "template"
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.endswith((".html", ".svg", ".css")):
            place = f"{name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _clean_value(value: object) -> object:
    """Return what a template prints, cleaned unless the template itself made it."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return wording.clean(value)
    return "–" if value is None else value


def _link_url(anchor: str) -> str:
    """Return the address of an element of the document, in whatever block it lies."""
    return f"{ADDRESS}{anchor}"


def _link_urls(anchors: Mapping[str, str]) -> dict[str, str]:
    return {name: _link_url(anchor) for name, anchor in anchors.items()}


def _asset_url(name: str) -> str:
    return OWN + name


def _digest_lines(digest: str) -> list[str]:
    """Return a digest in lines of 32 characters, the first one after what says which digest it is, if any."""
    scheme, colon, text = wording.clip(digest, 128).rpartition(":")
    lines = [text[start : start + 32] for start in range(0, len(text), 32)]
    return [scheme + colon + line if not place else line for place, line in enumerate(lines)]
