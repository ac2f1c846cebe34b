/* Arithmetic mod q in doubles with fused multiply-add: cells hold integers below 2^53, of either sign.
 *
 * A product x w is h + l, h its rounding and l = fma(x, w, -h); with k = round(h / q), x w - k q = (h - k q) + l,
 * both exact (Dekker's product; van der Hoeven, Lecerf, Quintin, "Modular SIMD arithmetic in Mathemagix", 2016).
 * Roots and the secret are centered, |w| < q/2, and sums are reduced in every second layer: products stay
 * below 2 q whatever the roundings, and sums below 8 q < 2^53.
 *
 * A variant defines before: vec, WIDTH, vload, vstore, first_of, second_of, dadd, dsub, dmul, dfma(a, b, c) =
 * a b + c, dround, dset(x), as_integers(v) and from_words(p): 50 bits of each word. */

typedef vec twiddle;

static double roots[RING];

#define centered(x) ((double)((int64_t)(x) - (int64_t)(Q & (0 - (uint64_t)((x) > Q / 2)))))
#define twiddle_at(h, i) dset(roots[(h) + (i)])
#define twiddles_at(h, i, copies) droots(roots + (h) + (i), (copies))
#define vload_words from_words
#define RECIPROCAL (1.0 / (double)Q)

static void prepare(void) {
    for (size_t i = 0; i < RING; i++)
        roots[i] = centered(sa_lattice_root(i)); /* public */
}

static inline uint64_t secret_cell(uint64_t s) {
    const uint64_t v = modq_mul(s, RING_INVERSE);
    const double cell = (double)((int64_t)v - (int64_t)(Q & (0 - ((Q / 2 - v) >> 63))));
    uint64_t bits;
    memcpy(&bits, &cell, 8);
    return bits;
}

LATTICE_INLINE vec product(vec x, vec w) {
    const vec h = dmul(x, w), k = dround(dmul(h, dset(RECIPROCAL)));
    return dadd(dfma(dset(-(double)Q), k, h), dfma(x, w, dsub(dset(0.0), h)));
}

LATTICE_INLINE void butterfly(unsigned layer, vec *u, vec *v, twiddle w) {
    vec sum = dadd(*u, *v);
    if (layer % 2 == 1)
        sum = dfma(dset(-(double)Q), dround(dmul(sum, dset(RECIPROCAL))), sum);
    *v = product(dsub(*u, *v), w);
    *u = sum;
}

LATTICE_INLINE void canonical(uint64_t *cells) {
    for (size_t i = 0; i < RING; i += WIDTH) {
        const vec v = vload(cells + i);
        as_integers(cells + i, dfma(dset(-(double)Q), dround(dmul(v, dset(RECIPROCAL))), v));
    }
    for (size_t i = 0; i < RING; i++) /* from (-q, q) */
        cells[i] += Q & (0 - (cells[i] >> 63));
}

static inline uint64_t popcount64(uint64_t w) { /* as vectors have it: no product of 64 bits */
    w -= w >> 1 & 0x5555555555555555;
    w = (w & 0x3333333333333333) + (w >> 2 & 0x3333333333333333);
    w = (w + (w >> 4)) & 0x0f0f0f0f0f0f0f0f;
    w += w >> 8;
    w += w >> 16;
    return (w + (w >> 32)) & 127;
}

#include "lattice_body.inc.h"
