"""The typed Python face of the C extension. It checks types, shapes and ranges, then calls.

What belongs here: array in, array out. What must not: protocol, randomness, files.
`reference` does the same in plain Python, slowly and legibly.
"""

from secagg.kernels._library import VARIANTS, select, variant
from secagg.kernels.field import PRIME, field_evaluate, field_lagrange, field_weighted_sums
from secagg.kernels.mask import MAXIMUM_KEYSTREAM_BYTES, SEED_BYTES, mask_apply
from secagg.kernels.quantize import NotFiniteError, dequantize, quantize
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

__all__ = [
    "MAXIMUM_KEYSTREAM_BYTES",
    "PRIME",
    "SEED_BYTES",
    "VARIANTS",
    "NotFiniteError",
    "UIntArray",
    "dequantize",
    "field_evaluate",
    "field_lagrange",
    "field_weighted_sums",
    "lane_bytes",
    "lane_dtype",
    "mask_apply",
    "pack",
    "packed_bytes",
    "quantize",
    "ring_mask",
    "select",
    "spare_bits_clear",
    "unpack_add",
    "variant",
]
