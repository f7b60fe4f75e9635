"""Measure how the code is laid out: files, single-importer modules, circles, repeated names, long functions.

python scripts/house.py             the table
python scripts/house.py --names     and the modules, names and functions behind its figures
python scripts/house.py --mermaid   the rooms and who imports whom, for docs/architecture.md
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.test_walls import LONGEST_FUNCTION, ROOMS, circles, import_graph, long_functions  # noqa: E402


def sources() -> dict[str, Path]:
    """Return every module of the rooms but the packages' own `__init__`, by dotted name."""
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if path.name != "__init__.py":
                found[".".join(path.relative_to(ROOT).with_suffix("").parts)] = path
    return found


def single_importers(graph: dict[str, set[str]], modules: dict[str, Path]) -> list[str]:
    """Return the modules that exactly one other module imports."""
    importers: dict[str, set[str]] = defaultdict(set)
    for module, imported in graph.items():
        for name in imported:
            importers[name].add(module)
    return sorted(module for module in modules if len(importers[module]) == 1)


def repeated_names(modules: dict[str, Path]) -> dict[str, int]:
    """Count the file names that stand more than once."""
    counts = Counter(path.name for path in modules.values())
    return {name: count for name, count in sorted(counts.items()) if count > 1}


def mermaid(graph: dict[str, set[str]]) -> str:
    """Draw which room imports which, inside functions too."""
    edges = {
        (module.split(".")[0], name.split(".")[0]) for module, imported in graph.items() for name in imported
    }
    lines = [f"    {source} --> {target}" for source, target in sorted(edges) if source != target]
    return "\n".join(["flowchart TD", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--names", action="store_true", help="list what the figures count")
    parser.add_argument("--mermaid", action="store_true", help="print the rooms' imports as a flowchart")
    arguments = parser.parse_args()
    graph, modules = import_graph(), sources()
    if arguments.mermaid:
        print(mermaid(graph))
        return
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in modules.values())
    client = [path for module, path in modules.items() if module.startswith("client.")]
    tables: dict[str, list[str]] = {
        "modules that one other module imports": single_importers(graph, modules),
        "import circles": [", ".join(sorted(circle)) for circle in circles(graph)],
        "file names that stand more than once": [f"{n} ({c})" for n, c in repeated_names(modules).items()],
        f"functions over {LONGEST_FUNCTION} lines": long_functions(
            {module: path.read_text(encoding="utf-8") for module, path in modules.items()}
        ),
    }
    print(f"modules in the rooms: {len(modules)}, {lines} lines")
    print(f"modules in client/: {len(client)}, flat: {sum(path.parent.name == 'client' for path in client)}")
    for title, names in tables.items():
        print(f"{title}: {len(names)}")
        if arguments.names:
            print(*(f"    {name}" for name in names), sep="\n")


if __name__ == "__main__":
    main()
