/* Packing with AVX2, for the variants of 256 bits. */

#define load(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define store(p, b) _mm256_storeu_si256((__m256i *)(void *)(p), (b))
#define add16 _mm256_add_epi16
#define add32 _mm256_add_epi32
#define add64 _mm256_add_epi64

#define QWORDS 4
#define INDEX(i) ((uint64_t)(2 * (i)) | (uint64_t)(2 * (i) + 1) << 32) /* as two 32-bit words */
#define permute(v, index) _mm256_permutevar8x32_epi32((v), (index))
#define shift_left_each _mm256_sllv_epi64
#define shift_right_each _mm256_srlv_epi64
#define shift_left64(v, n) _mm256_sll_epi64((v), _mm_cvtsi32_si128((int)(n)))
#define shift_right64(v, n) _mm256_srl_epi64((v), _mm_cvtsi32_si128((int)(n)))
#define shift_left32(v, n) _mm256_sll_epi32((v), _mm_cvtsi32_si128((int)(n)))
#define shift_right32(v, n) _mm256_srl_epi32((v), _mm_cvtsi32_si128((int)(n)))
#define and_bits _mm256_and_si256
#define or_bits _mm256_or_si256
#define broadcast64(word) _mm256_set1_epi64x((long long)(word))
#include "ring_body.inc.h"
