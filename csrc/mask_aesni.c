/* Mask expansion with AES-NI: one 128-bit block per register, eight in flight. */
#include "kernels_impl.h"

#ifdef SA_X86

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("aes,sse4.1"))), apply_to = function)
#else
#pragma GCC target("aes,sse4.1")
#endif
#include <immintrin.h>

typedef __m128i block;
typedef struct {
    __m128i key[11];
    __m128i nonce; /* counter word zero */
} schedule;

#define IN_FLIGHT ((size_t)8)
#define load(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define store(p, b) _mm_storeu_si128((__m128i *)(void *)(p), (b))
#define add16 _mm_add_epi16
#define add32 _mm_add_epi32
#define add64 _mm_add_epi64
#define sub16 _mm_sub_epi16
#define sub32 _mm_sub_epi32
#define sub64 _mm_sub_epi64

static inline __m128i next_round_key(__m128i key, __m128i assist) {
    assist = _mm_shuffle_epi32(assist, 0xff);
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8)); /* = shifts by 4, 8 and 12 together */
    return _mm_xor_si128(key, assist);
}

static void expand(schedule *s, const uint8_t *seed) {
    __m128i k = load(seed);
    s->key[0] = k;
#define ROUND(i, rcon) s->key[i] = k = next_round_key(k, _mm_aeskeygenassist_si128(k, rcon))
    ROUND(1, 0x01);
    ROUND(2, 0x02);
    ROUND(3, 0x04);
    ROUND(4, 0x08);
    ROUND(5, 0x10);
    ROUND(6, 0x20);
    ROUND(7, 0x40);
    ROUND(8, 0x80);
    ROUND(9, 0x1b);
    ROUND(10, 0x36);
#undef ROUND
    /* seed[16:28], then four zero bytes: read within the 32 bytes of the seed */
    s->nonce = _mm_insert_epi32(load(seed + 16), 0, 3);
}

static inline void keystream(const schedule *s, uint32_t counter, block out[8]) {
    __m128i b[8];
    for (unsigned i = 0; i < 8; i++)
        b[i] = _mm_xor_si128(
            _mm_insert_epi32(s->nonce, (int)__builtin_bswap32(counter + i), 3), s->key[0]);
    for (unsigned r = 1; r < 10; r++)
        for (unsigned i = 0; i < 8; i++)
            b[i] = _mm_aesenc_si128(b[i], s->key[r]);
    for (unsigned i = 0; i < 8; i++)
        out[i] = _mm_aesenclast_si128(b[i], s->key[10]);
}

#include "mask_body.inc.h"

const sa_kernels sa_kernels_aesni = {
    .name = "aesni",
    .needs = SA_AESNI,
    .mask_add = mask_add,
    .pack = sa_pack_portable,
    .unpack_add = sa_unpack_add_portable,
};

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int sa_not_empty; /* a C file must declare something */
#endif
