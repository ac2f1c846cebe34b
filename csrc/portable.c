/* Packing and quantization in plain C. The portable variant has no masks: without AES instructions
 * an AES in C would read tables at secret places, and the cache would tell. */
#include "modq.h"

#include "real_body.inc.h"
#include "lattice_scalar.inc.h"

/* Eight little-endian bytes, whatever the host; compilers make it one move. */
static inline void write_le64(uint8_t *p, uint64_t v) {
    for (unsigned i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t read_le64(const uint8_t *p) {
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static inline void pack_lanes(uint8_t *packed, const uint8_t *values, size_t lanes,
                              unsigned lane_bytes, unsigned bits) {
    const uint64_t keep = sa_low_bits(bits);
    uint64_t word = 0; /* bits not yet written, lowest first */
    unsigned held = 0;
    for (size_t i = 0; i < lanes; i++) {
        const uint64_t v = read_lane(values + i * lane_bytes, lane_bytes) & keep;
        word |= v << held;
        held += bits;
        if (held >= 64) {
            write_le64(packed, word);
            packed += 8;
            held -= 64;
            word = held == 0 ? 0 : v >> (bits - held);
        }
    }
    for (; held > 0; held = held > 8 ? held - 8 : 0, word >>= 8)
        *packed++ = (uint8_t)word;
}

static inline void unpack_add_lanes(uint8_t *acc, const uint8_t *packed, size_t lanes,
                                    unsigned lane_bytes, unsigned bits) {
    const uint64_t keep = sa_low_bits(bits);
    size_t left = (lanes / 8) * bits + ((lanes % 8) * bits + 7) / 8; /* bytes not yet read */
    uint64_t word = 0;
    unsigned held = 0;
    for (size_t i = 0; i < lanes; i++) {
        uint64_t v = word;
        if (held < bits) {
            uint64_t next = 0;
            unsigned got = 64;
            if (left >= 8) {
                next = read_le64(packed);
                packed += 8;
                left -= 8;
            } else {
                got = (unsigned)(8 * left);
                for (; left > 0; left--)
                    next = next << 8 | packed[left - 1];
            }
            v |= next << held;
            const unsigned used = bits - held; /* of the new word: 1 .. 64 */
            word = used == 64 ? 0 : next >> used;
            held = got - used;
        } else {
            word = bits == 64 ? 0 : word >> bits;
            held -= bits;
        }
        uint8_t *const lane = acc + i * lane_bytes;
        write_lane(lane, read_lane(lane, lane_bytes) + (v & keep), lane_bytes);
    }
}

/* A constant lane width lets the compiler drop the branches on it. */
#define FOR_LANE(call2, call4, call8) (lane_bytes == 4 ? (call4) : lane_bytes == 2 ? (call2) : (call8))

void sa_pack_portable(uint8_t *packed, const void *values, size_t lanes, unsigned lane_bytes,
                      unsigned bits) {
    FOR_LANE(pack_lanes(packed, values, lanes, 2, bits), pack_lanes(packed, values, lanes, 4, bits),
             pack_lanes(packed, values, lanes, 8, bits));
}

void sa_unpack_add_portable(void *acc, const uint8_t *packed, size_t lanes, unsigned lane_bytes,
                            unsigned bits) {
    FOR_LANE(unpack_add_lanes(acc, packed, lanes, 2, bits),
             unpack_add_lanes(acc, packed, lanes, 4, bits),
             unpack_add_lanes(acc, packed, lanes, 8, bits));
}

SA_VARIANT(portable, 0, NULL, sa_pack_portable, sa_unpack_add_portable);
