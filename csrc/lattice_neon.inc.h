/* Lattice masks with two doubles at a time. */

#define vec float64x2_t
#define WIDTH 2
#define LATTICE_INLINE static inline __attribute__((always_inline))
#define vload(p) vld1q_f64((const double *)(const void *)(p))
#define vstore(p, v) vst1q_f64((double *)(void *)(p), (v))
#define dadd vaddq_f64
#define dsub vsubq_f64
#define dmul vmulq_f64
#define dfma(a, b, c) vfmaq_f64((c), (a), (b))
#define dset vdupq_n_f64
#define dround vrndnq_f64
#define first_of vuzp1q_f64
#define second_of vuzp2q_f64
#define droots(p, copies) vload(p)

LATTICE_INLINE vec from_words(const uint64_t *p) {
    return vcvtq_f64_u64(vandq_u64(vld1q_u64(p), vdupq_n_u64(((uint64_t)1 << Q_BITS) - 1)));
}

LATTICE_INLINE void as_integers(uint64_t *p, vec v) { vst1q_u64(p, vreinterpretq_u64_s64(vcvtq_s64_f64(v))); }

#include "lattice_double.inc.h"
