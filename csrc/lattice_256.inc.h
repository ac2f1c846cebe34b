/* Lattice masks with AVX2 and FMA, for the variants of 256 bits. */

#define vec __m256d
#define WIDTH 4
#define LATTICE_INLINE static inline __attribute__((always_inline))
#define vload(p) _mm256_loadu_pd((const double *)(const void *)(p))
#define vstore(p, v) _mm256_storeu_pd((double *)(void *)(p), (v))
#define dadd _mm256_add_pd
#define dsub _mm256_sub_pd
#define dmul _mm256_mul_pd
#define dfma _mm256_fmadd_pd
#define dset _mm256_set1_pd
#define dround(v) _mm256_round_pd((v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)

/* Even and odd places of two vectors; unpack does so within halves. */
#define IN_ORDER 0xd8
#define first_of(a, b) _mm256_permute4x64_pd(_mm256_unpacklo_pd((a), (b)), IN_ORDER)
#define second_of(a, b) _mm256_permute4x64_pd(_mm256_unpackhi_pd((a), (b)), IN_ORDER)

LATTICE_INLINE vec droots(const double *p, size_t copies) {
    return copies == 1 ? vload(p) : _mm256_broadcast_pd((const __m128d *)(const void *)p);
}

/* Integers below 2^52 stand in the fraction of 2^52 + n. */
LATTICE_INLINE vec from_words(const uint64_t *p) {
    const __m256i low = _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(const void *)p),
                                         _mm256_set1_epi64x(((int64_t)1 << Q_BITS) - 1));
    const vec shifted = _mm256_castsi256_pd(_mm256_or_si256(low, _mm256_castpd_si256(dset(0x1p52))));
    return dsub(shifted, dset(0x1p52));
}

/* From (-2^51, 2^51). */
LATTICE_INLINE void as_integers(uint64_t *p, vec v) {
    const __m256i shifted = _mm256_castpd_si256(dadd(v, dset(0x1.8p52)));
    _mm256_storeu_si256((__m256i *)(void *)p, _mm256_sub_epi64(shifted, _mm256_castpd_si256(dset(0x1.8p52))));
}

#include "lattice_double.inc.h"
