/* Fuzzing of the C entry points, by comparison: every variant against portable, pieces against the
 * whole, there and back. Built by clang with libFuzzer (make fuzz), or with -DSTANDALONE by any
 * compiler, then with a main that feeds reproducible bytes: fuzz_kernels [SECONDS [SEED]].
 *
 * The first byte of an input says which kernel; the next ones its sizes; then come the contents, and
 * bytes of a generator where the input ends. Every buffer has its exact size, so that
 * AddressSanitizer sees a byte too many. */
#include "helpers.h"

#include <math.h>

#define PRIME (((uint64_t)1 << 61) - 1)
#define Q ((uint64_t)1125899906826241)

static const uint8_t *input;
static size_t input_left;
static uint64_t filler;

static uint8_t next_byte(void) {
    if (input_left == 0)
        return (uint8_t)xorshift(&filler);
    input_left--;
    return *input++;
}

static uint64_t next_word(void) {
    uint64_t word = 0;
    for (unsigned i = 0; i < 8; i++)
        word = word << 8 | next_byte();
    return word;
}

static size_t next_below(size_t bound) {
    const size_t high = next_byte();
    return (high << 8 | next_byte()) % bound;
}

static void *next_bytes(size_t size, size_t skew) {
    uint8_t *const bytes = take(size, skew, NULL);
    for (size_t i = 0; i < size; i++)
        bytes[i] = next_byte();
    return bytes;
}

/* Words of the field, the edges more often than chance has them. */
static uint64_t *next_elements(size_t count) {
    uint64_t *const elements = take(8 * count, 0, NULL);
    for (size_t i = 0; i < count; i++) {
        const uint64_t word = next_word();
        elements[i] = word % 8 == 0 ? PRIME - 1 : word % 8 == 1 ? word >> 3 & 1 : (word >> 3) % PRIME;
    }
    return elements;
}

static unsigned next_lane_bytes(void) { return 2u << next_byte() % 3; }

static void fuzz_mask(void) { /* in one go = in two pieces; the other signs take it back */
    const unsigned lane_bytes = next_lane_bytes();
    const size_t lanes = next_below(1500), cut = next_below(lanes + 1), count = next_byte() % 5;
    const size_t skew = next_byte() % 2;
    uint64_t first = next_below(4096);
    if (next_byte() % 8 == 0) /* to the last byte of the keystream */
        first = ((uint64_t)1 << 36) / lane_bytes - lanes;
    uint8_t *const seeds = next_bytes(32 * count, 1);
    int8_t *const signs = take(count, 0, NULL), *const opposite = take(count, 0, NULL);
    for (size_t j = 0; j < count; j++) {
        signs[j] = next_byte() % 2 ? 1 : -1;
        opposite[j] = (int8_t)-signs[j];
    }
    const size_t bytes = lanes * lane_bytes, head = cut * lane_bytes;
    const uint8_t *const start = next_bytes(bytes, 0);
    uint8_t *agreed = NULL; /* by the variants before */
    for (size_t i = 0; next_variant(&i) != NULL;) {
        if (!sa_has_mask())
            continue;
        uint8_t *const whole = take(bytes, skew, start);
        uint8_t *const before = take(head, skew, start), *const behind = take(bytes - head, 0, start + head);
        sa_mask_add(whole, lanes, lane_bytes, first, seeds, signs, count);
        sa_mask_add(before, cut, lane_bytes, first, seeds, signs, count);
        sa_mask_add(behind, lanes - cut, lane_bytes, first + cut, seeds, signs, count);
        CHECK(memcmp(whole, before, head) == 0 && memcmp(whole + head, behind, bytes - head) == 0);
        if (agreed == NULL)
            agreed = take(bytes, 0, whole);
        CHECK(memcmp(whole, agreed, bytes) == 0);
        sa_mask_add(whole, lanes, lane_bytes, first, seeds, opposite, count);
        CHECK(memcmp(whole, start, bytes) == 0);
    }
}

