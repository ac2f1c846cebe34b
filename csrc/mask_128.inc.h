/* Mask expansion with one AES block per register, for AES-NI with and without AVX2. */

typedef __m128i block;

#define IN_FLIGHT ((size_t)8)
#define load(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define store(p, b) _mm_storeu_si128((__m128i *)(void *)(p), (b))
#define add16 _mm_add_epi16
#define add32 _mm_add_epi32
#define add64 _mm_add_epi64
#define sub16 _mm_sub_epi16
#define sub32 _mm_sub_epi32
#define sub64 _mm_sub_epi64

#include "aes_schedule_x86.inc.h"

/* The counter is a multiple of 8, so block i has counter | i. */
static inline void keystream(const schedule *s, uint32_t counter, block out[8]) {
    const block start = first_block(s, counter);
    SA_UNROLL
    for (int i = 0; i < 8; i++)
        out[i] = _mm_xor_si128(start, _mm_set_epi32(i << 24, 0, 0, 0));
    for (unsigned r = 1; r < 10; r++)
        SA_UNROLL
        for (unsigned i = 0; i < 8; i++)
            out[i] = _mm_aesenc_si128(out[i], s->key[r]);
    SA_UNROLL
    for (unsigned i = 0; i < 8; i++)
        out[i] = _mm_aesenclast_si128(out[i], s->key[10]);
}

static inline void clear_registers(void) {
#define CLEAR(n) __asm__ volatile("pxor %%xmm" #n ", %%xmm" #n : : : "xmm" #n);
    CLEAR(0) CLEAR(1) CLEAR(2) CLEAR(3) CLEAR(4) CLEAR(5) CLEAR(6) CLEAR(7)
    CLEAR(8) CLEAR(9) CLEAR(10) CLEAR(11) CLEAR(12) CLEAR(13) CLEAR(14) CLEAR(15)
#undef CLEAR
}

#include "mask_body.inc.h"
