/* Real vectors: quantization, its inverse, and the Walsh-Hadamard transform, in plain C that the
 * compiler vectorizes for the instruction set of the file that includes it.
 *
 * The results are the same bits everywhere: every value goes through the same IEEE operations in
 * the same order, and contraction to fused multiply-add is off (CMakeLists.txt, Makefile). */

#define REAL static inline __attribute__((always_inline))
#define REAL_BLOCK 256

REAL uint64_t read_lane(const uint8_t *p, unsigned lane_bytes) {
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

REAL void write_lane(uint8_t *p, uint64_t value, unsigned lane_bytes) {
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

/* Round down, then up when word / 2^32 is below the exact fractional part; adding a uniform number
 * before rounding down would round itself away for large values. `limit` keeps the result within
 * 32 (`narrow`) or 64 bits. */
REAL double round_value(double value, uint32_t word, double clip, double scale, double limit,
                        int narrow) {
    double y = value > clip ? clip : value < -clip ? -clip : value;
    y *= scale;
    y = y > limit ? limit : y < -limit ? -limit : y;
    const double cut = narrow ? (double)(int32_t)y : (double)(int64_t)y;
    const double low = cut - (cut > y ? 1.0 : 0.0);
    /* Exactly (double)word: vector units convert signed words. */
    const double threshold = ((double)(int32_t)(word ^ 0x80000000u) + 0x1p31) * 0x1p-32;
    return low + (threshold < y - low ? 1.0 : 0.0);
}

/* One block of at most REAL_BLOCK values; `narrow` when bits <= 32, where 32-bit integers do. */
REAL int quantize_block(uint8_t *out, unsigned lane_bytes, unsigned bits, const double *values,
                        const uint32_t *random, size_t n, double clip, double scale, double limit,
                        int narrow) {
    const uint64_t keep = sa_low_bits(bits);
    int finite = 1;
    for (size_t i = 0; i < n; i++)
        finite &= __builtin_fabs(values[i]) <= __DBL_MAX__;
    if (!finite)
        return 0;
    if (narrow)
        for (size_t i = 0; i < n; i++) {
            const int32_t q = (int32_t)round_value(values[i], random[i], clip, scale, limit, 1);
            write_lane(out + i * lane_bytes, (uint32_t)q & (uint32_t)keep, lane_bytes);
        }
    else
        for (size_t i = 0; i < n; i++) {
            const int64_t q = (int64_t)round_value(values[i], random[i], clip, scale, limit, 0);
            write_lane(out + i * lane_bytes, (uint64_t)q & keep, lane_bytes);
        }
    return 1;
}

REAL const double *as_doubles(double *room, const void *values, size_t first, size_t n, int single) {
    if (!single)
        return (const double *)values + first;
    const float *const v = (const float *)values + first;
    for (size_t i = 0; i < n; i++)
        room[i] = (double)v[i];
    return room;
}

REAL size_t quantize_lanes(uint8_t *out, unsigned lane_bytes, unsigned bits, const void *values,
                           const uint32_t *random, size_t n, double clip, double scale, double limit,
                           int single) {
    double room[REAL_BLOCK];
    for (size_t at = 0; at < n; at += REAL_BLOCK) {
        const size_t m = n - at < REAL_BLOCK ? n - at : REAL_BLOCK;
        const double *const v = as_doubles(room, values, at, m, single);
        if (!quantize_block(out + at * lane_bytes, lane_bytes, bits, v, random + at, m, clip, scale,
                            limit, lane_bytes < 8)) {
            size_t i = 0;
            while (__builtin_fabs(v[i]) <= __DBL_MAX__)
                i++;
            return at + i;
        }
    }
    return n;
}

#define DEFINE_QUANTIZE(name, single)                                                              \
    static size_t name(void *out, unsigned lane_bytes, unsigned bits, const void *values,          \
                       const uint32_t *random, size_t n, double clip, double scale,                \
                       double limit) {                                                             \
        if (lane_bytes == 2)                                                                       \
            return quantize_lanes(out, 2, bits, values, random, n, clip, scale, limit, single);    \
        if (lane_bytes == 4)                                                                       \
            return quantize_lanes(out, 4, bits, values, random, n, clip, scale, limit, single);    \
        return quantize_lanes(out, 8, bits, values, random, n, clip, scale, limit, single);        \
    }

DEFINE_QUANTIZE(quantize_f64, 0)
DEFINE_QUANTIZE(quantize_f32, 1)

REAL void dequantize_lanes(double *out, const uint8_t *values, size_t lanes, unsigned lane_bytes,
                           unsigned bits, double step) {
    const uint64_t keep = sa_low_bits(bits), sign = 1ull << (bits - 1);
    if (lane_bytes == 8) {
        for (size_t i = 0; i < lanes; i++) {
            const uint64_t v = read_lane(values + 8 * i, 8) & keep;
            out[i] = (double)(int64_t)((v ^ sign) - sign) * step;
        }
        return;
    }
    const uint32_t keep32 = (uint32_t)keep, sign32 = (uint32_t)sign;
    for (size_t i = 0; i < lanes; i++) {
        const uint32_t v = (uint32_t)read_lane(values + i * lane_bytes, lane_bytes) & keep32;
        out[i] = (double)(int32_t)((v ^ sign32) - sign32) * step;
    }
}

static void dequantize(double *out, const void *values, size_t lanes, unsigned lane_bytes,
                       unsigned bits, double step) {
    if (lane_bytes == 2)
        dequantize_lanes(out, values, lanes, 2, bits, step);
    else if (lane_bytes == 4)
        dequantize_lanes(out, values, lanes, 4, bits, step);
    else
        dequantize_lanes(out, values, lanes, 8, bits, step);
}

static void flip_signs(float *values, const uint8_t *flips, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, values + i, 4);
        v ^= (uint32_t)(flips[i / 8] >> i % 8 & 1) << 31;
        memcpy(values + i, &v, 4);
    }
}

