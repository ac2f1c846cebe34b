/* GF(2^61 - 1), for Shamir's secret sharing. */
#include "kernels_impl.h"

#define FIELD(name) sa_field_##name
#define P ((uint64_t)0x1fffffffffffffff)
#define TERMS 32 /* products below 2^122, and a rest below 2^68 */

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

/* For a, b below 2^62; below 2^61 + 4. */
static inline uint64_t mul_loose(uint64_t a, uint64_t b) {
    const u128 product = (u128)a * b;
    const uint64_t v = ((uint64_t)product & P) + (uint64_t)(product >> 61);
    return (v & P) + (v >> 61);
}

static inline u128 fold(u128 v) { return (v & P) + (v >> 61); }

static inline uint64_t settle(u128 v) { return reduce((uint64_t)fold(v)); } /* below 2^61 + 2^7 */

#include "field_body.inc.h"
