/* The loop over tiles, seeds and blocks, written once for all instruction sets.
 *
 * Before including it a variant defines
 *   block                   a vector of 16-byte AES blocks
 *   schedule                the expanded key and the nonce of one seed
 *   expand(s, seed)         fill the schedule
 *   keystream(s, ctr, out)  IN_FLIGHT successive blocks from counter ctr
 *   load(p), store(p, b)    unaligned
 *   add16/32/64, sub16/32/64
 *   IN_FLIGHT               blocks computed side by side, to fill the AES pipeline */

#include <string.h>

#define BLOCK_BYTES sizeof(block)
#define TILE_BYTES ((size_t)16384) /* half of a small L1: read and written once per tile */

static void wipe(void *memory, size_t bytes) {
    memset(memory, 0, bytes);
    __asm__ volatile("" : : "r"(memory) : "memory"); /* keep the memset */
}

/* Combine `bytes` bytes at acc with keystream bytes from position `at` on. A partial block goes
 * through a buffer: positions are multiples of the lane, so no lane is ever cut. */
#define DEFINE_RUN(name, combine)                                                                  \
    static void name(uint8_t *acc, size_t bytes, uint64_t at, const schedule *s) {                 \
        uint32_t counter = (uint32_t)(at / BLOCK_BYTES);                                           \
        const size_t skip = (size_t)(at % BLOCK_BYTES);                                            \
        block k[IN_FLIGHT];                                                                        \
        if (skip != 0 && bytes != 0) {                                                             \
            const size_t room = BLOCK_BYTES - skip;                                                \
            const size_t take = bytes < room ? bytes : room;                                       \
            uint8_t part[BLOCK_BYTES] = {0};                                                       \
            memcpy(part + skip, acc, take);                                                        \
            keystream(s, counter++, k);                                                            \
            store(part, combine(load(part), k[0]));                                                \
            memcpy(acc, part + skip, take);                                                        \
            acc += take;                                                                           \
            bytes -= take;                                                                         \
        }                                                                                          \
        while (bytes >= IN_FLIGHT * BLOCK_BYTES) {                                                 \
            keystream(s, counter, k);                                                              \
            for (size_t i = 0; i < IN_FLIGHT; i++)                                                 \
                store(acc + i * BLOCK_BYTES, combine(load(acc + i * BLOCK_BYTES), k[i]));          \
            counter += IN_FLIGHT;                                                                  \
            acc += IN_FLIGHT * BLOCK_BYTES;                                                        \
            bytes -= IN_FLIGHT * BLOCK_BYTES;                                                      \
        }                                                                                          \
        if (bytes != 0) {                                                                          \
            uint8_t part[IN_FLIGHT * BLOCK_BYTES] = {0};                                           \
            memcpy(part, acc, bytes);                                                              \
            keystream(s, counter, k);                                                              \
            for (size_t i = 0; i < IN_FLIGHT; i++)                                                 \
                store(part + i * BLOCK_BYTES, combine(load(part + i * BLOCK_BYTES), k[i]));        \
            memcpy(acc, part, bytes);                                                              \
        }                                                                                          \
        wipe(k, sizeof k);                                                                         \
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
        /* Shorten the first tile so that the next ones start on a block. */
        const size_t room = TILE_BYTES - (size_t)(at % BLOCK_BYTES);
        const size_t bytes = left < room ? left : room;
        for (size_t j = 0; j < count; j++) {
            expand(&s, seeds + 32 * j);
            (signs[j] < 0 ? sub : add)(tile, bytes, at, &s);
        }
        tile += bytes;
        left -= bytes;
        at += bytes;
    }
    wipe(&s, sizeof s);
}
