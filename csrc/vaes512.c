/* AVX-512 with VAES: four AES blocks per register, eight registers in flight. */
#include "modq.h"

#ifdef SA_X86

#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("aes,vaes,avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vpopcntdq"))), apply_to = function)
#else
#pragma GCC target("aes,vaes,avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vpopcntdq")
#endif
#include <immintrin.h>

typedef __m512i block;

#define IN_FLIGHT ((size_t)8)
#define load(p) _mm512_loadu_si512((const void *)(p))
#define store(p, b) _mm512_storeu_si512((void *)(p), (b))
#define add16 _mm512_add_epi16
#define add32 _mm512_add_epi32
#define add64 _mm512_add_epi64
#define sub16 _mm512_sub_epi16
#define sub32 _mm512_sub_epi32
#define sub64 _mm512_sub_epi64

#include "aes_schedule_x86.inc.h"

/* The counter is a multiple of 32, so block i has counter | i: one exclusive or on the broadcast
 * first block, instead of an addition and a byte swap each. */
static inline void keystream(const schedule *s, uint32_t counter, block out[8]) {
    const block start = _mm512_broadcast_i32x4(first_block(s, counter));
    const block four = _mm512_set_epi32(3 << 24, 0, 0, 0, 2 << 24, 0, 0, 0, 1 << 24, 0, 0, 0, 0, 0, 0, 0);
    SA_UNROLL
    for (int i = 0; i < 8; i++)
        out[i] = _mm512_xor_si512(
            start, _mm512_xor_si512(four, _mm512_broadcast_i32x4(_mm_set_epi32(i << 26, 0, 0, 0))));
    for (unsigned r = 1; r < 10; r++) {
        const block key = _mm512_broadcast_i32x4(s->key[r]);
        SA_UNROLL
        for (unsigned i = 0; i < 8; i++)
            out[i] = _mm512_aesenc_epi128(out[i], key);
    }
    const block last = _mm512_broadcast_i32x4(s->key[10]);
    SA_UNROLL
    for (unsigned i = 0; i < 8; i++)
        out[i] = _mm512_aesenclast_epi128(out[i], last);
}

static inline void clear_registers(void) {
#define CLEAR(n) __asm__ volatile("vpxorq %%zmm" #n ", %%zmm" #n ", %%zmm" #n : : : "xmm" #n);
    CLEAR(16) CLEAR(17) CLEAR(18) CLEAR(19) CLEAR(20) CLEAR(21) CLEAR(22) CLEAR(23)
    CLEAR(24) CLEAR(25) CLEAR(26) CLEAR(27) CLEAR(28) CLEAR(29) CLEAR(30) CLEAR(31)
#undef CLEAR
    _mm256_zeroall();
}

#include "mask_body.inc.h"

#define QWORDS 8
#define INDEX(i) ((uint64_t)(i))
#define permute(v, index) _mm512_permutexvar_epi64((index), (v))
#define shift_left_each _mm512_sllv_epi64
#define shift_right_each _mm512_srlv_epi64
#define shift_left64(v, n) _mm512_sll_epi64((v), _mm_cvtsi32_si128((int)(n)))
#define shift_right64(v, n) _mm512_srl_epi64((v), _mm_cvtsi32_si128((int)(n)))
#define shift_left32(v, n) _mm512_sll_epi32((v), _mm_cvtsi32_si128((int)(n)))
#define shift_right32(v, n) _mm512_srl_epi32((v), _mm_cvtsi32_si128((int)(n)))
#define and_bits _mm512_and_si512
#define or_bits _mm512_or_si512
#define broadcast64(word) _mm512_set1_epi64((long long)(word))
#include "ring_body.inc.h"
#include "real_body.inc.h"
#include "lattice_ifma.inc.h"

SA_VARIANT(vaes512, SA_AES | SA_AVX2 | SA_VAES | SA_AVX512 | SA_IFMA, mask_add, pack, unpack_add);

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
