/* Z_q: linear algebra and Reed-Solomon codes for packed sharing, and the roots of the lattice masks. */
#include "modq.h"

uint64_t sa_lattice_root(size_t i) {
    uint64_t root = 1, power = PSI_INVERSE;
    for (unsigned bit = RING_LOG; bit-- > 0; power = modq_mul(power, power))
        if (i >> bit & 1)
            root = modq_mul(root, power);
    return root;
}

#define FIELD(name) sa_modq_##name
#define P Q
#define TERMS 65536 /* products below 2^100 */

#define reduce modq_reduce
#define mul modq_mul
#define mul_loose modq_mul

static inline u128 fold(u128 v) { /* below 2^117 -> 2^82 */
    return (v & (((uint64_t)1 << Q_BITS) - 1)) + (v >> Q_BITS) * Q_FOLD;
}

static inline uint64_t settle(u128 v) { return modq_reduce((uint64_t)fold(fold(v))); }

#include "field_body.inc.h"
