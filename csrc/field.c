/* Vector arithmetic in GF(2^61 - 1). Inputs are reduced; no branch and no index depends on one. */
#include "secagg_kernels.h"

#define P ((uint64_t)0x1fffffffffffffff)

__extension__ typedef unsigned __int128 u128;

/* Fold a sum below 2^62 + small into [0, p). */
static inline uint64_t reduce(uint64_t v) {
    v = (v & P) + (v >> 61);
    const uint64_t t = v - P;
    return t + (P & (0 - (t >> 63))); /* add p back when v < p */
}

static inline uint64_t mul(uint64_t a, uint64_t b) {
    const u128 product = (u128)a * b;
    return reduce(((uint64_t)product & P) + (uint64_t)(product >> 61));
}

static inline uint64_t sub(uint64_t a, uint64_t b) { return reduce(a + P - b); }

/* a^(p - 2): p - 2 has all 61 bits set but the second. */
static uint64_t inverse(uint64_t a) {
    uint64_t r = a;
    for (unsigned bit = 60; bit-- > 0;) {
        r = mul(r, r);
        if (bit != 1) /* public exponent */
            r = mul(r, a);
    }
    return r;
}

void sa_field_evaluate(uint64_t *out, const uint64_t *coefficients, size_t t, size_t m,
                       const uint64_t *points, size_t k) {
    for (size_t i = 0; i < k; i++, out += m) {
        for (size_t c = 0; c < m; c++)
            out[c] = 0;
        for (size_t j = t; j-- > 0;) /* Horner, all m polynomials side by side */
            for (size_t c = 0; c < m; c++)
                out[c] = reduce(mul(out[c], points[i]) + coefficients[j * m + c]);
    }
}

void sa_field_lagrange(uint64_t *out, uint64_t *scratch, const uint64_t *points, size_t t,
                       uint64_t at) {
    uint64_t *const denominator = scratch, *const prefix = scratch + t;
    uint64_t product = 1;
    for (size_t j = 0; j < t; j++) {
        uint64_t n = 1, d = 1;
        for (size_t i = 0; i < t; i++) {
            if (i == j)
                continue;
            n = mul(n, sub(at, points[i]));
            d = mul(d, sub(points[j], points[i]));
        }
        out[j] = n;
        denominator[j] = d;
        prefix[j] = product; /* of the denominators before j */
        product = mul(product, d);
    }
    uint64_t inv = inverse(product); /* one inversion for all (Montgomery's trick) */
    for (size_t j = t; j-- > 0;) {
        out[j] = mul(out[j], mul(inv, prefix[j]));
        inv = mul(inv, denominator[j]);
    }
}

void sa_field_weighted_sums(uint64_t *out, const uint64_t *weights, const uint64_t *values, size_t q,
                            size_t t, size_t m) {
    for (size_t i = 0; i < q; i++, out += m, weights += t) {
        for (size_t c = 0; c < m; c++)
            out[c] = 0;
        for (size_t j = 0; j < t; j++)
            for (size_t c = 0; c < m; c++)
                out[c] = reduce(out[c] + mul(weights[j], values[j * m + c]));
    }
}
