/* Shared by the variants: the table of functions that one of them fills. */
#ifndef SECAGG_KERNELS_IMPL_H
#define SECAGG_KERNELS_IMPL_H

#include "secagg_kernels.h"

typedef struct {
    const char *name;
    uint32_t needs; /* SA_* bits */
    /* NULL: this variant has no AES instructions, the caller brings its own AES. */
    void (*mask_add)(void *acc, size_t lanes, unsigned lane_bytes, uint64_t first,
                     const uint8_t *seeds, const int8_t *signs, size_t count);
    void (*pack)(uint8_t *packed, const void *values, size_t lanes, unsigned lane_bytes, unsigned bits);
    void (*unpack_add)(void *acc, const uint8_t *packed, size_t lanes, unsigned lane_bytes,
                       unsigned bits);
} sa_kernels;

void sa_pack_portable(uint8_t *packed, const void *values, size_t lanes, unsigned lane_bytes,
                      unsigned bits);
void sa_unpack_add_portable(void *acc, const uint8_t *packed, size_t lanes, unsigned lane_bytes,
                            unsigned bits);

extern const sa_kernels sa_kernels_portable;
#if defined(__x86_64__) || defined(__i386__)
#define SA_X86 1
extern const sa_kernels sa_kernels_aesni;
#endif

#endif
