/* The only file that asks the CPU and the operating system, and the only one with state: the table. */
#include "modq.h"

#if defined(SA_X86)
#include <cpuid.h>
#elif defined(SA_ARM) && defined(__linux__)
#include <sys/auxv.h>
#endif

static const sa_kernels *const WIDEST_FIRST[] = {
#if defined(SA_X86)
    &sa_kernels_vaes512, &sa_kernels_vaes256, &sa_kernels_avx2, &sa_kernels_aesni,
#elif defined(SA_ARM)
    &sa_kernels_armv8,
#endif
    &sa_kernels_portable,
};

static const sa_kernels *chosen = &sa_kernels_portable;

#if defined(SA_X86)

/* Which registers the operating system saves: a CPU may have instructions that it must not use. */
static uint64_t saved_state(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

uint32_t sa_cpu_features(void) {
    enum { YMM = 0x06, ZMM = 0xe6 }; /* XCR0: SSE and AVX; opmask and both halves of ZMM, too */
    const uint32_t avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    uint32_t a, b, c, d, have = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    if ((c & bit_AES) && (c & bit_SSE4_1))
        have |= SA_AES;
    const uint64_t saved = (c & bit_OSXSAVE) ? saved_state() : 0;
    const int fma = (c & bit_FMA) != 0;
    const int avx = (c & bit_AVX) && (saved & YMM) == YMM;
    if (avx && __get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        if ((b & bit_AVX2) && fma)
            have |= SA_AVX2;
        if (c & bit_VAES)
            have |= SA_VAES;
        if ((b & avx512) == avx512 && (saved & ZMM) == ZMM) {
            have |= SA_AVX512;
            if ((b & bit_AVX512IFMA) && (c & bit_AVX512VPOPCNTDQ))
                have |= SA_IFMA;
        }
    }
    return have;
}

#elif defined(SA_ARM)

uint32_t sa_cpu_features(void) {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & (1ul << 3)) ? SA_ARM_AES : 0; /* HWCAP_AES */
#elif defined(__APPLE__) || defined(__ARM_FEATURE_AES)
    return SA_ARM_AES;
#else
    return 0;
#endif
}

#else

uint32_t sa_cpu_features(void) { return 0; }

#endif

static const sa_kernels *widest(uint32_t have) {
    const sa_kernels *const *k = WIDEST_FIRST;
    while (((*k)->needs & have) != (*k)->needs)
        k++; /* ends at portable, which needs nothing */
    return *k;
}

void sa_select(uint32_t allowed) {
    chosen = widest(sa_cpu_features() & allowed);
    chosen->lattice_prepare();
}

const char *sa_variant(void) { return chosen->name; }

const char *sa_variant_at(size_t i, uint32_t *needs) {
    if (i >= sizeof WIDEST_FIRST / sizeof *WIDEST_FIRST)
        return NULL;
    *needs = WIDEST_FIRST[i]->needs;
    return WIDEST_FIRST[i]->name;
}

int sa_has_mask(void) { return chosen->mask_add != NULL; }

void sa_mask_add(void *acc, size_t lanes, unsigned lane_bytes, uint64_t first, const uint8_t *seeds,
                 const int8_t *signs, size_t count) {
    chosen->mask_add(acc, lanes, lane_bytes, first, seeds, signs, count);
}

void sa_pack(uint8_t *packed, const void *values, size_t lanes, unsigned lane_bytes, unsigned bits) {
    chosen->pack(packed, values, lanes, lane_bytes, bits);
}

void sa_unpack_add(void *acc, const uint8_t *packed, size_t lanes, unsigned lane_bytes,
                   unsigned bits) {
    chosen->unpack_add(acc, packed, lanes, lane_bytes, bits);
}

size_t sa_quantize_f64(void *out, unsigned lane_bytes, unsigned bits, const double *values,
                       const uint32_t *words, size_t n, double clip, double scale, double limit) {
    return chosen->quantize_f64(out, lane_bytes, bits, values, words, n, clip, scale, limit);
}

size_t sa_quantize_f32(void *out, unsigned lane_bytes, unsigned bits, const float *values,
                       const uint32_t *words, size_t n, double clip, double scale, double limit) {
    return chosen->quantize_f32(out, lane_bytes, bits, values, words, n, clip, scale, limit);
}

void sa_dequantize(double *out, const void *values, size_t lanes, unsigned lane_bytes, unsigned bits,
                   double step) {
    chosen->dequantize(out, values, lanes, lane_bytes, bits, step);
}

void sa_flip_signs(float *values, const uint8_t *flips, size_t n) {
    chosen->flip_signs(values, flips, n);
}

void sa_hadamard(float *values, size_t n, float factor) { chosen->hadamard(values, n, factor); }

void sa_lattice_secret(uint64_t *prepared, const uint64_t *secret) {
    chosen->lattice_secret(prepared, secret);
}

void sa_lattice_block(uint64_t *entries, const uint64_t *prepared, const uint64_t *noise,
                      const void *values, size_t lanes, unsigned lane_bytes, unsigned bits,
                      unsigned upload_bits) {
    chosen->lattice_block(entries, prepared, noise, values, lanes, lane_bytes, bits, upload_bits);
}

void sa_lattice_mask(uint64_t *entries, size_t blocks, uint64_t first, const uint8_t *public_seed,
                     const uint8_t *noise_seed, const uint64_t *prepared, const void *values,
                     size_t lanes, unsigned lane_bytes, unsigned bits, unsigned upload_bits) {
    static const int8_t plus[1] = {1};
    uint64_t noise[RING] = {0};
    const uint8_t *left = values;
    for (size_t i = 0; i < blocks; i++, entries += RING) {
        const size_t here = lanes < RING ? lanes : RING;
        memset(entries, 0, RING * sizeof *entries);
        chosen->mask_add(entries, RING, 8, (first + i) * RING, public_seed, plus, 1);
        if (noise_seed != NULL) {
            memset(noise, 0, sizeof noise);
            chosen->mask_add(noise, RING, 8, (first + i) * RING, noise_seed, plus, 1);
        }
        chosen->lattice_block(entries, prepared, noise, left, here, lane_bytes, bits, upload_bits);
        left += here * lane_bytes;
        lanes -= here;
    }
    sa_wipe(noise, sizeof noise);
}
