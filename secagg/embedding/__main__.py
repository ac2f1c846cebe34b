"""Make a node's folder: python -m secagg.embedding FOLDER... prints the lines that enrol them.

Of a folder that has a key already it prints the line of that key.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from secagg.embedding import Registry, read_key, write_key
from secagg.errors import SecAggError
from secagg.registry.names import check_name


def main(arguments: list[str] | None = None) -> int:
    """Make folders with a key each, and print their registry."""
    parser = argparse.ArgumentParser(prog="python -m secagg.embedding", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="its name is the node's")
    made: list[tuple[str, bytes]] = []
    try:
        for folder in parser.parse_args(arguments).folders:
            name, path = folder.resolve().name, folder / "party.key"
            check_name(name)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            key = read_key(path) if path.exists() else write_key(path)
            made.append((name, key.identity))
        sys.stdout.write(Registry.of(made).dump())
    except (SecAggError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
