"""Imports point one way: each layer can be read without opening the ones above it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
EVERYBODY = {"errors", "params", "params_oneshot", "effects"}  # may be imported by all above them
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "lazy": set(),
    "params": {"errors"},
    "params_oneshot": {"params", "errors"},
    "effects": {"params"},
    "kernels": EVERYBODY,
    "primitives": {"kernels"} | EVERYBODY,
    "messages": EVERYBODY,
    "protocol": {"kernels", "primitives", "messages"} | EVERYBODY,
    "digests": {"primitives"} | EVERYBODY,
    "local": {"kernels", "primitives", "protocol", "local_oneshot"} | EVERYBODY,
    "local_oneshot": {"kernels", "primitives", "protocol"} | EVERYBODY,
    "transcript": {"kernels", "primitives", "messages", "protocol"} | EVERYBODY,
    "audit": {"lazy", "primitives", "messages"} | EVERYBODY,
    "store": {"primitives", "messages", "audit"} | EVERYBODY,
    "embedding": {"kernels", "primitives", "messages", "protocol", "store", "key_files", "registry"}
    | EVERYBODY,
    "key_files": {"primitives"} | EVERYBODY,
    "registry": {"primitives", "messages", "store"} | EVERYBODY,
    "service": {"kernels", "primitives", "messages", "protocol", "local", "store", "transcript", "audit"}
    | {"key_files", "registry", "embedding"}
    | EVERYBODY,
    "costs": {"kernels", "primitives"} | EVERYBODY,
    "planning": {"kernels", "primitives", "messages", "costs"} | EVERYBODY,
    "costs_oneshot": {"kernels", "primitives", "costs"} | EVERYBODY,
    "planning_oneshot": {"kernels", "primitives", "messages", "costs_oneshot", "planning"} | EVERYBODY,
    "explanation": {"planning"} | EVERYBODY,
    "explanation_oneshot": {"planning_oneshot", "explanation"} | EVERYBODY,
    "reports": {"transcript", "planning", "planning_oneshot", "explanation"} | EVERYBODY,
    "cli_audit": {"primitives", "service", "store", "audit"} | EVERYBODY,
    "cli_party": {"service", "store", "key_files", "registry"} | EVERYBODY,
    "cli_decrypt": {"cli_party", "service", "store", "secagg"} | EVERYBODY,
    "cli_edge": {"cli_party", "service", "store"} | EVERYBODY,
    "cli": {
        "audit",
        "cli_audit",
        "cli_decrypt",
        "cli_edge",
        "kernels",
        "service",
        "store",
        "secagg",
        "transcript",
        "reports",
        "planning",
        "planning_oneshot",
        "costs",
        "costs_oneshot",
        "explanation",
        "explanation_oneshot",
        "cli_registry",
    }
    | EVERYBODY,
    "cli_registry": {"service", "store", "secagg", "key_files", "registry"} | EVERYBODY,
    "__init__": {
        "lazy",
        "digests",
        "primitives",
        "protocol",
        "local",
        "local_oneshot",
        "planning",
        "explanation",
    }
    | EVERYBODY,
}
ABOVE = {
    "service",
    "cli",
    "cli_decrypt",
    "cli_edge",
    "cli_party",
    "cli_registry",
}  # with sockets, clocks and threads
NEVER_BELOW_SERVICE = {
    *("asyncio", "concurrent", "grpc", "os", "random", "secrets", "socket", "sqlite3", "threading", "time")
}
EXEMPT = {
    "kernels": {"os", "concurrent"},
    "local": {"os"},
    "local_oneshot": {"os"},
    "store": {"os", "sqlite3", "threading", "time"},
    "embedding": {"os", "threading", "time"},
    "key_files": {"os"},
    "registry": {"time"},
}
FACES = {
    "secagg",
    *(
        f"secagg.{name}"
        for name in (
            "audit",
            "cli",
            "cli_party",
            "embedding",
            "embedding.conformance",
            "kernels",
            "lazy",
            "service",
        )
    ),
    *(f"secagg.{name}" for name in ("store", "store.sql", "transcript")),
}  # for fedcore

# fedcore, from below: a module imports only from its own line and those above it in this table.
FEDCORE_LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("settings", "names", "stream", "arrays", "learner", "history", "foreign"),
    ("data", "codec"),
    (
        "privacy.accounting",
        "privacy.samplers",
        "privacy.noise",
        "privacy.plan",
        "statistics.standardizer",
        "statistics.moments",
    ),
    ("rounds.instructions", "rounds.model", "rounds.questions", "rounds.encoding", "rounds.task"),
    (
        *("strategies", "learners", "statistics.sums", "privacy.guard"),
        *("evaluation.metrics", "evaluation.federated"),
    ),
    (
        *("rounds.local_training", "rounds.site", "rounds.subjects"),
        *("rounds.stopping", "rounds.plan", "rounds.terms", "rounds.upload"),
    ),
    ("rounds.aggregation", "rounds.attempts", "rounds.state", "rounds.central", "rounds.federation"),
    (
        *("rounds.agreement", "rounds.consent", "rounds.levers", "statistics.analyst", "adversaries"),
        *("evaluation.personal", "evaluation.baselines", "evaluation.prediction"),
        *("evaluation.onnx_graph", "evaluation.export"),
    ),
    ("experiments", "service", "phones", "simulation", "integrations"),
    ("demo",),
    ("cli", "__main__"),
)


class Import(NamedTuple):
    file: str
    layer: str
    module: str
    name: str | None  # of `from module import name`
    late: bool = False  # in a function, or for types only


def imports_of(package: str) -> Iterator[Import]:
    for path in sorted((ROOT / package).rglob("*.py")):
        file = path.relative_to(ROOT)
        layer = file.parts[1].removesuffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            late = node not in tree.body
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(str(file), layer, alias.name, None, late)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: relative import"
                for alias in node.names:
                    yield Import(str(file), layer, str(node.module), alias.name, late)


def layer_of(one: Import) -> str:
    """Layer of secagg that an import reaches; "secagg" for the names of the package itself."""
    parts = one.module.split(".")[1:] or [one.name or "secagg"]
    return parts[0] if parts[0] in MAY_IMPORT else "secagg"


@pytest.fixture(scope="module")
def secagg() -> list[Import]:
    return list(imports_of("secagg"))


@pytest.fixture(scope="module")
def fedcore() -> list[Import]:
    return list(imports_of("fedcore"))


def test_every_layer_imports_only_those_below_it(secagg: list[Import]) -> None:
    assert {one.layer for one in secagg} <= set(MAY_IMPORT), "a new layer needs a line in MAY_IMPORT"
    inside = [one for one in secagg if one.module.split(".")[0] == "secagg"]
    assert len(inside) > 100
    up = [one for one in inside if layer_of(one) not in {one.layer, *MAY_IMPORT[one.layer]}]
    assert not up


def test_only_the_service_has_sockets_clocks_threads_and_randomness(secagg: list[Import]) -> None:
    wrong = [
        one
        for one in secagg
        if one.layer not in ABOVE
        and one.module.split(".")[0] in NEVER_BELOW_SERVICE - EXEMPT.get(one.layer, set())
    ]
    assert not wrong


def test_only_kernels_imports_the_compiled_module(secagg: list[Import], fedcore: list[Import]) -> None:
    native = [one for one in secagg + fedcore if "_native" in {one.name, one.module.split(".")[-1]}]
    assert {one.layer for one in native} == {"kernels"}


def test_secagg_never_imports_fedcore(secagg: list[Import]) -> None:
    assert not [one for one in secagg if one.module.split(".")[0] == "fedcore"]


def test_fedcore_sees_only_public_names_of_secagg(fedcore: list[Import]) -> None:
    used = [one for one in fedcore if one.module.split(".")[0] == "secagg"]
    private = [one for one in used if one.module not in FACES or one.name is None]
    assert not private
    hidden = [one for one in used if one.name not in import_module(one.module).__all__]
    assert not hidden


def depth_of(module: str) -> int | None:
    """Line of FEDCORE_LAYERS that a module of fedcore, or a room, is in; None: of several."""
    fits = [
        depth
        for depth, names in enumerate(FEDCORE_LAYERS)
        if any(module == name or module.startswith(f"{name}.") for name in names)
    ]
    return fits[0] if fits else None


def test_every_module_of_fedcore_imports_only_from_its_layer_and_those_below(fedcore: list[Import]) -> None:
    inside = [one for one in fedcore if one.module.split(".")[0] == "fedcore" and one.name is not None]
    assert len(inside) > 300
    for one in inside:
        module = one.file.removeprefix("fedcore/").removesuffix(".py").replace("/", ".")
        if module.endswith("__init__") or module.startswith("examples."):
            continue  # of a room, or of all; who starts from an example has the public names
        depth = depth_of(module)
        assert depth is not None, f"{module}: a new module needs a place in FEDCORE_LAYERS"
        room = one.module.removeprefix("fedcore").lstrip(".")
        beneath = depth_of(room) if room else None
        if beneath is None:
            beneath = depth_of(f"{room}.{one.name}".lstrip("."))
        assert beneath is not None, one
        assert beneath <= depth, one


def test_no_module_of_fedcore_imports_itself_by_way_of_others(fedcore: list[Import]) -> None:
    def name_of(file: str) -> str:
        return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    modules = {name_of(one.file) for one in fedcore}
    below: dict[str, set[str]] = {module: set() for module in modules}
    for one in (one for one in fedcore if not one.late):
        full = f"{one.module}.{one.name}"
        below[name_of(one.file)].add(full if full in modules else one.module)
    graph = {module: found & modules - {module} for module, found in below.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_root_holds_packages_tests_benches_and_nothing_else() -> None:
    made = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()]
    here = {path.name for path in ROOT.iterdir() if not any(fnmatchcase(path.name, one) for one in made)}
    assert {name for name in here if not name.startswith(".")} == {
        *("pyproject.toml", "Makefile", "README.md", "secagg", "csrc", "fedcore", "tests", "bench")
    }


@pytest.mark.process
def test_the_core_loads_without_protobuf_and_extras() -> None:
    names = "google.protobuf grpc sklearn typer rich"
    code = f"import secagg, sys; print([name for name in '{names}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
