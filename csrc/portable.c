/* Packing and quantization in plain C. The portable variant has no masks: without AES instructions
 * an AES in C would read tables at secret places, and the cache would tell. */
#include "kernels_impl.h"

#include <math.h>
#include <string.h>

static inline uint64_t read_lane(const uint8_t *p, unsigned lane_bytes) {
    if (lane_bytes == 4) {
        uint32_t v;
        memcpy(&v, p, 4);
        return v;
    }
    if (lane_bytes == 2) {
        uint16_t v;
        memcpy(&v, p, 2);
        return v;
    }
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

static inline void write_lane(uint8_t *p, uint64_t value, unsigned lane_bytes) {
    if (lane_bytes == 4) {
        const uint32_t v = (uint32_t)value;
        memcpy(p, &v, 4);
    } else if (lane_bytes == 2) {
        const uint16_t v = (uint16_t)value;
        memcpy(p, &v, 2);
    } else {
        memcpy(p, &value, 8);
    }
}

static inline uint64_t low_bits(unsigned bits) { return bits == 64 ? ~0ull : (1ull << bits) - 1; }

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
    const uint64_t keep = low_bits(bits);
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
    const uint64_t keep = low_bits(bits);
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

/* The rounding threshold is compared with the exact fractional part; adding a uniform number
 * before the floor would round itself away for large values. */
static inline uint64_t quantize_one(double value, uint32_t word, double clip, double scale,
                                    double limit) {
    double y = value > clip ? clip : value < -clip ? -clip : value;
    y *= scale;
    y = y > limit ? limit : y < -limit ? -limit : y;
    int64_t low = (int64_t)y;
    low -= (double)low > y;
    const double fraction = y - (double)low;
    return (uint64_t)(low + ((double)word * 0x1p-32 < fraction));
}

#define DEFINE_QUANTIZE(name, type)                                                                \
    size_t name(void *out, unsigned lane_bytes, unsigned bits, const type *values,                 \
                const uint32_t *words, size_t n, double clip, double scale, double limit) {        \
        const uint64_t keep = low_bits(bits);                                                      \
        uint8_t *lane = out;                                                                       \
        for (size_t i = 0; i < n; i++, lane += lane_bytes) {                                       \
            if (!isfinite(values[i]))                                                              \
                return i;                                                                          \
            const uint64_t q = quantize_one((double)values[i], words[i], clip, scale, limit);      \
            write_lane(lane, q & keep, lane_bytes);                                                \
        }                                                                                          \
        return n;                                                                                  \
    }

DEFINE_QUANTIZE(sa_quantize_f64, double)
DEFINE_QUANTIZE(sa_quantize_f32, float)

void sa_dequantize(double *out, const void *values, size_t lanes, unsigned lane_bytes, unsigned bits,
                   double step) {
    const uint64_t keep = low_bits(bits);
    const uint64_t sign = 1ull << (bits - 1);
    const uint8_t *lane = values;
    for (size_t i = 0; i < lanes; i++, lane += lane_bytes) {
        const uint64_t v = read_lane(lane, lane_bytes) & keep;
        out[i] = (double)(int64_t)((v ^ sign) - sign) * step;
    }
}

const sa_kernels sa_kernels_portable = {
    .name = "portable",
    .needs = 0,
    .mask_add = NULL,
    .pack = sa_pack_portable,
    .unpack_add = sa_unpack_add_portable,
};
