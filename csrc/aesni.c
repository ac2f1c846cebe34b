/* AES-NI: one AES block per register, eight in flight. */
#include "kernels_impl.h"

#ifdef SA_X86

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("aes,sse4.1"))), apply_to = function)
#else
#pragma GCC target("aes,sse4.1")
#endif
#include <immintrin.h>

#include "mask_128.inc.h"
#include "real_body.inc.h"

const sa_kernels sa_kernels_aesni = {
    .name = "aesni",
    .needs = SA_AES,
    .mask_add = mask_add,
    .pack = sa_pack_portable,
    .unpack_add = sa_unpack_add_portable,
    SA_REAL_KERNELS,
};

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int sa_not_empty; /* a C file must declare something */
#endif
