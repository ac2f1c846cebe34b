/* Arithmetic mod q with AVX-512 IFMA: products of 52 bits, cells below 2 q.
 *
 * Shoup's product with a root w: h = the upper half of x floor(w 2^52 / q); x w - h q is below 2 q. All modulo
 * 2^52, where -q is 2^52 - q. */

typedef __m512i vec;
typedef struct {
    vec root, quotient;
} twiddle;

#define WIDTH 8
#define LATTICE_INLINE static inline __attribute__((always_inline))
#define vload(p) _mm512_loadu_si512((const void *)(p))
#define vload_words vload
#define vstore(p, v) _mm512_storeu_si512((void *)(p), (v))
#define first_of(a, b) _mm512_permutex2var_epi64((a), _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), (b))
#define second_of(a, b) _mm512_permutex2var_epi64((a), _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1), (b))
#define low52(sum, a, b) _mm512_madd52lo_epu64((sum), (a), (b))
#define high52(a, b) _mm512_madd52hi_epu64(_mm512_setzero_si512(), (a), (b))
#define all(word) _mm512_set1_epi64((int64_t)(word))

static uint64_t roots[RING], quotients[RING]; /* floor(root 2^52 / q) */

#define twiddle_at(h, i) ((twiddle){all(roots[(h) + (i)]), all(quotients[(h) + (i)])})
#define twiddles_at(h, i, copies)                                                                  \
    ((twiddle){copied(roots + (h) + (i), (copies)), copied(quotients + (h) + (i), (copies))})

LATTICE_INLINE vec copied(const uint64_t *p, size_t copies) {
    if (copies == 1)
        return vload(p);
    if (copies == 2)
        return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_broadcast_i64x2(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static void prepare(void) {
    for (size_t i = 0; i < RING; i++) {
        roots[i] = sa_lattice_root(i);
        quotients[i] = (uint64_t)(((u128)roots[i] << 52) / Q);
    }
}

static inline uint64_t secret_cell(uint64_t s) {
    static const uint64_t MONTGOMERY = (uint64_t)((((u128)1 << 52) % Q) * RING_INVERSE % Q);
    return modq_mul(s, MONTGOMERY);
}

LATTICE_INLINE vec below(vec v, vec bound) { return _mm512_min_epu64(v, _mm512_sub_epi64(v, bound)); }

/* a s 2^-52, below 2 q: the lower halves of a s and m q are equal. */
LATTICE_INLINE vec product(vec a, vec s) {
    const vec zero = _mm512_setzero_si512();
    const vec word = _mm512_and_si512(a, all(((uint64_t)1 << Q_BITS) - 1));
    const vec m = low52(zero, low52(zero, word, s), all(Q_INVERSE_64 & (((uint64_t)1 << 52) - 1)));
    return _mm512_sub_epi64(_mm512_add_epi64(high52(word, s), all(Q)), high52(m, all(Q)));
}

LATTICE_INLINE void butterfly(unsigned layer, vec *u, vec *v, twiddle w) {
    (void)layer;
    const vec difference = _mm512_sub_epi64(_mm512_add_epi64(*u, all(2 * Q)), *v);
    const vec h = high52(difference, w.quotient);
    *u = below(_mm512_add_epi64(*u, *v), all(2 * Q));
    const vec rest = low52(low52(_mm512_setzero_si512(), difference, w.root), h, all(((uint64_t)1 << 52) - Q));
    *v = _mm512_and_si512(rest, all(((uint64_t)1 << 52) - 1));
}

LATTICE_INLINE void canonical(uint64_t *cells) {
    for (size_t i = 0; i < RING; i += WIDTH)
        vstore(cells + i, below(vload(cells + i), all(Q)));
}

static inline uint64_t popcount64(uint64_t w) { return (uint64_t)__builtin_popcountll(w); } /* vpopcntq */

#include "lattice_body.inc.h"
