"""What the documentation and the docstrings name is there: files, links, modules, commands, options."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from cli.main import COMMANDS, app, load_command

ROOT = Path(__file__).parent.parent
ROOMS = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
FOLDERS = {*ROOMS, "benchmarks", "docs", "tests", ".ci"}
DOCUMENTS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
DOCUMENTS += sorted((ROOT / "docs").rglob("*.md"))
# What kensa writes, or a plant lays beside its settings: named in the documentation, absent here.
NOT_OURS = {"table.md", "extra.css", "logo.svg", "address.html", "run_extra.html", "model_extra.html"}
SUFFIXES = {".py", ".md", ".html", ".css", ".svg", ".toml", ".ini"}

FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
MARKDOWN = re.compile(r"(?<![\w./*…-])[\w./-]+\.md\b")
PATH = re.compile(
    r"(?<![\w./~<…:-])(?:(?:[\w.*-]+/)+[\w*-]*(?:\.[a-z]+)?(?::\w+)?|[\w*-]+\.[a-z]+)(?![\w/…(-])"
)
DOTTED = re.compile(r"(?<![\w./-])\w+(?:\.[A-Za-z_]\w*)+(?![\w./-])")
MAKE = re.compile(r"\bmake (?:[A-Z_]+=\S+ )*([a-z-]+)")
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z0-9-]*")
COMMAND = re.compile(r"(?:^(?:\$ )?(?:[A-Z_]+=\S+ )*|[|;&] *)kensa +(.+)")


@cache
def project() -> tuple[str, ...]:
    """Every file and folder of the project; a folder ends in "/"."""
    found = [path for path in ROOT.iterdir() if path.is_file() or path.name in FOLDERS]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    return tuple(path.relative_to(ROOT).as_posix() + "/" * path.is_dir() for path in found)


@cache
def cited_path(cited: str) -> str | None:
    """The first of our paths that ends in the cited one: "db/schema.py", "sise/layers.py", "stats/"."""
    pattern = re.escape(cited.rstrip("/")).replace(r"\*", "[^/]*")
    wanted = re.compile(rf"(?:.*/)?{pattern}/?")
    return next((path for path in project() if wanted.fullmatch(path)), None)


def defines(module: Path, name: str) -> bool:
    """Whether a module binds a name, at its top or in a class, or lists it as its public face does."""
    binding = rf'^\s*(?:(?:async )?def|class) {name}\b|^\s*{name}\b[^=\n]* = |^\s*{name}: |"{name}"'
    return re.search(binding, module.read_text(encoding="utf-8"), re.MULTILINE) is not None


def is_name(dotted: str) -> bool:
    """Whether "room.package.module.name" leads somewhere, without importing it."""
    place, *names = ROOT, *dotted.split(".")
    while names and place.is_dir() and (place / names[0]).is_dir():
        place /= names.pop(0)
    if names and (place / f"{names[0]}.py").is_file():
        place = place / f"{names.pop(0)}.py"
    module = place / "__init__.py" if place.is_dir() else place
    return module.is_file() and all(defines(module, name) for name in names)


@cache
def commands() -> dict[str, set[str]]:
    """The options of each command ("report run"); those of a group are its own."""
    whole = typer.main.get_command(app)
    found = {"": whole, **whole.commands}
    for group, names in COMMANDS.items():
        place = "" if group == whole.name else f"{group} "
        found |= {place + name: load_command(group, name) for name in names}
    return {
        name: {
            option
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
            if option.startswith("-")
        }
        | {"--help"}
        for name, command in found.items()
    }


@cache
def known_options() -> set[str]:
    """Every option of kensa and of the benchmarks."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
    return set().union(*commands().values(), re.findall(r'"(--[a-z-]+)"', sources))


def wrong_command(line: str) -> Iterator[str]:
    """What kensa would not understand of a line that follows "kensa "; [] marks what may be left out."""
    words = re.split(r"\s[#|>;&]", line)[0].replace("[", " ").replace("]", " ").split()
    command = ""
    while words and f"{command} {words[0]}".strip() in commands():
        command = f"{command} {words.pop(0)}".strip()
    is_group = any(name.startswith(f"{command} ".lstrip()) for name in commands() if name != command)
    if is_group and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        yield " ".join(filter(None, ("kensa", command, words[0])))
        return
    for option in OPTION.findall(" ".join(words)):
        if option not in commands()[command]:
            yield f"kensa {command} {option}"


