/* ARMv8 with the cryptography extension: one AES block per register, eight in flight. */
#include "modq.h"

#ifdef SA_ARM

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("aes"))), apply_to = function)
#else
#pragma GCC target("+crypto")
#endif
#include <arm_neon.h>

typedef uint8x16_t block;
typedef struct {
    uint8x16_t key[11];
    uint8x16_t nonce; /* counter word zero */
} schedule;

#define IN_FLIGHT ((size_t)8)
#define load(p) vld1q_u8((const uint8_t *)(p))
#define store(p, b) vst1q_u8((uint8_t *)(p), (b))
#define LANES(op, lane, a, b)                                                                      \
    vreinterpretq_u8_u##lane(op##_u##lane(vreinterpretq_u##lane##_u8(a), vreinterpretq_u##lane##_u8(b)))
#define add16(a, b) LANES(vaddq, 16, a, b)
#define add32(a, b) LANES(vaddq, 32, a, b)
#define add64(a, b) LANES(vaddq, 64, a, b)
#define sub16(a, b) LANES(vsubq, 16, a, b)
#define sub32(a, b) LANES(vsubq, 32, a, b)
#define sub64(a, b) LANES(vsubq, 64, a, b)

/* S-box of a word, by one AES round without a key: in equal columns ShiftRows moves nothing. */
static inline uint32_t substitute(uint32_t word) {
    const uint8x16_t s = vaeseq_u8(vreinterpretq_u8_u32(vdupq_n_u32(word)), vdupq_n_u8(0));
    return vgetq_lane_u32(vreinterpretq_u32_u8(s), 0);
}

static inline void expand(schedule *s, const uint8_t *seed) { /* FIPS 197, 5.2 */
    static const uint8_t RCON[10] = {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1b, 0x36};
    uint32_t w[4];
    memcpy(w, seed, 16);
    s->key[0] = vld1q_u8(seed);
    for (unsigned r = 0; r < 10; r++) {
        const uint32_t t = substitute(w[3]);
        w[0] ^= (t >> 8 | t << 24) ^ RCON[r];
        w[1] ^= w[0];
        w[2] ^= w[1];
        w[3] ^= w[2];
        s->key[r + 1] = vreinterpretq_u8_u32(vld1q_u32(w));
    }
    s->nonce = vreinterpretq_u8_u32(vsetq_lane_u32(0, vreinterpretq_u32_u8(vld1q_u8(seed + 16)), 3));
    sa_wipe(w, sizeof w);
}

/* AESE adds the key before the round, AESMC mixes: the last key is added apart. */
static inline void keystream(const schedule *s, uint32_t counter, block out[8]) {
    SA_UNROLL
    for (uint32_t i = 0; i < 8; i++)
        out[i] = vreinterpretq_u8_u32(vsetq_lane_u32(__builtin_bswap32(counter + i),
                                                     vreinterpretq_u32_u8(s->nonce), 3));
    for (unsigned r = 0; r < 9; r++)
        SA_UNROLL
        for (unsigned i = 0; i < 8; i++)
            out[i] = vaesmcq_u8(vaeseq_u8(out[i], s->key[r]));
    SA_UNROLL
    for (unsigned i = 0; i < 8; i++)
        out[i] = veorq_u8(vaeseq_u8(out[i], s->key[9]), s->key[10]);
}

static inline void clear_registers(void) {
#define CLEAR(n) __asm__ volatile("movi v" #n ".16b, #0" : : : "v" #n);
    CLEAR(0) CLEAR(1) CLEAR(2) CLEAR(3) CLEAR(4) CLEAR(5) CLEAR(6) CLEAR(7)
    CLEAR(8) CLEAR(9) CLEAR(10) CLEAR(11) CLEAR(12) CLEAR(13) CLEAR(14) CLEAR(15)
    CLEAR(16) CLEAR(17) CLEAR(18) CLEAR(19) CLEAR(20) CLEAR(21) CLEAR(22) CLEAR(23)
    CLEAR(24) CLEAR(25) CLEAR(26) CLEAR(27) CLEAR(28) CLEAR(29) CLEAR(30) CLEAR(31)
#undef CLEAR
}

#include "mask_body.inc.h"
#include "real_body.inc.h"
#include "lattice_neon.inc.h"

SA_VARIANT(armv8, SA_ARM_AES, mask_add, sa_pack_portable, sa_unpack_add_portable);

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