/* Butterflies at distances 1, 2, 4, ... n / 2, in this order for every element, whatever the
 * recursion: halves first, so that what fits the cache is finished there. */
REAL void butterflies(float *restrict a, float *restrict b, size_t h) {
    for (size_t i = 0; i < h; i++) {
        const float x = a[i], y = b[i];
        a[i] = x + y;
        b[i] = x - y;
    }
}

static void hadamard_small(float *values, size_t n) {
    for (size_t h = 1; h < n; h *= 2)
        for (size_t i = 0; i < n; i += 2 * h)
            for (size_t j = i; j < i + h; j++) {
                const float x = values[j], y = values[j + h];
                values[j] = x + y;
                values[j + h] = x - y;
            }
}

/* 256 values, sixteen rows of sixteen: distances 1 to 8 side by side for all rows of the transposed tile. */
static void hadamard_tile(float *values) {
    float tile[16][16];
    for (size_t r = 0; r < 16; r++)
        for (size_t c = 0; c < 16; c++)
            tile[c][r] = values[16 * r + c];
    for (size_t h = 1; h < 16; h *= 2)
        for (size_t i = 0; i < 16; i += 2 * h)
            for (size_t j = i; j < i + h; j++)
                for (size_t r = 0; r < 16; r++) {
                    const float x = tile[j][r], y = tile[j + h][r];
                    tile[j][r] = x + y;
                    tile[j + h][r] = x - y;
                }
    for (size_t r = 0; r < 16; r++)
        for (size_t c = 0; c < 16; c++)
            values[16 * r + c] = tile[c][r];
    for (size_t h = 16; h < 256; h *= 2)
        for (size_t i = 0; i < 256; i += 2 * h)
            butterflies(values + i, values + i + h, h);
}

static void hadamard_recursive(float *values, size_t n) {
    if (n == 256) {
        hadamard_tile(values);
        return;
    }
    hadamard_recursive(values, n / 2);
    hadamard_recursive(values + n / 2, n / 2);
    butterflies(values, values + n / 2, n / 2);
}

static void hadamard(float *values, size_t n, float factor) {
    if (n < 256)
        hadamard_small(values, n);
    else
        hadamard_recursive(values, n);
    for (size_t i = 0; i < n; i++)
        values[i] *= factor;
}
