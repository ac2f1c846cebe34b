"""Tests of a host are collected where it is installed: `make test-hosts` makes an environment for each."""

from importlib.util import find_spec

HOSTS = {
    "test_flower.py": "flwr",
    "test_flower_superlink.py": "flwr",
    "test_flare.py": "nvflare",
    "test_declearn.py": "declearn",
    "test_pfl.py": "pfl",
    "test_openfl.py": "openfl",
    "test_syft_flwr.py": "syft_flwr",
    "test_secretflow.py": "secretflow",
    "test_fedbiomed.py": "fedbiomed",
}
collect_ignore = [file for file, package in HOSTS.items() if find_spec(package) is None]
