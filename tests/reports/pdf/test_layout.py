"""The renderer fetches nothing, and leaves the process as it found it."""

import os
import re
import subprocess
import sys
import tempfile
from io import BytesIO
from unittest import mock

import pytest
from pypdf import PdfReader

from db.files import remove_workspaces
from reports.errors import ReportError
from reports.pdf.blocks import style_sheet
from reports.pdf.layout import Asset, Layout, MemoryFetcher, own_font
from reports.style import Style


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "http://127.0.0.1:9/x",
        "https://example.com/x.png",
        "data:image/png;base64,AAAA",
        "kensa:other",
    ],
)
def test_only_assets_are_answered(url):
    fetcher = MemoryFetcher({"kensa:logo": Asset(b"bytes", "image/png")}.get)
    with pytest.raises(ReportError, match="never fetches"):
        fetcher.fetch(url)
    response = fetcher.fetch("kensa:logo")
    assert (response.read(), response.content_type) == (b"bytes", "image/png")
    with pytest.raises(ReportError, match=re.escape(repr(url))):
        fetcher.check()


@pytest.mark.parametrize(
    "html",
    [
        '<img src="file:///etc/hostname">',
        '<p style="background: url(https://example.com/x)">x</p>',
        '<link rel="stylesheet" href="http://127.0.0.1:9/x.css">',
        "<style>@import url(file:///etc/hostname)</style>",
        '<svg><image href="file:///etc/hostname" width="9" height="9"/></svg>',
    ],
)
def test_a_template_that_wants_to_fetch_is_an_error(html):
    with pytest.raises(ReportError, match="never fetches"):
        Layout(f'<html lang="en"><body>{html}</body></html>', "", {}.get).write()


def test_a_killed_layout_leaves_only_what_the_next_run_removes(tmp_path):
    code = """if True:
        import os, signal, sys
        from reports.pdf.layout import Layout, own_font
        css = "@font-face { font-family: K; src: url(kensa:fonts/Inter-Regular.otf); } p { font: 7pt K; }"
        layout = Layout('<html lang="en"><title>x</title><body><p>x</p></body></html>', css, own_font)
        print(os.listdir(os.environ["TMPDIR"]), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert "kensa-fonts-" in done.stdout, done.stderr
    with mock.patch.object(tempfile, "tempdir", str(tmp_path)):
        remove_workspaces()
    assert list(tmp_path.iterdir()) == []


def test_pillow_still_refuses_truncated_pictures():
    code = "from PIL import ImageFile; import reports.pdf.render; print(ImageFile.LOAD_TRUNCATED_IMAGES)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_importing_the_room_does_not_load_the_renderer():
    code = "import sys, reports; print('weasyprint' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("rows", [2, 3, 4, 9])
def test_no_page_begins_or_ends_with_a_single_row_of_a_table(rows):
    table = "".join(f"<tr><td>row {n}</td></tr>" for n in range(rows))
    sheet = style_sheet(Style(), None, leads=False)
    for above in range(200, 246, 3):
        html = (
            f'<body><div style="height: {above}mm"></div><table class="list"><thead><tr><th>Name</th></tr>'
            f"</thead><tbody>{table}</tbody></table></body>"
        )
        pages = PdfReader(BytesIO(Layout(html, sheet, own_font).write())).pages
        shown = [len(re.findall(r"row \d", page.extract_text())) for page in pages]
        assert sum(shown) == rows
        assert 1 not in shown, (above, shown)
