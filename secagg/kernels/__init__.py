"""The typed Python face of the C extension. It checks types, shapes and ranges, then calls.

What belongs here: array in, array out. What must not: protocol, randomness, files.
`reference` does the same in plain Python, slowly and legibly.
"""

from secagg.kernels._library import VARIANTS, runnable, select, variant
from secagg.kernels._parallel import map_in_threads, usable_cpus
from secagg.kernels.field import (
    LATTICE_FIELD,
    PRIME,
    PrimeField,
    field_decode,
    field_evaluate,
    field_lagrange,
    field_weighted_sums,
)
from secagg.kernels.hadamard import hadamard
from secagg.kernels.lattice import (
    CHECKS,
    RING,
    LatticeSecret,
    lattice_chunks,
    lattice_mask,
    lattice_values,
    modq_words,
    pack_lattice,
)
from secagg.kernels.mask import MAXIMUM_KEYSTREAM_BYTES, SEED_BYTES, mask_apply
from secagg.kernels.quantize import NotFiniteError, QuantizedVector, dequantize, quantize
from secagg.kernels.ring import (
    UIntArray,
    lane_bytes,
    lane_dtype,
    pack,
    packed_bytes,
    ring_mask,
    spare_bits_clear,
    unpack_add,
)
from secagg.kernels.upload import VectorSource, check_entries, masked_chunks, pack_masked

__all__ = [
    "CHECKS",
    "LATTICE_FIELD",
    "MAXIMUM_KEYSTREAM_BYTES",
    "PRIME",
    "RING",
    "SEED_BYTES",
    "VARIANTS",
    "LatticeSecret",
    "NotFiniteError",
    "PrimeField",
    "QuantizedVector",
    "UIntArray",
    "VectorSource",
    "check_entries",
    "dequantize",
    "field_decode",
    "field_evaluate",
    "field_lagrange",
    "field_weighted_sums",
    "hadamard",
    "lane_bytes",
    "lane_dtype",
    "lattice_chunks",
    "lattice_mask",
    "lattice_values",
    "map_in_threads",
    "mask_apply",
    "masked_chunks",
    "modq_words",
    "pack",
    "pack_lattice",
    "pack_masked",
    "packed_bytes",
    "quantize",
    "ring_mask",
    "runnable",
    "select",
    "spare_bits_clear",
    "unpack_add",
    "usable_cpus",
    "variant",
]
