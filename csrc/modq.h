/* Z_q, q = 2^50 - 2^14 + 1: the ring of the lattice masks is Z_q[X] / (X^2048 + 1). */
#ifndef SECAGG_MODQ_H
#define SECAGG_MODQ_H

#include "kernels_impl.h"

#define Q ((uint64_t)1125899906826241)
#define Q_BITS 50
#define Q_FOLD ((uint64_t)16383) /* 2^50 = 2^14 - 1 modulo q */
#define RING SA_LATTICE_RING
#define RING_LOG 11
#define PSI_INVERSE ((uint64_t)720760365837893) /* of 765727830662934, of order 4096 */
#define Q_INVERSE_64 ((uint64_t)70936092446048257) /* of q modulo 2^64 */
#define RING_INVERSE ((uint64_t)1125350151012361) /* of 2048 */

__extension__ typedef unsigned __int128 u128;

/* The power of psi that stands at place i of the inverse transform's table: -(i with its 11 bits reversed). */
uint64_t sa_lattice_root(size_t i);

/* v below 2 q -> [0, q). */
static inline uint64_t modq_reduce(uint64_t v) {
    const uint64_t t = v - Q;
    return t + (Q & (0 - (t >> 63)));
}

/* The product of a, b below 2^51, in [0, q). */
static inline uint64_t modq_mul(uint64_t a, uint64_t b) {
    const uint64_t low = ((uint64_t)1 << Q_BITS) - 1;
    const u128 product = (u128)a * b;
    const u128 once = (product & low) + (product >> Q_BITS) * Q_FOLD; /* below 2^67 */
    const uint64_t twice = ((uint64_t)once & low) + (uint64_t)(once >> Q_BITS) * Q_FOLD;
    return modq_reduce(twice); /* below 2^50 + 2^31 */
}

#endif