def wrong_path(path: str) -> Iterator[str]:
    """The path, if it looks like one of ours ("db/schema.py", "stats/", "db/schema.py:Base") and is not."""
    path, _, name = path.removeprefix("kensa/").partition(":")  # how a template names one of those that ship
    suffix = Path(path).suffix
    ours = suffix in SUFFIXES or path.endswith("/") or (not suffix and path.split("/")[0] in FOLDERS)
    if not ours or path in NOT_OURS:
        return
    found = cited_path(path)
    if found is None or (name and not defines(ROOT / found, name)):
        yield f"{path}:{name}".rstrip(":")


def wrong_link(link: str, folder: Path, text: str) -> bool:
    if "://" in link:
        return False
    target, _, anchor = link.partition("#")
    page = folder / target
    if not page.exists():
        return True
    return bool(anchor) and anchor not in headings(page.read_text(encoding="utf-8") if target else text)


def wrong_citations(text: str, folder: Path = ROOT) -> Iterator[str]:
    """Everything that a Markdown text in a folder names and the project has not."""
    yield from (link for link in LINK.findall(text) if wrong_link(link, folder, text))
    for page in MARKDOWN.findall(re.sub(r"https?://\S+", "", text)):
        if page not in NOT_OURS and not (folder / page).exists() and cited_path(page) is None:
            yield page
    inline = INLINE.findall(FENCE.sub("", text))
    fenced = "\n".join(FENCE.findall(text)).replace("\\\n", " ").splitlines()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for code in inline + fenced:
        yield from (f"make {target}" for target in MAKE.findall(code) if target not in targets)
        for line in COMMAND.findall(code):
            yield from wrong_command(line)
    for code in inline:
        if code.startswith("--"):
            yield from (option for option in OPTION.findall(code) if option not in known_options())
        for path in PATH.findall(code):
            yield from wrong_path(path)
        for name in DOTTED.findall(code):
            if name.split(".")[0] in FOLDERS and Path(name).suffix not in SUFFIXES and not is_name(name):
                yield name


def headings(text: str) -> set[str]:
    """The anchors of a Markdown text, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.name == "CHANGELOG.md":  # older versions speak of what was there then
        text = text.split("\n## ")[1]
    assert sorted(set(wrong_citations(text, page.parent))) == []


def test_what_docstrings_comments_and_settings_cite_is_there() -> None:
    wrong = []
    for name in project():
        if name.endswith((".py", ".yaml", ".html", ".toml")) or name.startswith((".ci/", "Makefile")):
            path = ROOT / name
            if path.is_file() and path != Path(__file__):
                cited = set(MARKDOWN.findall(path.read_text(encoding="utf-8"))) - NOT_OURS
                wrong += [f"{name}: {page}" for page in sorted(cited) if cited_path(page) is None]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (
            "[how](docs/audit.md), [why](docs/audit.md#what-kensa-audit-verify-finds), [https](https://a.example/b.md)",
            [],
        ),
        ("[how](docs/audits.md)", ["docs/audits.md"]),
        ("[how](docs/audit.md#no-such-heading)", ["docs/audit.md#no-such-heading"]),
        ("see SISE.md and audit.md", ["SISE.md"]),
        (
            "`db/schema.py`, `sise/layers.py`, `stats/`, `reports/templates`, `configs/*.yaml`, `line.yaml`",
            [],
        ),
        (
            "`db/schemas.py`, `statistics/`, `reports/template`",
            ["db/schemas.py", "reports/template", "statistics/"],
        ),
        ("`flows/inspection.py:inspect`, `flows/inspection.py:inspects`", ["flows/inspection.py:inspects"]),
        ("`db.schema.AuditEvent`, `explainers.list_explainers()`, `db.figures`, `benchmarks.reports`", []),
        ("`db.schema.AuditEvents`, `db.figure`", ["db.figure", "db.schema.AuditEvents"]),
        ("`kensa run`, `kensa report part P000075 [--lot L002]`, `kensa --version`, `make test VENV=x`", []),
        ("`kensa runs`, `kensa report runs`", ["kensa report runs", "kensa runs"]),
        ("`kensa run --fast`, `--again`, `--agains`", ["--agains", "kensa run --fast"]),
        (
            "```sh\nkensa run \\\n  --fast  # --no\n$ kensa go\nmake it\n```",
            ["kensa go", "kensa run --fast", "make it"],
        ),
    ],
)
def test_a_wrong_citation_is_found(text: str, wrong: list[str]) -> None:
    assert sorted(set(wrong_citations(text))) == wrong
