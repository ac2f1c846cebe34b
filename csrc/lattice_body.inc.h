/* One block of lattice masks: N = 2048 entries of u = truncate(INTT(a s) + e + M) (oneshot.md, section 4).
 *
 * A polynomial stays in one array of cells of 8 bytes. The inverse transform is Gentleman and Sande's, from
 * values in bit-reversed order to coefficients in order, with the roots of X^N + 1 folded in (Longa, Naehrig,
 * "Speeding up the number theoretic transform", CANS 2016, algorithm 2); 1/N is in the secret.
 *
 * The arithmetic of a variant (lattice_*.inc.h) defines before:
 *   vec, WIDTH                    so many cells at once, 8, 4, 2 or 1
 *   vload(p), vstore(p, v)
 *   first_of(a, b), second_of(a, b)   entries at even and at odd places of a behind b (WIDTH > 1)
 *   twiddle, twiddle_at(h, i), twiddles_at(h, i, copies)   roots h + i for all entries; roots h + i,
 *                                 h + i + 1, ... for WIDTH / copies entries, `copies` times
 *   prepare()                     fill the tables of roots
 *   secret_cell(s)                s / N in the form that product() takes
 *   product(a, s)                 a: vec of 64-bit words, of which 50 bits count
 *   butterfly(layer, &u, &v, w)   u + v and (u - v) w
 *   canonical(cells)              a whole polynomial -> integers in [0, q)
 *   popcount64(w)                 without a table
 *   vload_words(p)                words of a in the form that product() takes
 *
 * A butterfly of neighbors in a vector needs them in two vectors: first_of and second_of of two vectors
 * deal 2 WIDTH entries out, each layer anew; after log2(2 WIDTH) times they are in order again. */

#define LATTICE static inline __attribute__((always_inline))

LATTICE void inverse_transform(uint64_t *cells) {
    unsigned layer = 0;
    size_t t = 1; /* distance of the two entries of a butterfly */
#if WIDTH > 1
    for (size_t at = 0; at < RING; at += 2 * WIDTH) {
        vec u = vload(cells + at), v = vload(cells + at + WIDTH);
        SA_UNROLL
        for (size_t near = 1; near < WIDTH; near *= 2) {
            const vec even = first_of(u, v), odd = second_of(u, v);
            u = even, v = odd;
            butterfly((unsigned)__builtin_ctzll(near), &u, &v,
                      twiddles_at(RING / (2 * near), at / (2 * near), near));
        }
        vstore(cells + at, first_of(u, v));
        vstore(cells + at + WIDTH, second_of(u, v));
    }
    for (; t < WIDTH; t *= 2)
        layer++;
#endif
    /* Two layers at a time: half of the loads and stores. */
    for (; 4 * t <= RING; t *= 4, layer += 2) {
        const size_t h = RING / (2 * t);
        for (size_t i = 0; i < h; i += 2) {
            uint64_t *const group = cells + 2 * t * i;
            const twiddle one = twiddle_at(h, i), two = twiddle_at(h, i + 1), both = twiddle_at(h / 2, i / 2);
            for (size_t j = 0; j < t; j += WIDTH) {
                vec a = vload(group + j), b = vload(group + j + t);
                vec c = vload(group + j + 2 * t), d = vload(group + j + 3 * t);
                butterfly(layer, &a, &b, one);
                butterfly(layer, &c, &d, two);
                butterfly(layer + 1, &a, &c, both);
                butterfly(layer + 1, &b, &d, both);
                vstore(group + j, a);
                vstore(group + j + t, b);
                vstore(group + j + 2 * t, c);
                vstore(group + j + 3 * t, d);
            }
        }
    }
    for (; t < RING; t *= 2, layer++) {
        const twiddle last = twiddle_at(1, 0);
        for (size_t j = 0; j < t; j += WIDTH) {
            vec u = vload(cells + j), v = vload(cells + j + t);
            butterfly(layer, &u, &v, last);
            vstore(cells + j, u);
            vstore(cells + j + t, v);
        }
    }
}

/* z = c + e + M modulo q, then its upper bits: about z 2^upload_bits / q. */
LATTICE uint64_t upper_bits(uint64_t c, uint64_t noise, uint64_t x, unsigned bits, unsigned upload_bits) {
    /* popcount(low half) - popcount(high half), plus 32 */
    const uint64_t e = popcount64(noise ^ 0xffffffff00000000);
    const uint64_t scaled = (x << (Q_BITS - bits)) - (((x << 14) - x) >> bits);
    uint64_t z = modq_reduce(c + scaled);
    z = modq_reduce(modq_reduce(z + e + (Q - 32)));
    return (z + (z >> 36)) >> (Q_BITS - upload_bits);
}

static void lattice_prepare(void) { prepare(); }

static void lattice_secret(uint64_t *prepared, const uint64_t *secret) {
    for (size_t i = 0; i < RING; i++)
        prepared[i] = secret_cell(secret[i]);
}

/* out: the words of a on entry, the entries on return. */
static void lattice_block(uint64_t *out, const uint64_t *prepared, const uint64_t *noise,
                          const uint8_t *values, size_t lanes, unsigned lane_bytes, unsigned bits,
                          unsigned upload_bits) {
    for (size_t i = 0; i < RING; i += WIDTH)
        vstore(out + i, product(vload_words(out + i), vload(prepared + i)));
    inverse_transform(out);
    canonical(out);
#define FINISH(size)                                                                                \
    for (size_t i = 0; i < lanes; i++)                                                             \
        out[i] = upper_bits(out[i], noise[i], read_lane(values + (size) * i, (size)), bits, upload_bits)
    if (lane_bytes == 4)
        FINISH(4);
    else if (lane_bytes == 2)
        FINISH(2);
    else
        FINISH(8);
#undef FINISH
    for (size_t i = lanes; i < RING; i++)
        out[i] = upper_bits(out[i], noise[i], 0, bits, upload_bits);
}
