from typing import Any, Protocol, TypeAlias

CData: TypeAlias = Any  # a C pointer

class _Library(Protocol):
    def sa_cpu_features(self) -> int: ...
    def sa_select(self, allowed: int) -> None: ...
    def sa_variant(self) -> CData: ...
    def sa_variant_at(self, i: int, needs: CData) -> CData: ...
    def sa_has_mask(self) -> int: ...
    def sa_mask_add(
        self, acc: CData, lanes: int, lane_bytes: int, first: int, seeds: CData, signs: CData, count: int
    ) -> None: ...
    def sa_pack(self, packed: CData, values: CData, lanes: int, lane_bytes: int, bits: int) -> None: ...
    def sa_unpack_add(self, acc: CData, packed: CData, lanes: int, lane_bytes: int, bits: int) -> None: ...
    def sa_quantize_f64(
        self,
        out: CData,
        lane_bytes: int,
        bits: int,
        values: CData,
        words: CData,
        n: int,
        clip: float,
        scale: float,
        limit: float,
    ) -> int: ...
    def sa_quantize_f32(
        self,
        out: CData,
        lane_bytes: int,
        bits: int,
        values: CData,
        words: CData,
        n: int,
        clip: float,
        scale: float,
        limit: float,
    ) -> int: ...
    def sa_dequantize(
        self, out: CData, values: CData, lanes: int, lane_bytes: int, bits: int, step: float
    ) -> None: ...
    def sa_flip_signs(self, values: CData, flips: CData, n: int) -> None: ...
    def sa_hadamard(self, values: CData, n: int, factor: float) -> None: ...
    def sa_field_valid(self, words: CData, n: int) -> int: ...
    def sa_field_evaluate(
        self, out: CData, coefficients: CData, t: int, m: int, points: CData, k: int
    ) -> None: ...
    def sa_field_lagrange(
        self, out: CData, scratch: CData, points: CData, t: int, ats: CData, q: int
    ) -> None: ...
    def sa_field_decode(
        self, polynomial: CData, scratch: CData, points: CData, values: CData, m: int, t: int
    ) -> int: ...
    def sa_field_weighted_sums(
        self, out: CData, weights: CData, values: CData, q: int, t: int, m: int
    ) -> None: ...
    def sa_modq_valid(self, words: CData, n: int) -> int: ...
    def sa_modq_evaluate(
        self, out: CData, coefficients: CData, t: int, m: int, points: CData, k: int
    ) -> None: ...
    def sa_modq_lagrange(
        self, out: CData, scratch: CData, points: CData, t: int, ats: CData, q: int
    ) -> None: ...
    def sa_modq_decode(
        self, polynomial: CData, scratch: CData, points: CData, values: CData, m: int, t: int
    ) -> int: ...
    def sa_modq_weighted_sums(
        self, out: CData, weights: CData, values: CData, q: int, t: int, m: int
    ) -> None: ...
    def sa_lattice_secret(self, prepared: CData, secret: CData) -> None: ...
    def sa_lattice_block(
        self,
        entries: CData,
        prepared: CData,
        noise: CData,
        values: CData,
        lanes: int,
        lane_bytes: int,
        bits: int,
        upload_bits: int,
    ) -> None: ...
    def sa_lattice_mask(
        self,
        entries: CData,
        blocks: int,
        first: int,
        public_seed: CData,
        noise_seed: CData,
        prepared: CData,
        values: CData,
        lanes: int,
        lane_bytes: int,
        bits: int,
        upload_bits: int,
    ) -> None: ...

class _FFI(Protocol):
    def from_buffer(self, cdecl: str, buffer: CData, require_writable: bool = False) -> CData: ...
    def string(self, cdata: CData) -> bytes: ...
    def new(self, cdecl: str) -> CData: ...
    NULL: CData

lib: _Library
ffi: _FFI
