/* AVX2 with AES-NI, without VAES: the masks of aesni.c, packing four words at a time. */
#include "modq.h"

#ifdef SA_X86

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("aes,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("aes,avx2,fma")
#endif
#include <immintrin.h>

#include "mask_128.inc.h"
#undef load
#undef store
#undef add16
#undef add32
#undef add64
#define block __m256i
#include "ring_256.inc.h"
#include "real_body.inc.h"
#include "lattice_256.inc.h"

SA_VARIANT(avx2, SA_AES | SA_AVX2, mask_add, pack, unpack_add);

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
