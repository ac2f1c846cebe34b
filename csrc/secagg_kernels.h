/* The kernels of secagg: the one public header.
 *
 * No function here allocates, fails, keeps state or checks a length: callers do (secagg/kernels).
 * Vectors are arrays of unsigned lanes of 2, 4 or 8 bytes in host order, at any alignment. */
#ifndef SECAGG_KERNELS_H
#define SECAGG_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* What a CPU may offer; a variant names what it needs. */
#define SA_AESNI (1u << 0)

/* cffi: begin */

/* Features of this CPU, as bits; then the choice of the widest variant within `allowed`.
 * Call sa_select once, before any other function, from one thread. */
uint32_t sa_cpu_features(void);
void sa_select(uint32_t allowed);

/* Name of the variant in use, and whether it expands masks (portable does not: see mask.py). */
const char *sa_variant(void);
int sa_has_mask(void);

/* acc[i] += sum over j of signs[j] * PRG(seeds + 32 j)[first + i], i < lanes, modulo the lane.
 * PRG: AES-128-CTR, key = seed[0:16], counter block = seed[16:28] || 32-bit big-endian counter.
 * (first + lanes) * lane_bytes <= 2^36. */
void sa_mask_add(void *acc, size_t lanes, unsigned lane_bytes, uint64_t first,
                 const uint8_t *seeds, const int8_t *signs, size_t count);

/* b-bit packing, element i at bits i*b .. i*b + b - 1 of a little-endian bit string of
 * ceil(lanes * bits / 8) bytes, spare bits zero; bits in 1 .. 8 * lane_bytes. */
void sa_pack(uint8_t *packed, const void *values, size_t lanes, unsigned lane_bytes, unsigned bits);
void sa_unpack_add(void *acc, const uint8_t *packed, size_t lanes, unsigned lane_bytes, unsigned bits);

/* Clip to [-clip, clip], scale, clamp to [-limit, limit], round up when words[i] / 2^32 is below
 * the fractional part, store modulo 2^bits. Returns the index of the first value that is not
 * finite, or n. */
size_t sa_quantize_f64(void *out, unsigned lane_bytes, unsigned bits, const double *values,
                       const uint32_t *words, size_t n, double clip, double scale, double limit);
size_t sa_quantize_f32(void *out, unsigned lane_bytes, unsigned bits, const float *values,
                       const uint32_t *words, size_t n, double clip, double scale, double limit);

/* Ring element -> centred integer in [-2^(bits-1), 2^(bits-1)) -> times step. */
void sa_dequantize(double *out, const void *values, size_t lanes, unsigned lane_bytes, unsigned bits,
                   double step);

/* GF(p), p = 2^61 - 1; every input word below p. Constant-time in all values.
 * evaluate: out[k][m], polynomials given by coefficients[t][m], lowest degree first.
 * lagrange: out[t], weights w with f(at) = sum w[j] f(points[j]); scratch: 2 t words.
 * weighted_sums: out[q][m] = sum over j < t of weights[q][j] * values[j][m]. */
void sa_field_evaluate(uint64_t *out, const uint64_t *coefficients, size_t t, size_t m,
                       const uint64_t *points, size_t k);
void sa_field_lagrange(uint64_t *out, uint64_t *scratch, const uint64_t *points, size_t t, uint64_t at);
void sa_field_weighted_sums(uint64_t *out, const uint64_t *weights, const uint64_t *values, size_t q,
                            size_t t, size_t m);

/* cffi: end */

#endif
