/* The only file that asks the CPU, and the only one with state: the chosen table. */
#include "kernels_impl.h"

static const sa_kernels *const WIDEST_FIRST[] = {
#ifdef SA_X86
    &sa_kernels_aesni,
#endif
    &sa_kernels_portable,
};

static const sa_kernels *chosen = &sa_kernels_portable;

uint32_t sa_cpu_features(void) {
    uint32_t have = 0;
#ifdef SA_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("aes") && __builtin_cpu_supports("sse4.1"))
        have |= SA_AESNI;
#endif
    return have;
}

void sa_select(uint32_t allowed) {
    const uint32_t have = sa_cpu_features() & allowed;
    const sa_kernels *const *k = WIDEST_FIRST;
    while (((*k)->needs & have) != (*k)->needs)
        k++; /* ends at portable, which needs nothing */
    chosen = *k;
}

const char *sa_variant(void) { return chosen->name; }

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
