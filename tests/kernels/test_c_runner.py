"""The kernels without Python: vectors of the reference through a program in C, on x86 and on ARM."""

import dataclasses
from pathlib import Path

import pytest

from secagg.kernels import runnable
from tests.kernels import c_vectors
from tests.kernels.programs import need, program, run

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "vectors.bin"
    c_vectors.write(path)
    return path


def test_every_operation_has_vectors_and_they_are_the_same_every_time() -> None:
    records = list(c_vectors.records())
    assert records == list(c_vectors.records())
    assert {record.op for record in records} == {
        *("mask_add", "pack", "unpack_add", "quantize", "dequantize", "hadamard"),
        *(prefix + op for op in ("evaluate", "lagrange", "weighted_sums", "decode") for prefix in ("", "q ")),
        *("lattice", "lattice_mask"),
    }


@pytest.mark.parametrize("flavor", ["plain", "sanitized"])
def test_every_variant_passes_the_vectors(flavor: str, vectors: Path) -> None:
    need("cc")
    done = run(program(f"{flavor}/run_vectors"), vectors)
    assert done.returncode == 0, done.stderr
    assert [line.split()[2].rstrip(",") for line in done.stdout.splitlines()] == list(runnable())


def test_arm_passes_the_vectors_and_the_known_answers(vectors: Path) -> None:
    need("aarch64-linux-gnu-gcc", "qemu-aarch64")
    for name, *arguments in (("run_vectors", vectors), ("test_kernels",)):
        done = run("qemu-aarch64", program(f"arm/{name}"), *arguments)
        assert done.returncode == 0, done.stderr
        assert "variant armv8, all" in done.stdout
        assert "variant portable, all" in done.stdout


OPERATIONS = ["mask_add", "pack", "quantize", "hadamard", "decode", "q decode", "lattice", "lattice_mask"]


@pytest.mark.parametrize("op", OPERATIONS)
def test_the_runner_names_the_record_that_differs(op: str, tmp_path: Path) -> None:
    need("cc")
    first = next(r for r in c_vectors.records() if r.op == op and len(r.blobs[-1]) > 0)
    expected = bytearray(first.blobs[-1])
    expected[-1] ^= 1
    wrong = dataclasses.replace(first, name="one bit off", blobs=(*first.blobs[:-1], bytes(expected)))
    (tmp_path / "wrong.bin").write_bytes(first.encode() + wrong.encode())
    done = run(program("plain/run_vectors"), tmp_path / "wrong.bin")
    assert done.returncode == 1
    assert f"{op}, one bit off: variant {runnable()[0]} differs" in done.stderr


def test_the_runner_refuses_what_is_no_file_of_vectors(tmp_path: Path) -> None:
    need("cc")
    record = next(c_vectors.records())
    unknown = dataclasses.replace(record, op="divine")
    for content in (b"", record.encode()[:-1], bytes(100), unknown.encode()):
        (tmp_path / "bad.bin").write_bytes(content)
        assert run(program("plain/run_vectors"), tmp_path / "bad.bin").returncode == 2
    assert run(program("plain/run_vectors"), tmp_path / "absent.bin").returncode == 2
