/* AVX2 with VAES: two AES blocks per register, eight registers in flight. */
#include "modq.h"

#ifdef SA_X86

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("aes,vaes,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("aes,vaes,avx2,fma")
#endif
#include <immintrin.h>

typedef __m256i block;

#define IN_FLIGHT ((size_t)8)
#define sub16 _mm256_sub_epi16
#define sub32 _mm256_sub_epi32
#define sub64 _mm256_sub_epi64

#include "aes_schedule_x86.inc.h"
#include "ring_256.inc.h"

/* The counter is a multiple of 16, so block i has counter | i. */
static inline void keystream(const schedule *s, uint32_t counter, block out[8]) {
    const block start = _mm256_broadcastsi128_si256(first_block(s, counter));
    SA_UNROLL
    for (int i = 0; i < 8; i++)
        out[i] = _mm256_xor_si256(
            start, _mm256_set_epi32((2 * i + 1) << 24, 0, 0, 0, (2 * i) << 24, 0, 0, 0));
    for (unsigned r = 1; r < 10; r++) {
        const block key = _mm256_broadcastsi128_si256(s->key[r]);
        SA_UNROLL
        for (unsigned i = 0; i < 8; i++)
            out[i] = _mm256_aesenc_epi128(out[i], key);
    }
    const block last = _mm256_broadcastsi128_si256(s->key[10]);
    SA_UNROLL
    for (unsigned i = 0; i < 8; i++)
        out[i] = _mm256_aesenclast_epi128(out[i], last);
}

static inline void clear_registers(void) { _mm256_zeroall(); }

#include "mask_body.inc.h"
#include "real_body.inc.h"
#include "lattice_256.inc.h"

SA_VARIANT(vaes256, SA_AES | SA_AVX2 | SA_VAES, mask_add, pack, unpack_add);

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
