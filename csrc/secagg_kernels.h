/* The kernels of secagg: the one public header.
 *
 * No function here allocates, fails, keeps state or checks a length: callers do (secagg/kernels).
 * Vectors are arrays of unsigned lanes of 2, 4 or 8 bytes in host order; given as void pointers they may
 * stand at any alignment, others have that of their type. */
#ifndef SECAGG_KERNELS_H
#define SECAGG_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* What a CPU may offer; a variant names what it needs. AVX2 and AVX-512 count only when the
 * operating system saves their registers. SA_AVX2: with FMA; SA_AVX512: F, BW, DQ and VL. */
#define SA_AES (1u << 0)
#define SA_AVX2 (1u << 1)
#define SA_VAES (1u << 2)
#define SA_AVX512 (1u << 3)
#define SA_ARM_AES (1u << 4)
#define SA_IFMA (1u << 5) /* AVX-512 IFMA and VPOPCNTDQ */

#define SA_LATTICE_RING 2048 /* coefficients of a polynomial of the lattice masks */

/* cffi: begin */

/* Features of this CPU, as bits; then the choice of the widest variant within `allowed`.
 * Call sa_select once, before any other function, from one thread. */
uint32_t sa_cpu_features(void);
void sa_select(uint32_t allowed);

/* Name of the variant in use, and whether it expands masks (portable does not: see mask.py). */
const char *sa_variant(void);
int sa_has_mask(void);

/* Name and needs of the i-th variant of this build, widest first; NULL behind the last. */
const char *sa_variant_at(size_t i, uint32_t *needs);

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

/* Change the sign of values[i] where bit i % 8 of flips[i / 8] is set. */
void sa_flip_signs(float *values, const uint8_t *flips, size_t n);

/* In-place Walsh-Hadamard transform in natural order, then times factor; n a power of two. */
void sa_hadamard(float *values, size_t n, float factor);

/* GF(p), p = 2^61 - 1; every input word below p. Constant-time in coefficients and values.
 * valid: whether all n words, of any value, are below p.
 * evaluate: out[k][m], polynomials given by coefficients[t][m], lowest degree first.
 * lagrange: out[q][t], weights with f(ats[i]) = sum of out[i][j] f(points[j]) for every f of degree
 * below t; scratch: 2 t words.
 * weighted_sums: out[q][m] = sum over j < t of weights[q][j] * values[j][m]. */
int sa_field_valid(const uint64_t *words, size_t n);
void sa_field_evaluate(uint64_t *out, const uint64_t *coefficients, size_t t, size_t m,
                       const uint64_t *points, size_t k);
void sa_field_lagrange(uint64_t *out, uint64_t *scratch, const uint64_t *points, size_t t,
                       const uint64_t *ats, size_t q);
void sa_field_weighted_sums(uint64_t *out, const uint64_t *weights, const uint64_t *values, size_t q,
                            size_t t, size_t m);

/* Gao's decoder (2003) for Reed-Solomon codes: the polynomial of degree below t, as t coefficients,
 * that all but (m - t) / 2 of the m >= t >= 1 values lie on. Returns how many do not, or m + 1 when
 * there is none. For revealed values: variable-time. scratch: 4 (m + 1) words. */
size_t sa_field_decode(uint64_t *polynomial, uint64_t *scratch, const uint64_t *points,
                       const uint64_t *values, size_t m, size_t t);

/* The same for Z_q, q = 2^50 - 2^14 + 1; t <= 2^16 in weighted_sums. */
int sa_modq_valid(const uint64_t *words, size_t n);
void sa_modq_evaluate(uint64_t *out, const uint64_t *coefficients, size_t t, size_t m,
                      const uint64_t *points, size_t k);
void sa_modq_lagrange(uint64_t *out, uint64_t *scratch, const uint64_t *points, size_t t,
                      const uint64_t *ats, size_t q);
void sa_modq_weighted_sums(uint64_t *out, const uint64_t *weights, const uint64_t *values, size_t q,
                           size_t t, size_t m);
size_t sa_modq_decode(uint64_t *polynomial, uint64_t *scratch, const uint64_t *points,
                      const uint64_t *values, size_t m, size_t t);

/* Lattice masks of the one-shot protocol, 2048 entries a block (PROTOCOL.md). Constant-time.
 * secret: 2048 words below q -> the form in which the variant in use multiplies by them, 2048 words.
 * block: words of the public a in `entries` become, for each i, the upper upload_bits of
 * INTT(a secret)[i] + noise + values[i] scaled to Z_q; noise: words, of 0 none; values: `lanes` <= 2048
 * of them, below 2^bits, zeros behind; bits <= 40, bits < upload_bits <= 44.
 * mask: such blocks, the words of a and of the noise (noise_seed NULL: none) from block `first` of the
 * PRG on; only where sa_has_mask. */
void sa_lattice_secret(uint64_t *prepared, const uint64_t *secret);
void sa_lattice_block(uint64_t *entries, const uint64_t *prepared, const uint64_t *noise,
                      const void *values, size_t lanes, unsigned lane_bytes, unsigned bits,
                      unsigned upload_bits);
void sa_lattice_mask(uint64_t *entries, size_t blocks, uint64_t first, const uint8_t *public_seed,
                     const uint8_t *noise_seed, const uint64_t *prepared, const void *values,
                     size_t lanes, unsigned lane_bytes, unsigned bits, unsigned upload_bits);

/* cffi: end */

#endif
