/* Bit packing, eight (AVX-512) or four (AVX2) 64-bit words at a time.
 *
 * Neighboring lanes are first put side by side in a "unit", one 64-bit word with `width` = bits *
 * (lanes per word) bits. A vector of units is then a string of QWORDS * width bits: whole bytes, so
 * every vector starts on a byte. Word j of the string gathers the few units that touch it: for each
 * term a permutation of words and a shift; a shift of 64 gives zero.
 *
 * Before including it a variant defines block, load, store, add16/32/64 (mask_body.inc.h), QWORDS,
 *   INDEX(i)            what permute wants for word i
 *   permute(v, index)   words of v
 *   shift_left_each, shift_right_each (v, counts); shift_left64/32, shift_right64/32 (v, n)
 *   and_bits, or_bits, broadcast64(word)
 *
 * All that depends on data is data; sizes and bits are public. */

#define MAX_TERMS 64 /* at width 1 */
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    uint64_t word[QWORDS];
} words;

INLINE block as_block(const words *w) { return load(w->word); }

/* x = lanes below 2^bits -> units. */
INLINE block join(block x, unsigned lane_bytes, unsigned bits) {
    if (lane_bytes == 2) {
        const block low = broadcast64(0x0000ffff0000ffff), high = broadcast64(0xffff0000ffff0000);
        x = or_bits(and_bits(x, low), shift_right32(and_bits(x, high), 16 - bits));
        bits *= 2;
    }
    if (lane_bytes <= 4) {
        const block low = broadcast64(0x00000000ffffffff), high = broadcast64(0xffffffff00000000);
        x = or_bits(and_bits(x, low), shift_right64(and_bits(x, high), 32 - bits));
    }
    return x;
}

/* Units, with anything above them -> lanes below 2^bits. */
INLINE block split(block u, unsigned lane_bytes, unsigned bits) {
    const uint64_t keep = sa_low_bits(bits);
    if (lane_bytes == 8)
        return and_bits(u, broadcast64(keep));
    if (lane_bytes == 4)
        return or_bits(and_bits(u, broadcast64(keep)),
                       and_bits(shift_left64(u, 32 - bits), broadcast64(keep << 32)));
    const uint64_t pair = sa_low_bits(2 * bits), both = keep | keep << 32;
    const block y = or_bits(and_bits(u, broadcast64(pair)),
                            and_bits(shift_left64(u, 32 - 2 * bits), broadcast64(pair << 32)));
    return or_bits(and_bits(y, broadcast64(both)),
                   and_bits(shift_left32(y, 16 - bits), broadcast64(both << 16)));
}

INLINE block add_lanes(block a, block b, unsigned lane_bytes) {
    return lane_bytes == 2 ? add16(a, b) : lane_bytes == 4 ? add32(a, b) : add64(a, b);
}

/* Pack whole vectors while a full store stays within the string; returns the lanes done. */
INLINE size_t pack_vectors(uint8_t *packed, const uint8_t *values, size_t lanes, unsigned lane_bytes,
                           unsigned bits, unsigned terms) {
    const unsigned width = bits * (8 / lane_bytes);
    const size_t per_vector = sizeof(block) / lane_bytes, bytes = QWORDS * width / 8;
    const size_t all = (lanes / 8) * bits + ((lanes % 8) * bits + 7) / 8;
    words index[MAX_TERMS], left[MAX_TERMS], right;
    for (unsigned j = 0; j < QWORDS; j++) {
        const unsigned unit = 64 * j / width;
        right.word[j] = 64 * j - unit * width;
        for (unsigned c = 0; c < terms; c++) {
            const unsigned inside = unit + c < QWORDS ? unit + c : 0;
            index[c].word[j] = INDEX(inside);
            left[c].word[j] = unit + c < QWORDS ? (unit + c) * width - (c == 0 ? unit * width : 64 * j) : 64;
        }
    }
    const block keep = broadcast64(lane_bytes == 2   ? sa_low_bits(bits) * 0x0001000100010001
                                   : lane_bytes == 4 ? sa_low_bits(bits) * 0x0000000100000001
                                                     : sa_low_bits(bits));
    const block first = as_block(&index[0]), first_shift = as_block(&right);
    /* A word past the last unit keeps only zeros: its index is 0, so shift it out. */
    const block valid = as_block(&left[0]);
    size_t done = 0;
    for (size_t at = 0; done + per_vector <= lanes && at + sizeof(block) <= all;
         done += per_vector, at += bytes) {
        const block units = join(and_bits(load(values + done * lane_bytes), keep), lane_bytes, bits);
        block out = shift_left_each(shift_right_each(permute(units, first), first_shift), valid);
        for (unsigned c = 1; c < terms; c++)
            out = or_bits(out, shift_left_each(permute(units, as_block(&index[c])), as_block(&left[c])));
        store(packed + at, out);
    }
    return done;
}

