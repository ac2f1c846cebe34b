/* Arithmetic mod q of one word at a time: Shoup's products with roots, Montgomery's with the secret.
 *
 * Sums are reduced at the end only: a butterfly in layer l takes values below 2 q 2^l. */

typedef uint64_t vec;
typedef struct {
    uint64_t root, quotient; /* floor(root 2^64 / q) */
} twiddle;

#define WIDTH 1
#define vload(p) (*(p))
#define vload_words(p) (*(p))
#define vstore(p, v) (*(p) = (v))

static twiddle roots[RING];

#define twiddle_at(h, i) roots[(h) + (i)]

static void prepare(void) {
    for (size_t i = 0; i < RING; i++)
        roots[i] = (twiddle){sa_lattice_root(i), (uint64_t)(((u128)sa_lattice_root(i) << 64) / Q)};
}

static inline uint64_t secret_cell(uint64_t s) {
    static const uint64_t MONTGOMERY = (uint64_t)((((u128)1 << 64) % Q) * RING_INVERSE % Q);
    return modq_mul(s, MONTGOMERY);
}

/* a s 2^-64, below 2 q; a below 2^50. */
static inline vec product(uint64_t a, uint64_t s) {
    static const uint64_t INVERSE = Q_INVERSE_64; /* of q modulo 2^64 */
    const u128 whole = (u128)(a & (((uint64_t)1 << Q_BITS) - 1)) * s;
    const uint64_t m = (uint64_t)whole * INVERSE;
    return (uint64_t)(whole >> 64) + Q - (uint64_t)(((u128)m * Q) >> 64);
}

static inline void butterfly(unsigned layer, vec *u, vec *v, twiddle w) {
    const uint64_t difference = *u - *v + ((2 * Q) << layer);
    *u += *v;
    *v = difference * w.root - (uint64_t)(((u128)difference * w.quotient) >> 64) * Q;
}

static inline void canonical(uint64_t *cells) {
    static const uint64_t QUOTIENT = (uint64_t)(((u128)1 << 64) / Q);
    for (size_t i = 0; i < RING; i++)
        cells[i] = modq_reduce(cells[i] - (uint64_t)(((u128)cells[i] * QUOTIENT) >> 64) * Q);
}

/* Sums of neighboring bits, pairs, fours: a library's popcount may look into a table. */
static inline uint64_t popcount64(uint64_t w) {
    w -= w >> 1 & 0x5555555555555555;
    w = (w & 0x3333333333333333) + (w >> 2 & 0x3333333333333333);
    return ((w + (w >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56;
}

#include "lattice_body.inc.h"
