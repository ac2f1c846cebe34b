/* Shared by the variants: the table of functions that one of them fills. */
#ifndef SECAGG_KERNELS_IMPL_H
#define SECAGG_KERNELS_IMPL_H

#include "secagg_kernels.h"

#include <string.h>

typedef size_t sa_quantize_fn(void *out, unsigned lane_bytes, unsigned bits, const void *values,
                              const uint32_t *words, size_t n, double clip, double scale,
                              double limit);

typedef struct {
    const char *name;
    uint32_t needs; /* SA_* bits */
    /* NULL: this variant has no AES instructions, the caller brings its own AES. */
    void (*mask_add)(void *acc, size_t lanes, unsigned lane_bytes, uint64_t first,
                     const uint8_t *seeds, const int8_t *signs, size_t count);
    void (*pack)(uint8_t *packed, const void *values, size_t lanes, unsigned lane_bytes, unsigned bits);
    void (*unpack_add)(void *acc, const uint8_t *packed, size_t lanes, unsigned lane_bytes,
                       unsigned bits);
    sa_quantize_fn *quantize_f32, *quantize_f64;
    void (*dequantize)(double *out, const void *values, size_t lanes, unsigned lane_bytes,
                       unsigned bits, double step);
    void (*flip_signs)(float *values, const uint8_t *flips, size_t n);
    void (*hadamard)(float *values, size_t n, float factor);
    void (*lattice_prepare)(void); /* fills the variant's table of roots; before the next two */
    void (*lattice_secret)(uint64_t *prepared, const uint64_t *secret);
    void (*lattice_block)(uint64_t *entries, const uint64_t *prepared, const uint64_t *noise,
                          const uint8_t *values, size_t lanes, unsigned lane_bytes, unsigned bits,
                          unsigned upload_bits);
} sa_kernels;

/* The plain C of all variants without a vector form, and of the ends of those that have one. */
void sa_pack_portable(uint8_t *packed, const void *values, size_t lanes, unsigned lane_bytes,
                      unsigned bits);
void sa_unpack_add_portable(void *acc, const uint8_t *packed, size_t lanes, unsigned lane_bytes,
                            unsigned bits);

extern const sa_kernels sa_kernels_portable;
#if defined(__x86_64__)
#define SA_X86 1
extern const sa_kernels sa_kernels_aesni;
extern const sa_kernels sa_kernels_avx2;
extern const sa_kernels sa_kernels_vaes256;
extern const sa_kernels sa_kernels_vaes512;
#elif defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ &&                         \
    (!defined(__clang__) || __clang_major__ >= 16 || defined(__ARM_FEATURE_AES))
/* Older clang has the AES intrinsics only where the whole compilation may use them. */
#define SA_ARM 1
extern const sa_kernels sa_kernels_armv8;
#endif

/* The table of a variant, at the end of its file: what it needs, its masks and packing, and the
 * functions that real_body.inc.h and lattice_body.inc.h define in every file. */
#define SA_VARIANT(variant, features, mask, packing, unpacking)                                    \
    const sa_kernels sa_kernels_##variant = {                                                      \
        .name = #variant,                                                                          \
        .needs = (features),                                                                       \
        .mask_add = (mask),                                                                        \
        .pack = (packing),                                                                         \
        .unpack_add = (unpacking),                                                                 \
        .quantize_f32 = quantize_f32,                                                              \
        .quantize_f64 = quantize_f64,                                                              \
        .dequantize = dequantize,                                                                  \
        .flip_signs = flip_signs,                                                                  \
        .hadamard = hadamard,                                                                      \
        .lattice_prepare = lattice_prepare,                                                        \
        .lattice_secret = lattice_secret,                                                          \
        .lattice_block = lattice_block,                                                            \
    }

/* Full unrolling keeps small arrays of vectors in registers: keystream must not reach the stack. */
#if defined(__clang__)
#define SA_UNROLL _Pragma("unroll")
#else
#define SA_UNROLL _Pragma("GCC unroll 8")
#endif

static inline uint64_t sa_low_bits(unsigned bits) { return bits == 64 ? ~0ull : (1ull << bits) - 1; }

static inline void sa_wipe(void *memory, size_t bytes) {
    memset(memory, 0, bytes);
    __asm__ volatile("" : : "r"(memory) : "memory"); /* keep the memset */
}

#endif
