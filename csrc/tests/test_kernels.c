/* Known answers and identities of the kernels, without Python. Exits non-zero on the first failure. */
#include "secagg_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static uint64_t state = 251;

static uint64_t next_word(void) { /* xorshift: test data only */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void test_mask_known_answer(void) {
    /* SP 800-38A, F.5.1: AES-128-CTR, key 2b7e..., first counter block f0f1...fcfdfeff. Its counter
     * word 0xfcfdfeff is where our 32-bit counter stands when first = 4 * 0xfcfdfeff lanes. */
    static const uint8_t seed[32] = {0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15,
                                     0x88, 0x09, 0xcf, 0x4f, 0x3c, 0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5,
                                     0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb};
    static const uint8_t plain[16] = {0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96,
                                      0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a};
    static const uint8_t cipher[16] = {0x87, 0x4d, 0x61, 0x91, 0xb6, 0x20, 0xe3, 0x26,
                                       0x1b, 0xef, 0x68, 0x64, 0x99, 0x0d, 0xb6, 0xce};
    static const int8_t plus = 1;
    uint8_t acc[16] = {0};
    sa_mask_add(acc, 4, 4, 4ull * 0xfcfdfeffu, seed, &plus, 1);
    for (size_t i = 0; i < 16; i++)
        CHECK((acc[i] ^ plain[i]) == cipher[i]);
}

static void test_mask_cancels_and_splits(void) {
    enum { N = 5000, COUNT = 3 };
    static uint8_t whole[8 * N + 1], parts[8 * N + 1];
    uint8_t seeds[32 * COUNT];
    const int8_t signs[COUNT] = {1, -1, 1}, opposite[COUNT] = {-1, 1, -1};
    for (size_t i = 0; i < sizeof seeds; i++)
        seeds[i] = (uint8_t)next_word();
    for (unsigned lane_bytes = 2; lane_bytes <= 8; lane_bytes *= 2) {
        for (size_t i = 0; i < sizeof whole; i++)
            whole[i] = parts[i] = (uint8_t)(i % 251);
        sa_mask_add(whole + 1, N, lane_bytes, 7, seeds, signs, COUNT); /* unaligned on purpose */
        size_t done = 0;
        while (done < N) {
            size_t step = 1 + next_word() % 700;
            step = step < N - done ? step : N - done;
            sa_mask_add(parts + 1 + done * lane_bytes, step, lane_bytes, 7 + done, seeds, signs, COUNT);
            done += step;
        }
        CHECK(memcmp(whole, parts, sizeof whole) == 0);
        sa_mask_add(whole + 1, N, lane_bytes, 7, seeds, opposite, COUNT);
        for (size_t i = 0; i < sizeof whole; i++)
            CHECK(whole[i] == i % 251);
    }
}

static void test_pack_round_trip(void) {
    enum { N = 131 };
    uint64_t values[N], back[N];
    uint8_t packed[8 * N + 1];
    for (unsigned bits = 1; bits <= 64; bits++) {
        for (size_t n = 0; n <= N; n++) {
            const size_t bytes = (n * bits + 7) / 8;
            for (size_t i = 0; i < n; i++)
                values[i] = next_word() >> (64 - bits);
            packed[bytes] = 0xa5;
            sa_pack(packed, values, n, 8, bits);
            CHECK(packed[bytes] == 0xa5);
            memset(back, 0, sizeof back);
            sa_unpack_add(back, packed, n, 8, bits);
            CHECK(memcmp(back, values, n * 8) == 0);
        }
    }
}

static void test_field(void) {
    enum { T = 7, M = 3, K = 12 };
    const uint64_t p = ((uint64_t)1 << 61) - 1;
    uint64_t coefficients[T * M], points[K], shares[K * M], weights[T], scratch[2 * T], secret[M];
    for (size_t i = 0; i < T * M; i++)
        coefficients[i] = i % 5 == 0 ? p - 1 : (next_word() >> 3) % p;
    for (size_t i = 0; i < K; i++)
        points[i] = i + 1;
    sa_field_evaluate(shares, coefficients, T, M, points, K);
    const uint64_t zero = 0;
    sa_field_lagrange(weights, scratch, points + 4, T, &zero, 1);
    sa_field_weighted_sums(secret, weights, shares + 4 * M, 1, T, M);
    CHECK(memcmp(secret, coefficients, sizeof secret) == 0);

    uint64_t values[K], decoded[T], room[4 * (K + 1)];
    for (size_t wrong = 0; wrong <= K; wrong++) {
        for (size_t i = 0; i < K; i++) /* the first `wrong` are off by one */
            values[i] = i < wrong ? (shares[i * M] + 1) % p : shares[i * M];
        const size_t errors = sa_field_decode(decoded, room, points, values, K, T);
        if (wrong <= (K - T) / 2) {
            CHECK(errors == wrong);
            for (size_t j = 0; j < T; j++)
                CHECK(decoded[j] == coefficients[j * M]);
        } else if (wrong < K - (K - T) / 2) /* then "shifted by one" is the nearer polynomial */
            CHECK(errors == K + 1);
    }
}

static void test_quantize(void) {
    const double values[4] = {0.5, -0.5, 9.0, -9.0};
    const uint32_t low[4] = {0, 0, 0, 0}, high[4] = {~0u, ~0u, ~0u, ~0u};
    uint16_t out[4];
    double back[4];
    CHECK(sa_quantize_f64(out, 2, 10, values, low, 4, 1.0, 5.0, 5.0) == 4);
    sa_dequantize(back, out, 4, 2, 10, 1.0);
    CHECK(back[0] == 3 && back[1] == -2 && back[2] == 5 && back[3] == -5);
    CHECK(sa_quantize_f64(out, 2, 10, values, high, 4, 1.0, 5.0, 5.0) == 4);
    sa_dequantize(back, out, 4, 2, 10, 1.0);
    CHECK(back[0] == 2 && back[1] == -3 && back[2] == 5 && back[3] == -5);
}

static void test_hadamard(void) {
    enum { N = 1024 };
    float values[N], once[N];
    uint8_t flips[N / 8];
    for (size_t i = 0; i < N; i++)
        values[i] = once[i] = (float)(int)(next_word() % 1000) - 499.5f; /* no zero: it has two signs */
    for (size_t i = 0; i < sizeof flips; i++)
        flips[i] = (uint8_t)next_word();
    sa_flip_signs(once, flips, N);
    sa_hadamard(once, N, 0x1p-5f); /* 1 / sqrt(1024): its own inverse, exact on small integers */
    sa_hadamard(once, N, 0x1p-5f);
    sa_flip_signs(once, flips, N);
    CHECK(memcmp(once, values, sizeof once) == 0);
}

int main(void) {
    const char *name;
    uint32_t needs;
    for (size_t i = 0; (name = sa_variant_at(i, &needs)) != NULL; i++) {
        sa_select(needs);
        if (strcmp(sa_variant(), name) != 0) {
            printf("kernels: variant %s does not run here\n", name);
            continue;
        }
        if (sa_has_mask()) {
            test_mask_known_answer();
            test_mask_cancels_and_splits();
        }
        test_pack_round_trip();
        test_quantize();
        test_hadamard();
        printf("kernels: variant %s, all passed\n", name);
    }
    test_field();
    printf("kernels: field, all passed\n");
    return 0;
}
