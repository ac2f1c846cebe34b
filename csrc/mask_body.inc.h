/* Mask expansion: the loop over tiles, seeds and groups of blocks, once for all instruction sets.
 *
 * Before including it a variant defines
 *   block                   a vector of 16-byte AES blocks
 *   schedule                the expanded key and the nonce of one seed
 *   expand(s, seed)         fill the schedule
 *   keystream(s, ctr, out)  IN_FLIGHT vectors of successive blocks from counter ctr, a multiple of
 *                           the blocks in a group
 *   load(p), store(p, b)    unaligned
 *   add16/32/64, sub16/32/64
 *   clear_registers()       wipe the vector registers
 *   IN_FLIGHT               vectors computed side by side, to fill the AES pipeline
 *
 * A group is what one call of keystream gives. It never leaves the registers but in the first and
 * the last group of a range, which pass through a buffer that is wiped. */

#define GROUP_BYTES (IN_FLIGHT * sizeof(block))
#define SKIP(at) ((size_t)((at) % GROUP_BYTES))
#define COUNTER(at) ((uint32_t)(((at) - SKIP(at)) / 16))
/* Key expansion is one chain of latencies: a tile is large enough that it weighs little, and stays in
 * the second-level cache while all the seeds pass over it. */
#define TILE_BYTES ((size_t)65536)

/* Combine acc with keystream from byte `at` of the stream on. */
#define DEFINE_RUN(name, combine)                                                                  \
    static void name##_part(uint8_t *acc, size_t bytes, uint64_t at, const schedule *s) {          \
        uint8_t part[GROUP_BYTES] = {0};                                                           \
        block k[IN_FLIGHT];                                                                        \
        memcpy(part + SKIP(at), acc, bytes);                                                       \
        keystream(s, COUNTER(at), k);                                                              \
        SA_UNROLL                                                                                  \
        for (size_t i = 0; i < IN_FLIGHT; i++)                                                     \
            store(part + i * sizeof(block), combine(load(part + i * sizeof(block)), k[i]));        \
        memcpy(acc, part + SKIP(at), bytes);                                                       \
        sa_wipe(part, sizeof part);                                                                \
        sa_wipe(k, sizeof k);                                                                      \
    }                                                                                              \
    static void name(uint8_t *acc, size_t bytes, uint64_t at, const schedule *s) {                 \
        if (SKIP(at) != 0 && bytes != 0) {                                                         \
            const size_t room = GROUP_BYTES - SKIP(at);                                            \
            const size_t take = bytes < room ? bytes : room;                                       \
            name##_part(acc, take, at, s);                                                         \
            acc += take;                                                                           \
            bytes -= take;                                                                         \
            at += take;                                                                            \
        }                                                                                          \
        for (; bytes >= GROUP_BYTES; acc += GROUP_BYTES, bytes -= GROUP_BYTES, at += GROUP_BYTES) {  \
            block k[IN_FLIGHT];                                                                    \
            keystream(s, COUNTER(at), k);                                                          \
            SA_UNROLL                                                                              \
            for (size_t i = 0; i < IN_FLIGHT; i++)                                                 \
                store(acc + i * sizeof(block), combine(load(acc + i * sizeof(block)), k[i]));      \
        }                                                                                          \
        if (bytes != 0)                                                                            \
            name##_part(acc, bytes, at, s);                                                        \
    }

DEFINE_RUN(run_add16, add16)
DEFINE_RUN(run_add32, add32)
DEFINE_RUN(run_add64, add64)
DEFINE_RUN(run_sub16, sub16)
DEFINE_RUN(run_sub32, sub32)
DEFINE_RUN(run_sub64, sub64)

typedef void run_fn(uint8_t *acc, size_t bytes, uint64_t at, const schedule *s);

static void mask_add(void *acc, size_t lanes, unsigned lane_bytes, uint64_t first,
                     const uint8_t *seeds, const int8_t *signs, size_t count) {
    run_fn *const add = lane_bytes == 2 ? run_add16 : lane_bytes == 4 ? run_add32 : run_add64;
    run_fn *const sub = lane_bytes == 2 ? run_sub16 : lane_bytes == 4 ? run_sub32 : run_sub64;
    uint8_t *tile = acc;
    size_t left = lanes * lane_bytes;
    uint64_t at = first * lane_bytes;
    schedule s;
    while (left != 0) {
        /* Shorten the first tile so that the next ones start on a group. */
        const size_t room = TILE_BYTES - SKIP(at);
        const size_t bytes = left < room ? left : room;
        for (size_t j = 0; j < count; j++) {
            expand(&s, seeds + 32 * j);
            (signs[j] < 0 ? sub : add)(tile, bytes, at, &s);
        }
        tile += bytes;
        left -= bytes;
        at += bytes;
    }
    sa_wipe(&s, sizeof s);
    clear_registers();
}
