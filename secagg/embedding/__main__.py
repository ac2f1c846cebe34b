"""Make a node's folder: python -m secagg.embedding FOLDER... prints the lines that enrol them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from secagg.embedding import Registry, write_key
from secagg.errors import SecAggError


def main(arguments: list[str] | None = None) -> int:
    """Make folders with a key each, and print their registry."""
    parser = argparse.ArgumentParser(prog="python -m secagg.embedding", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="its name is the node's")
    made: list[tuple[str, bytes]] = []
    try:
        for folder in parser.parse_args(arguments).folders:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            made.append((folder.resolve().name, write_key(folder / "party.key").identity))
        sys.stdout.write(Registry.of(made).dump())
    except (SecAggError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
