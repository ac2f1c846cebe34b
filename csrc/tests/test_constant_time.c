/* No branch and no address depends on a secret: secrets are marked undefined, and valgrind's memcheck
 * reports every jump and every memory access that depends on undefined bits (the method of ctgrind).
 *
 *   valgrind --error-exitcode=1 test_constant_time        clean, exits 0
 *   valgrind --error-exitcode=1 test_constant_time leak   one branch on a secret: must exit 1
 *
 * valgrind 3.19 shows programs a CPU without VAES and AVX-512. Under it run the variants avx2, aesni
 * and portable (printed, one line each), and the fields, which have no variants. The masks of vaes256
 * and vaes512 share their loop (mask_body.inc.h) and the key schedule with those, packing of vaes512
 * shares ring_body.inc.h; what is their own are the keystream and its registers: by review.
 *
 * Secret are seeds, lanes, packed bytes, coefficients, values, weights, the secret and the noise of lattice
 * masks; public are sizes, signs, points and the seed of the polynomials a, so sa_field_lagrange has no secret. Out of scope: quantization (its check stops at the first
 * value that is not finite, an error that the caller reports) and the decoders (revealed values). */
#include "helpers.h"

#include <valgrind/memcheck.h>

enum { LANES = 300, SEEDS = 3, T = 70, M = 7, K = 9 };

static uint64_t state = 251;

/* Memory with content that counts as secret. */
static void *secret(size_t size) {
    uint8_t *const memory = take(size, 0, NULL);
    for (size_t i = 0; i < size; i++)
        memory[i] = (uint8_t)xorshift(&state);
    VALGRIND_MAKE_MEM_UNDEFINED(memory, size);
    return memory;
}

/* Words below 2^61 - 1, drawn before they become secret. */
static uint64_t *secret_words(size_t count) {
    uint64_t *const words = take(8 * count, 0, NULL);
    for (size_t i = 0; i < count; i++)
        words[i] = xorshift(&state) >> 4;
    VALGRIND_MAKE_MEM_UNDEFINED(words, 8 * count);
    return words;
}

/* Words below 2^49. */
static uint64_t *secret_elements(size_t count) {
    uint64_t *const words = take(8 * count, 0, NULL);
    for (size_t i = 0; i < count; i++)
        words[i] = xorshift(&state) >> 15;
    VALGRIND_MAKE_MEM_UNDEFINED(words, 8 * count);
    return words;
}

/* The first `bytes` of every 8 of a result depend on secrets: memcheck did follow them through the kernel. */
static void follows(const void *result, size_t size, size_t bytes) {
    uint8_t *const undefined = take(size, 0, NULL);
    CHECK(VALGRIND_GET_VBITS(result, undefined, size) == 1);
    for (size_t i = 0; i < size; i++)
        CHECK(i % 8 >= bytes || undefined[i] != 0);
    release_all();
}

static void masks(unsigned lane_bytes) {
    static const int8_t signs[SEEDS] = {1, -1, 1};
    const size_t lengths[] = {LANES, 65536 / lane_bytes + LANES}; /* within a tile, and more than one */
    for (size_t i = 0; sa_has_mask() && i < 4; i++) {
        const size_t lanes = lengths[i % 2], bytes = lanes * lane_bytes;
        void *const acc = take(bytes, 0, NULL); /* public zeros: what is secret here are the seeds */
        sa_mask_add(acc, lanes, lane_bytes, 5 * (i / 2), secret(32 * SEEDS), signs, SEEDS);
        follows(acc, bytes, 8);
        sa_mask_add(secret(bytes), lanes, lane_bytes, 5 * (i / 2), secret(32 * SEEDS), signs, SEEDS);
        release_all();
    }
}

static void packing(unsigned lane_bytes) {
    for (unsigned bits = 1; bits <= 8 * lane_bytes; bits++) {
        const size_t size = (LANES * bits + 7) / 8;
        uint8_t *const packed = take(size, 0, NULL);
        sa_pack(packed, secret(LANES * lane_bytes), LANES, lane_bytes, bits);
        follows(packed, size, 8);
        void *const acc = secret(LANES * lane_bytes);
        sa_unpack_add(acc, secret(size), LANES, lane_bytes, bits);
        follows(acc, LANES * lane_bytes, 8);
    }
}

