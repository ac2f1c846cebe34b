/* Limits of this machine, measured beside the kernels: how fast a core can issue AES-128 from registers, and
 * how fast it reads and writes memory. Not part of the library; built by bench/suites/limits.py. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

/* `groups` times ten rounds on eight independent registers, keys in registers; returns a value so that the
 * compiler keeps the work. */
#define ISSUE(name, features, vector, set, xor, enc, last, store, lanes)                           \
    __attribute__((target(features))) uint64_t name(size_t groups) {                               \
        vector key[11], b[8];                                                                      \
        for (int i = 0; i < 11; i++)                                                               \
            key[i] = set(i * 77);                                                                  \
        for (int i = 0; i < 8; i++)                                                                \
            b[i] = set(i);                                                                         \
        for (size_t g = 0; g < groups; g++) {                                                      \
            for (int i = 0; i < 8; i++)                                                            \
                b[i] = xor(b[i], key[0]);                                                          \
            for (int r = 1; r < 10; r++)                                                           \
                for (int i = 0; i < 8; i++)                                                        \
                    b[i] = enc(b[i], key[r]);                                                      \
            for (int i = 0; i < 8; i++)                                                            \
                b[i] = last(b[i], key[10]);                                                        \
        }                                                                                          \
        for (int i = 1; i < 8; i++)                                                                \
            b[0] = xor(b[0], b[i]);                                                                \
        uint64_t out[lanes];                                                                       \
        store((void *)out, b[0]);                                                                  \
        return out[0];                                                                             \
    }

ISSUE(issue_vaes512, "vaes,avx512f", __m512i, _mm512_set1_epi64, _mm512_xor_si512, _mm512_aesenc_epi128,
      _mm512_aesenclast_epi128, _mm512_storeu_si512, 8)
ISSUE(issue_vaes256, "vaes,avx2", __m256i, _mm256_set1_epi64x, _mm256_xor_si256, _mm256_aesenc_epi128,
      _mm256_aesenclast_epi128, _mm256_storeu_si256, 4)
ISSUE(issue_aesni, "aes,sse4.1", __m128i, _mm_set1_epi64x, _mm_xor_si128, _mm_aesenc_si128,
      _mm_aesenclast_si128, _mm_storeu_si128, 2)
#endif

/* acc[i] += values[i], 32-bit: what an unmasked sum costs. */
void add32(uint32_t *restrict acc, const uint32_t *restrict values, size_t n) {
    for (size_t i = 0; i < n; i++)
        acc[i] += values[i];
}

void copy(void *restrict to, const void *restrict from, size_t bytes) { memcpy(to, from, bytes); }
