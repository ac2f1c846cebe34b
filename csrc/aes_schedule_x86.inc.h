/* AES-128 key expansion with AES-NI, for the x86 variants. */

typedef struct {
    __m128i key[11];
    __m128i nonce; /* counter word zero, already combined with key[0] */
} schedule;

static inline __m128i next_round_key(__m128i key, __m128i assist) {
    assist = _mm_shuffle_epi32(assist, 0xff);
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8)); /* = shifts by 4, 8 and 12 together */
    return _mm_xor_si128(key, assist);
}

static inline void expand(schedule *s, const uint8_t *seed) {
    __m128i k = _mm_loadu_si128((const __m128i *)(const void *)seed);
    s->key[0] = k;
#define ROUND(i, rcon) s->key[i] = k = next_round_key(k, _mm_aeskeygenassist_si128(k, rcon))
    ROUND(1, 0x01);
    ROUND(2, 0x02);
    ROUND(3, 0x04);
    ROUND(4, 0x08);
    ROUND(5, 0x10);
    ROUND(6, 0x20);
    ROUND(7, 0x40);
    ROUND(8, 0x80);
    ROUND(9, 0x1b);
    ROUND(10, 0x36);
#undef ROUND
    /* seed[16:28], then four zero bytes: read within the 32 bytes of the seed */
    const __m128i nonce = _mm_loadu_si128((const __m128i *)(const void *)(seed + 16));
    s->nonce = _mm_xor_si128(_mm_insert_epi32(nonce, 0, 3), s->key[0]);
}

/* The counter block, before the first round. */
static inline __m128i first_block(const schedule *s, uint32_t counter) {
    return _mm_xor_si128(s->nonce, _mm_set_epi32((int)__builtin_bswap32(counter), 0, 0, 0));
}
