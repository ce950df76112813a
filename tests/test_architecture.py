"""The house: imports point one way, and some rooms know nothing of some things."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A picture moves through the rooms in this order; a room imports earlier ones only.
ROOMS = ["configs", "sources", "classifiers", "explainers", "db", "reports", "operations", "flows", "cli"]
FORBIDDEN = {
    "sources": {"prefect", "fastapi", "sqlalchemy", "typer", "rich", "torch"},
    "classifiers": {"prefect", "fastapi", "sqlalchemy", "typer", "rich", "pydantic", "yaml"},
    "explainers": {"prefect", "fastapi", "sqlalchemy", "typer", "rich", "pydantic", "yaml", "fsspec"},
    "reports": {"prefect", "fastapi", "sqlalchemy", "typer", "rich", "timm"},
    "db": {"prefect", "fastapi", "torch", "timm", "typer", "rich"},
    "configs": {"prefect", "fastapi", "sqlalchemy", "typer", "rich", "torch"},
    "operations": {"prefect", "fastapi", "typer", "rich"},
    "flows": {"fastapi", "typer", "rich"},
    "cli": {"prefect", "fastapi"},
}


# Inside a room too, a package imports earlier ones only; "" is every module of the room that is not named.
PACKAGES = {
    "db": [
        *(
            "",
            "chain",
            "engine",
            "grants",
            "transparency",
            "people",
            "retention",
            "inspection",
            "dispositions",
        ),
        *("issued", "queries", "figures", "verification", "migrations"),
    ],
    "reports": [
        *("", "stats", "content", "charts", "document", "attachments", "compose", "pdf", "signatures"),
    ],
}
# An `__init__` holds a sentence: a face that imports its modules closes cycles and loads too much.
FACES = {"classifiers", "explainers"}

# Packages of the eval extra that the baselines are computed by: imported when one is called, never before.
BASELINES = ROOT / "explainers" / "baselines"
ENGINES = ROOT / "classifiers" / "engines"
EVAL = {"captum", "pytorch_grad_cam", "torchcam"}


def modules(path: Path, *, at_import: bool = False) -> set[str]:
    """Dotted names that a file imports: wherever in the file, or (at_import) outside its functions."""
    names: set[str] = set()
    for node in walk(ast.parse(path.read_text(encoding="utf-8")), into_functions=not at_import):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the room's name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports(path: Path, *, at_import: bool = False) -> set[str]:
    """Top-level names that a file imports, see `modules`."""
    return {name.split(".")[0] for name in modules(path, at_import=at_import)}


def walk(node: ast.AST, *, into_functions: bool) -> Iterator[ast.AST]:
    yield node
    if into_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for child in ast.iter_child_nodes(node):
            yield from walk(child, into_functions=into_functions)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"the room {room} is empty"
    later = set(ROOMS[ROOMS.index(room) + 1 :]) | {"review"}
    for path in files:
        used = imports(path)
        wrong = used & (later | FORBIDDEN[room])
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("room", PACKAGES)
def test_packages_inside_a_room_import_one_way(room: str) -> None:
    order = PACKAGES[room]

    def rank(parts: Sequence[str]) -> int:
        return order.index(parts[1] if len(parts) > 1 and parts[1] in order else "")

    held = {path.name.removesuffix(".py") for path in (ROOT / room).iterdir()}
    assert set(order) - {""} <= held, "a package in the order that is not there"
    for path in sorted((ROOT / room).rglob("*.py")):
        own = rank(path.relative_to(ROOT).with_suffix("").parts)
        used = {name for name in modules(path) if name.split(".")[0] == room}
        wrong = sorted(name for name in used if rank(name.split(".")) > own)
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_every_package_of_a_room_has_its_place_in_the_order() -> None:
    for room, order in PACKAGES.items():
        packages = {path.parent.name for path in (ROOT / room).glob("*/__init__.py")}
        assert packages <= set(order), f"{room}: {sorted(packages - set(order))}"


@pytest.mark.parametrize("room", ["classifiers", "explainers"])
def test_a_public_face_is_lazy(room: str) -> None:
    code = f"import sys, {room}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_faces_of_packages_import_nothing() -> None:
    for room in ROOMS:
        for path in (ROOT / room).rglob("__init__.py"):
            if path.parent.relative_to(ROOT).as_posix() not in FACES:
                assert not modules(path), path


def test_no_folder_holds_more_files_than_a_reader_takes_in() -> None:
    counts = Counter(path.parent for room in [*ROOMS, "tests"] for path in (ROOT / room).rglob("*.py"))
    assert {str(folder): count for folder, count in counts.items() if count > 14} == {}


def test_no_module_shadows_the_standard_library() -> None:
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            assert path.stem not in sys.stdlib_module_names or path.stem.startswith("__"), path


@pytest.mark.parametrize("room", ["classifiers", "explainers"])
def test_the_gpu_rooms_import_with_torch_timm_numpy_alone(room: str) -> None:
    allowed = {"torch", "torchvision", "timm", "safetensors", "numpy", "PIL", "scipy", "torchmetrics"}
    for path in sorted((ROOT / room).rglob("*.py")):
        late = EVAL if path.is_relative_to(BASELINES) else set()
        if path.is_relative_to(ENGINES):
            late = {"openvino"}
        if path == ROOT / "classifiers" / "export.py":
            late = {"onnx", "onnxruntime"}
        late = late - imports(path, at_import=True)
        foreign = imports(path) - set(sys.stdlib_module_names) - set(ROOMS) - allowed - late
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"