static void fuzz_ring(void) { /* one packing for all; adding it twice to minus it leaves it */
    const unsigned lane_bytes = next_lane_bytes(), bits = 1 + next_byte() % (8 * lane_bytes);
    const size_t lanes = next_below(700), skew = next_byte() % 2;
    const size_t bytes = lanes * lane_bytes, size = (lanes * bits + 7) / 8;
    uint8_t *const values = next_bytes(bytes, skew), *const start = next_bytes(bytes, 0);
    uint8_t *const expected = take(size, 0, NULL), *const total = take(bytes, 0, start);
    sa_select(0); /* portable */
    sa_pack(expected, values, lanes, lane_bytes, bits);
    sa_unpack_add(total, expected, lanes, lane_bytes, bits);
    for (size_t i = 0; next_variant(&i) != NULL;) {
        uint8_t *const packed = take(size, skew, NULL), *const acc = take(bytes, skew, start);
        sa_pack(packed, values, lanes, lane_bytes, bits);
        CHECK(memcmp(packed, expected, size) == 0);
        sa_unpack_add(acc, packed, lanes, lane_bytes, bits);
        CHECK(memcmp(acc, total, bytes) == 0);
        uint8_t *const back = take(bytes, 0, NULL), *const again = take(size, 0, NULL);
        memset(back, 0, bytes);
        sa_unpack_add(back, packed, lanes, lane_bytes, bits);
        sa_pack(again, back, lanes, lane_bytes, bits);
        CHECK(memcmp(again, expected, size) == 0);
    }
}

static double next_positive(void) { /* finite, of any magnitude, more often a moderate one */
    const uint64_t word = next_word();
    const double moderate = (double)(word >> 40) * 0x1p-12 + 0x1p-12;
    double any;
    memcpy(&any, &word, sizeof any);
    any = fabs(any);
    return word % 4 == 0 && any > 0 && any <= __DBL_MAX__ ? any : moderate;
}

static double value_of(const uint8_t *values, size_t i, size_t single) {
    float narrow;
    double wide;
    memcpy(&narrow, values + 4 * i, 4);
    if (single)
        return (double)narrow;
    memcpy(&wide, values + 8 * i, 8);
    return wide;
}

static void fuzz_quantize(void) {
    const unsigned lane_bytes = next_lane_bytes(), bits = 2 + next_byte() % (8 * lane_bytes - 1);
    const size_t n = next_below(600), single = next_byte() % 2, plain = next_byte() % 4;
    const double clip = next_positive(), scale = next_positive();
    const uint64_t most = ((uint64_t)1 << (bits <= 53 ? bits - 1 : 52)) - 1;
    const double limit = (double)(1 + next_word() % most);
    uint8_t *const values = next_bytes(n * (single ? 4 : 8), 0);
    const uint32_t *const words = next_bytes(4 * n, 0);
    for (size_t i = 0; plain != 0 && i < n; i++) { /* mostly numbers that are no rarity */
        const double value = (double)(int32_t)next_word() * 0x1p-20;
        const float small = (float)value;
        if (single)
            memcpy(values + 4 * i, &small, 4);
        else
            memcpy(values + 8 * i, &value, 8);
    }
    size_t finite = 0; /* values before the first one that is not */
    while (finite < n && isfinite(value_of(values, finite, single)))
        finite++;
    uint8_t *expected = NULL;
    for (size_t i = 0; next_variant(&i) != NULL;) {
        uint8_t *const out = take(n * lane_bytes, 1, NULL);
        const size_t done =
            single ? sa_quantize_f32(out, lane_bytes, bits, (const float *)(const void *)values, words, n,
                                     clip, scale, limit)
                   : sa_quantize_f64(out, lane_bytes, bits, (const double *)(const void *)values, words, n,
                                     clip, scale, limit);
        CHECK(done == finite);
        if (expected == NULL)
            expected = out;
        CHECK(done != n || memcmp(out, expected, n * lane_bytes) == 0);
    }
}

