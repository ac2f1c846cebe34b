"""The lowest versions that pyproject.toml declares, as constraints for pip: NAME==VERSION, a line each."""

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = ("service", "postgresql", "fedcore", "dp", "parquet", "tensorboard", "export", "bench")

text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
project = tomllib.loads(text)["project"]
extras = project["optional-dependencies"]
lowest = {}
for requirement in (*project["dependencies"], *(one for extra in EXTRAS for one in extras[extra])):
    if found := re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+)", requirement):
        lowest[found[1]] = found[2]
    elif not requirement.startswith("secagg["):
        sys.exit(f"{requirement}: has no lowest version")
print("\n".join(f"{name}=={version}" for name, version in sorted(lowest.items())))