INLINE size_t unpack_add_vectors(uint8_t *acc, const uint8_t *packed, size_t lanes, unsigned lane_bytes,
                                 unsigned bits) {
    const unsigned width = bits * (8 / lane_bytes);
    const size_t per_vector = sizeof(block) / lane_bytes, bytes = QWORDS * width / 8;
    const size_t all = (lanes / 8) * bits + ((lanes % 8) * bits + 7) / 8;
    words index[2], shift[2];
    for (unsigned i = 0; i < QWORDS; i++) { /* a unit lies in two words of the string at most */
        const unsigned word = i * width / 64, skip = i * width % 64;
        index[0].word[i] = INDEX(word);
        shift[0].word[i] = skip;
        index[1].word[i] = INDEX(word + 1 < QWORDS ? word + 1 : 0);
        shift[1].word[i] = word + 1 < QWORDS ? 64 - skip : 64;
    }
    const block low = as_block(&index[0]), high = as_block(&index[1]);
    const block right = as_block(&shift[0]), left = as_block(&shift[1]);
    size_t done = 0;
    for (size_t at = 0; done + per_vector <= lanes && at + sizeof(block) <= all;
         done += per_vector, at += bytes) {
        const block in = load(packed + at);
        const block units = or_bits(shift_right_each(permute(in, low), right),
                                    shift_left_each(permute(in, high), left));
        uint8_t *const p = acc + done * lane_bytes;
        store(p, add_lanes(load(p), split(units, lane_bytes, bits), lane_bytes));
    }
    return done;
}

/* Vectors must end on bytes: four 64-bit lanes of odd width do not. */
INLINE int vectors_fit(unsigned lane_bytes, unsigned bits) {
    return QWORDS * bits * (8 / lane_bytes) % 8 == 0;
}

INLINE size_t pack_terms(uint8_t *packed, const uint8_t *values, size_t lanes, unsigned lane_bytes,
                         unsigned bits) {
    const unsigned width = bits * (8 / lane_bytes), terms = 1 + (62 + width) / width;
    return terms <= 3 ? pack_vectors(packed, values, lanes, lane_bytes, bits, 3) /* unrolled */
                      : pack_vectors(packed, values, lanes, lane_bytes, bits, terms);
}

static void pack(uint8_t *packed, const void *values, size_t lanes, unsigned lane_bytes, unsigned bits) {
    const uint8_t *const v = values;
    size_t done = 0;
    if (vectors_fit(lane_bytes, bits))
        done = lane_bytes == 2   ? pack_terms(packed, v, lanes, 2, bits)
               : lane_bytes == 4 ? pack_terms(packed, v, lanes, 4, bits)
                                 : pack_terms(packed, v, lanes, 8, bits);
    sa_pack_portable(packed + done * bits / 8, v + done * lane_bytes, lanes - done, lane_bytes, bits);
}

static void unpack_add(void *acc, const uint8_t *packed, size_t lanes, unsigned lane_bytes,
                       unsigned bits) {
    uint8_t *const a = acc;
    size_t done = 0;
    if (vectors_fit(lane_bytes, bits))
        done = lane_bytes == 2   ? unpack_add_vectors(a, packed, lanes, 2, bits)
               : lane_bytes == 4 ? unpack_add_vectors(a, packed, lanes, 4, bits)
                                 : unpack_add_vectors(a, packed, lanes, 8, bits);
    sa_unpack_add_portable(a + done * lane_bytes, packed + done * bits / 8, lanes - done, lane_bytes,
                           bits);
}
