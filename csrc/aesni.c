/* AES-NI: one AES block per register, eight in flight. */
#include "modq.h"

#ifdef SA_X86

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("aes,sse4.1"))), apply_to = function)
#else
#pragma GCC target("aes,sse4.1")
#endif
#include <immintrin.h>

#include "mask_128.inc.h"
#include "real_body.inc.h"
#include "lattice_scalar.inc.h"

SA_VARIANT(aesni, SA_AES, mask_add, sa_pack_portable, sa_unpack_add_portable);

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