static void fuzz_dequantize(void) {
    const unsigned lane_bytes = next_lane_bytes(), bits = 1 + next_byte() % (8 * lane_bytes);
    const size_t n = next_below(600);
    const double step = next_positive();
    const uint8_t *const values = next_bytes(n * lane_bytes, 1);
    double *expected = NULL;
    for (size_t i = 0; next_variant(&i) != NULL;) {
        double *const out = take(8 * n, 0, NULL);
        sa_dequantize(out, values, n, lane_bytes, bits, step);
        if (expected == NULL)
            expected = out;
        CHECK(memcmp(out, expected, 8 * n) == 0);
    }
}

static void fuzz_hadamard(void) { /* finite values: a NaN may have any bits */
    const size_t n = (size_t)1 << next_byte() % 12;
    float *const values = take(4 * n, 0, NULL);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)(int32_t)next_word() * 0x1p-16f;
    const uint8_t *const flips = next_bytes((n + 7) / 8, 1);
    float *expected = NULL;
    for (size_t i = 0; next_variant(&i) != NULL;) {
        float *const out = take(4 * n, 0, values);
        sa_flip_signs(out, flips, n);
        sa_hadamard(out, n, 0.7f);
        if (expected == NULL)
            expected = out;
        CHECK(memcmp(out, expected, 4 * n) == 0);
    }
}

static void distinct(uint64_t *points, size_t count) {
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++)
            if (points[i] == points[j]) {
                points[i] = (points[i] + 1) % PRIME;
                j = (size_t)-1; /* look again from the first one on */
            }
}

static void fuzz_shares(void) { /* what was evaluated at t points is found again at any other */
    const size_t t = 1 + next_byte() % 140, m = next_byte() % 13, q = next_byte() % 4;
    const uint64_t *const coefficients = next_elements(t * m), *const ats = next_elements(q);
    uint64_t *const points = next_elements(t);
    distinct(points, t);
    uint64_t *const values = take(8 * t * m, 0, NULL), *const direct = take(8 * q * m, 0, NULL);
    sa_field_evaluate(values, coefficients, t, m, points, t);
    sa_field_evaluate(direct, coefficients, t, m, ats, q);
    uint64_t *const weights = take(8 * q * t, 0, NULL), *const sums = take(8 * q * m, 0, NULL);
    sa_field_lagrange(weights, take(16 * t, 0, NULL), points, t, ats, q);
    sa_field_weighted_sums(sums, weights, values, q, t, m);
    CHECK(memcmp(sums, direct, 8 * q * m) == 0);
}

static size_t wrong_values(const uint64_t *f, size_t t, const uint64_t *points, const uint64_t *values,
                           size_t m) {
    size_t wrong = 0;
    for (size_t i = 0; i < m; i++) {
        uint64_t value;
        sa_field_evaluate(&value, f, t, 1, points + i, 1);
        wrong += value != values[i];
    }
    return wrong;
}

static void fuzz_decode(void) { /* a polynomial that is near is found, and what is found is near */
    const size_t t = 1 + next_byte() % 12, m = t + next_byte() % 30;
    const int repeated = next_byte() % 8 == 0; /* points that are not distinct: only, no crash */
    const uint64_t *const f = next_elements(t);
    uint64_t *const points = next_elements(m), *const values = take(8 * m, 0, NULL);
    if (!repeated)
        distinct(points, m);
    sa_field_evaluate(values, f, t, 1, points, m);
    for (size_t errors = next_below(m + 1); errors > 0; errors--)
        values[next_below(m)] = next_word() % PRIME;
    uint64_t *const found = take(8 * t, 0, NULL);
    const size_t wrong = sa_field_decode(found, take(32 * (m + 1), 0, NULL), points, values, m, t);
    if (repeated)
        return;
    if (wrong != m + 1)
        CHECK(wrong <= (m - t) / 2 && wrong == wrong_values(found, t, points, values, m));
    if (wrong_values(f, t, points, values, m) <= (m - t) / 2)
        CHECK(wrong != m + 1 && memcmp(found, f, 8 * t) == 0);
}

