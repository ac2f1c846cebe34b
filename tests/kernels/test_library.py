import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from secagg.kernels import VARIANTS, _library, mask_apply, runnable, select, variant

NAME_THE_VARIANT = "from secagg.kernels import variant; print(variant())"


def run_with(forced: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", NAME_THE_VARIANT],
        env=os.environ | {"SECAGG_KERNEL": forced},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_selected_variant_is_the_one_in_use(each_variant: str) -> None:
    assert variant() == each_variant


def test_selecting_nothing_takes_the_widest_that_runs() -> None:
    before = variant()
    try:
        for name in VARIANTS:  # widest first
            try:
                select(name)
            except ImportError:
                continue
            break
        widest = variant()
        select(None)
        assert variant() == widest == runnable()[0]
    finally:
        select(before)


def test_any_subset_of_the_features_selects_the_widest_variant_that_it_holds() -> None:
    before, have = variant(), _library.lib.sa_cpu_features()
    bits = [1 << i for i in range(32) if have >> i & 1]
    subsets = [sum(chosen) for count in range(len(bits) + 1) for chosen in combinations(bits, count)]
    try:
        for allowed in subsets:
            _library.lib.sa_select(allowed)
            assert variant() == next(name for name, needs in VARIANTS.items() if needs & allowed == needs)
    finally:
        select(before)


def test_an_unknown_variant_is_refused_and_named() -> None:
    before = variant()
    with pytest.raises(ImportError, match=f"'abacus'; this build has {', '.join(VARIANTS)}"):
        select("abacus")
    assert variant() == before


def test_a_variant_that_the_cpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    before = variant()
    monkeypatch.setitem(VARIANTS, "wider", 1 << 31)  # a feature that no CPU has
    try:
        with pytest.raises(ImportError, match="'wider', which this CPU cannot run"):
            select("wider")
    finally:
        select(before)


def test_big_endian_arrays_are_refused() -> None:
    with pytest.raises(TypeError, match="acc: an array of uint16, uint32, uint64 is needed, got >u4"):
        mask_apply(np.zeros(2, ">u4"), bytes(32), np.ones(1, np.int8))


@pytest.mark.process
def test_the_environment_forces_a_variant() -> None:
    assert run_with("portable").stdout.strip() == "portable"


@pytest.mark.process
def test_an_unknown_variant_in_the_environment_stops_the_import() -> None:
    done = run_with("abacus")
    assert done.returncode != 0
    assert "SECAGG_KERNEL is 'abacus'" in done.stderr