static void reals(unsigned lane_bytes) {
    float *const values = secret(512 * sizeof(float));
    sa_flip_signs(values, secret(512 / 8), 512);
    sa_hadamard(values, 512, 0x1p-4f);
    follows(values, 512 * sizeof(float), 8);
    double *const out = take(8 * LANES, 0, NULL);
    sa_dequantize(out, secret(LANES * lane_bytes), LANES, lane_bytes, 8 * lane_bytes - 3, 0.5);
    follows(out, 8 * LANES, 8);
}

static void field(void) {
    uint64_t points[K];
    for (size_t i = 0; i < K; i++)
        points[i] = 3 * i + 1;
    uint64_t *out = take(8 * K * M, 0, NULL);
    sa_field_evaluate(out, secret_words(T * M), T, M, points, K);
    follows(out, 8 * K * M, 8);
    out = take(8 * K * M, 0, NULL);
    sa_field_weighted_sums(out, secret_words(K * T), secret_words(T * M), K, T, M);
    follows(out, 8 * K * M, 8);
}

static void modq(void) {
    uint64_t points[K];
    for (size_t i = 0; i < K; i++)
        points[i] = 3 * i + 1;
    uint64_t *out = take(8 * K * M, 0, NULL);
    sa_modq_evaluate(out, secret_elements(T * M), T, M, points, K);
    follows(out, 8 * K * M, 6); /* elements have 50 bits */
    out = take(8 * K * M, 0, NULL);
    sa_modq_weighted_sums(out, secret_elements(K * T), secret_elements(T * M), K, T, M);
    follows(out, 8 * K * M, 6);
}

static void lattice(unsigned lane_bytes) {
    const size_t lanes = SA_LATTICE_RING + LANES, bytes = 8 * 2 * SA_LATTICE_RING;
    uint64_t *const prepared = take(8 * SA_LATTICE_RING, 0, NULL), *const out = take(bytes, 0, NULL);
    sa_lattice_secret(prepared, secret_elements(SA_LATTICE_RING));
    if (sa_has_mask()) {
        uint8_t seed[32];
        for (size_t i = 0; i < sizeof seed; i++)
            seed[i] = (uint8_t)xorshift(&state);
        sa_lattice_mask(out, 2, 3, seed, secret(32), prepared, secret(lanes * lane_bytes), lanes, lane_bytes,
                        15, 23);
        follows(out, bytes, 2);
        return;
    }
    memset(out, 0x5a, bytes);
    sa_lattice_block(out, prepared, secret(8 * SA_LATTICE_RING), secret(LANES * lane_bytes), LANES,
                     lane_bytes, 15, 23);
    follows(out, 8 * SA_LATTICE_RING, 2);
}

/* What must be found, so that silence means something. */
static int leak(void) {
    const uint8_t *const seed = secret(32);
    return *seed < 128 ? puts("a branch on a secret: low") : puts("a branch on a secret: high");
}

int main(int argc, char **argv) {
    if (!RUNNING_ON_VALGRIND) {
        fprintf(stderr, "test_constant_time: says nothing without valgrind\n");
        return 2;
    }
    if (argc > 1 && strcmp(argv[1], "leak") == 0)
        return leak() < 0;
    const char *name;
    for (size_t i = 0; (name = next_variant(&i)) != NULL;) {
        for (unsigned lane_bytes = 2; lane_bytes <= 8; lane_bytes *= 2) {
            masks(lane_bytes);
            packing(lane_bytes);
            reals(lane_bytes);
            lattice(lane_bytes);
        }
        printf("constant time: variant %s\n", name);
    }
    field();
    modq();
    printf("constant time: field\n");
    return VALGRIND_COUNT_ERRORS != 0;
}