static void fuzz_packed_shares(void) { /* the same in Z_q */
    const size_t t = 1 + next_byte() % 40, m = next_byte() % 13, q = next_byte() % 4;
    uint64_t *const values = next_elements(t * m), *const ats = next_elements(q), *const points = next_elements(t);
    uint64_t *const words[] = {values, ats, points};
    const size_t sizes[] = {t * m, q, t};
    for (size_t k = 0; k < 3; k++)
        for (size_t i = 0; i < sizes[k]; i++)
            words[k][i] %= Q;
    distinct(points, t);
    uint64_t *const shares = take(8 * t * m, 0, NULL), *const direct = take(8 * q * m, 0, NULL);
    sa_modq_evaluate(shares, values, t, m, points, t);
    sa_modq_evaluate(direct, values, t, m, ats, q);
    uint64_t *const weights = take(8 * q * t, 0, NULL), *const sums = take(8 * q * m, 0, NULL);
    sa_modq_lagrange(weights, take(16 * t, 0, NULL), points, t, ats, q);
    sa_modq_weighted_sums(sums, weights, shares, q, t, m);
    CHECK(memcmp(sums, direct, 8 * q * m) == 0);
}

static void fuzz_lattice(void) { /* every variant gives the same entries, and none too wide */
    const unsigned lane_bytes = next_lane_bytes(), most = lane_bytes == 2 ? 16 : lane_bytes == 4 ? 32 : 40;
    const unsigned bits = 1 + next_byte() % most, upload_bits = bits + 1 + next_byte() % (44 - bits);
    const size_t lanes = next_below(SA_LATTICE_RING + 1), size = 8 * SA_LATTICE_RING;
    uint8_t *const values = next_bytes(lanes * lane_bytes, 1);
    for (size_t i = 0; i < lanes; i++) { /* below 2^bits */
        uint64_t value = 0;
        memcpy(&value, values + i * lane_bytes, lane_bytes);
        value &= ((uint64_t)1 << bits) - 1;
        memcpy(values + i * lane_bytes, &value, lane_bytes);
    }
    const uint64_t *const noise = next_bytes(size, 0), *const words = next_bytes(size, 0);
    uint64_t *const secret = next_elements(SA_LATTICE_RING), *expected = NULL;
    for (size_t i = 0; i < SA_LATTICE_RING; i++)
        secret[i] %= Q;
    for (size_t i = 0; next_variant(&i) != NULL;) {
        uint64_t *const prepared = take(size, 0, NULL), *const out = take(size, 0, words);
        sa_lattice_secret(prepared, secret);
        sa_lattice_block(out, prepared, noise, values, lanes, lane_bytes, bits, upload_bits);
        if (expected == NULL)
            expected = out;
        CHECK(memcmp(out, expected, size) == 0);
        for (size_t k = 0; k < SA_LATTICE_RING; k++)
            CHECK(out[k] >> upload_bits == 0);
    }
}

static void (*const TARGETS[])(void) = {fuzz_mask,     fuzz_ring,   fuzz_quantize, fuzz_dequantize,
                                        fuzz_hadamard, fuzz_shares, fuzz_decode,   fuzz_packed_shares,
                                        fuzz_lattice};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input = data, input_left = size;
    filler = 251 + size;
    TARGETS[next_byte() % (sizeof TARGETS / sizeof *TARGETS)]();
    CHECK(release_all());
    return 0;
}

#ifdef STANDALONE

#include <time.h>

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int argc, char **argv) {
    const double end = seconds() + (argc > 1 ? atof(argv[1]) : 2.0);
    uint64_t state = argc > 2 ? strtoull(argv[2], NULL, 10) | 1 : 1, inputs = 0;
    uint8_t data[256];
    do {
        for (size_t i = 0; i < sizeof data; i++)
            data[i] = (uint8_t)(xorshift(&state) >> 32);
        data[0] = (uint8_t)(inputs++ % (sizeof TARGETS / sizeof *TARGETS)); /* the kernels in turn */
        LLVMFuzzerTestOneInput(data, sizeof data);
    } while (seconds() < end);
    printf("fuzz: %llu inputs, all passed\n", (unsigned long long)inputs);
    return 0;
}

#endif
