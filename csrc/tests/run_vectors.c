/* Runs a file of vectors (tests/kernels/c_vectors.py) through every variant that runs here, with
 * aligned and with odd addresses of lanes and bytes, and compares the results byte by byte.
 *
 * A record, little-endian: op (16 bytes) and name (48), zero padded; the numbers of integers, reals
 * and blobs (u32 each); the integers (u64), the reals (double), then each blob as its size (u64) and
 * its bytes. The last blob is the expected result. Exits 1 on the first record that differs and names
 * it, 2 when the file cannot be read. */
#include "helpers.h"

enum { INTS = 4, REALS = 3, BLOBS = 5 };

typedef struct {
    uint8_t *bytes;
    size_t size;
} blob;

typedef struct {
    char op[17], name[49];
    uint64_t ints[INTS];
    double reals[REALS];
    blob blobs[BLOBS];
    uint32_t counts[3];
} record;

static const char *path;

static void unreadable(const char *why) {
    fprintf(stderr, "%s: %s\n", path, why);
    exit(2);
}

static void read_bytes(FILE *file, void *to, size_t size) {
    if (fread(to, 1, size, file) != size)
        unreadable("ends within a record");
}

/* Whether there was another record. */
static int read_record(FILE *file, record *r) {
    const int next = fgetc(file);
    if (next == EOF)
        return 0;
    ungetc(next, file);
    *r = (record){0};
    read_bytes(file, r->op, 16);
    read_bytes(file, r->name, 48);
    read_bytes(file, r->counts, sizeof r->counts);
    if (r->counts[0] > INTS || r->counts[1] > REALS || r->counts[2] < 2 || r->counts[2] > BLOBS)
        unreadable("not a file of vectors");
    read_bytes(file, r->ints, r->counts[0] * sizeof(uint64_t));
    read_bytes(file, r->reals, r->counts[1] * sizeof(double));
    for (size_t i = 0; i < r->counts[2]; i++) {
        uint64_t size;
        read_bytes(file, &size, sizeof size);
        r->blobs[i].size = (size_t)size;
        r->blobs[i].bytes = malloc(r->blobs[i].size + 1);
        if (r->blobs[i].bytes == NULL)
            unreadable("out of memory");
        read_bytes(file, r->blobs[i].bytes, r->blobs[i].size);
    }
    return 1;
}

static void *copy(const blob *b, size_t skew) { return take(b->size, skew, b->bytes); }

static int same(const void *got, const blob *expected) {
    return expected->size == 0 || memcmp(got, expected->bytes, expected->size) == 0;
}

/* --- operations: whether the result is the expected one -------------------------------------------- */

static int run_mask_add(const record *r, size_t skew) { /* acc, seeds, signs */
    const unsigned lane_bytes = (unsigned)r->ints[0];
    if (!sa_has_mask())
        return 1;
    void *const acc = copy(&r->blobs[0], skew);
    sa_mask_add(acc, r->blobs[0].size / lane_bytes, lane_bytes, r->ints[1], copy(&r->blobs[1], skew),
                copy(&r->blobs[2], 0), r->blobs[2].size);
    return same(acc, &r->blobs[3]);
}

static int run_pack(const record *r, size_t skew) { /* values */
    const unsigned lane_bytes = (unsigned)r->ints[0];
    uint8_t *const packed = take(r->blobs[1].size, skew, NULL);
    sa_pack(packed, copy(&r->blobs[0], skew), r->blobs[0].size / lane_bytes, lane_bytes,
            (unsigned)r->ints[1]);
    return same(packed, &r->blobs[1]);
}

static int run_unpack_add(const record *r, size_t skew) { /* acc, packed */
    const unsigned lane_bytes = (unsigned)r->ints[0];
    void *const acc = copy(&r->blobs[0], skew);
    sa_unpack_add(acc, copy(&r->blobs[1], skew), r->blobs[0].size / lane_bytes, lane_bytes,
                  (unsigned)r->ints[1]);
    return same(acc, &r->blobs[2]);
}

static int run_quantize(const record *r, size_t skew) { /* values, words; ints[2]: bytes of a value */
    const unsigned lane_bytes = (unsigned)r->ints[0], bits = (unsigned)r->ints[1];
    const size_t n = r->blobs[1].size / 4;
    void *const out = take(n * lane_bytes, skew, NULL);
    const void *const values = copy(&r->blobs[0], 0);
    const uint32_t *const words = copy(&r->blobs[1], 0);
    const double clip = r->reals[0], scale = r->reals[1], limit = r->reals[2];
    const size_t done =
        r->ints[2] == 4 ? sa_quantize_f32(out, lane_bytes, bits, values, words, n, clip, scale, limit)
                        : sa_quantize_f64(out, lane_bytes, bits, values, words, n, clip, scale, limit);
    return done == r->ints[3] && same(out, &r->blobs[2]);
}

static int run_dequantize(const record *r, size_t skew) { /* values */
    const unsigned lane_bytes = (unsigned)r->ints[0];
    double *const out = take(r->blobs[1].size, 0, NULL);
    sa_dequantize(out, copy(&r->blobs[0], skew), r->blobs[0].size / lane_bytes, lane_bytes,
                  (unsigned)r->ints[1], r->reals[0]);
    return same(out, &r->blobs[1]);
}

static int run_hadamard(const record *r, size_t skew) { /* values, flips */
    float *const values = copy(&r->blobs[0], 0);
    const size_t n = r->blobs[0].size / sizeof(float);
    sa_flip_signs(values, copy(&r->blobs[1], skew), n);
    sa_hadamard(values, n, (float)r->reals[0]);
    return same(values, &r->blobs[2]);
}

/* Both fields: evaluate (coefficients, points), lagrange (points, ats), weighted_sums, and decode (points,
 * values; ints[1]: the returned number). */
#define RUN_FIELD(field)                                                                           \
    static int run_##field##_evaluate(const record *r, size_t skew) {                              \
        (void)skew;                                                                                \
        uint64_t *const out = take(r->blobs[2].size, 0, NULL);                                     \
        sa_##field##_evaluate(out, copy(&r->blobs[0], 0), r->ints[0], r->ints[1],                  \
                              copy(&r->blobs[1], 0), r->blobs[1].size / 8);                        \
        return same(out, &r->blobs[2]);                                                            \
    }                                                                                              \
    static int run_##field##_lagrange(const record *r, size_t skew) {                              \
        (void)skew;                                                                                \
        uint64_t *const out = take(r->blobs[2].size, 0, NULL);                                     \
        uint64_t *const scratch = take(2 * r->blobs[0].size, 0, NULL);                             \
        sa_##field##_lagrange(out, scratch, copy(&r->blobs[0], 0), r->blobs[0].size / 8,           \
                              copy(&r->blobs[1], 0), r->blobs[1].size / 8);                        \
        return same(out, &r->blobs[2]);                                                            \
    }                                                                                              \
    static int run_##field##_weighted_sums(const record *r, size_t skew) {                         \
        (void)skew;                                                                                \
        uint64_t *const out = take(r->blobs[2].size, 0, NULL);                                     \
        sa_##field##_weighted_sums(out, copy(&r->blobs[0], 0), copy(&r->blobs[1], 0), r->ints[0],  \
                                   r->ints[1], r->ints[2]);                                        \
        return same(out, &r->blobs[2]);                                                            \
    }                                                                                              \
    static int run_##field##_decode(const record *r, size_t skew) {                                \
        (void)skew;                                                                                \
        const size_t m = r->blobs[0].size / 8, t = r->ints[0];                                     \
        uint64_t *const polynomial = take(8 * t, 0, NULL);                                         \
        const size_t wrong =                                                                       \
            sa_##field##_decode(polynomial, take(32 * (m + 1), 0, NULL), copy(&r->blobs[0], 0),    \
                                copy(&r->blobs[1], 0), m, t);                                      \
        return wrong == r->ints[1] && same(polynomial, &r->blobs[2]);                              \
    }

RUN_FIELD(field)
RUN_FIELD(modq)

/* words of a, secret, noise, values; ints: lane_bytes, bits, upload_bits */
static int run_lattice(const record *r, size_t skew) {
    const unsigned lane_bytes = (unsigned)r->ints[0];
    uint64_t *const prepared = take(8 * SA_LATTICE_RING, 0, NULL), *const out = copy(&r->blobs[0], 0);
    sa_lattice_secret(prepared, copy(&r->blobs[1], 0));
    sa_lattice_block(out, prepared, copy(&r->blobs[2], 0), copy(&r->blobs[3], skew),
                     r->blobs[3].size / lane_bytes, lane_bytes, (unsigned)r->ints[1],
                     (unsigned)r->ints[2]);
    return same(out, &r->blobs[4]);
}

/* seeds of a and of the noise, secret, values; ints: lane_bytes, bits, upload_bits, first block */
static int run_lattice_mask(const record *r, size_t skew) {
    const unsigned lane_bytes = (unsigned)r->ints[0];
    if (!sa_has_mask())
        return 1;
    uint64_t *const prepared = take(8 * SA_LATTICE_RING, 0, NULL);
    uint64_t *const out = take(r->blobs[4].size, 0, NULL);
    sa_lattice_secret(prepared, copy(&r->blobs[2], 0));
    sa_lattice_mask(out, r->blobs[4].size / 8 / SA_LATTICE_RING, r->ints[3], copy(&r->blobs[0], skew),
                    copy(&r->blobs[1], skew), prepared, copy(&r->blobs[3], skew),
                    r->blobs[3].size / lane_bytes, lane_bytes, (unsigned)r->ints[1],
                    (unsigned)r->ints[2]);
    return same(out, &r->blobs[4]);
}

static const struct {
    const char *op;
    int (*run)(const record *r, size_t skew);
    uint32_t counts[3];
} OPERATIONS[] = {
    {"mask_add", run_mask_add, {2, 0, 4}},
    {"pack", run_pack, {2, 0, 2}},
    {"unpack_add", run_unpack_add, {2, 0, 3}},
    {"quantize", run_quantize, {4, 3, 3}},
    {"dequantize", run_dequantize, {2, 1, 2}},
    {"hadamard", run_hadamard, {0, 1, 3}},
    {"evaluate", run_field_evaluate, {2, 0, 3}},
    {"lagrange", run_field_lagrange, {0, 0, 3}},
    {"weighted_sums", run_field_weighted_sums, {3, 0, 3}},
    {"decode", run_field_decode, {2, 0, 3}},
    {"q evaluate", run_modq_evaluate, {2, 0, 3}},
    {"q lagrange", run_modq_lagrange, {0, 0, 3}},
    {"q weighted_sums", run_modq_weighted_sums, {3, 0, 3}},
    {"q decode", run_modq_decode, {2, 0, 3}},
    {"lattice", run_lattice, {3, 0, 5}},
    {"lattice_mask", run_lattice_mask, {4, 0, 5}},
};

static void run(const record *r) {
    size_t op = 0;
    while (strcmp(OPERATIONS[op].op, r->op) != 0)
        if (++op == sizeof OPERATIONS / sizeof *OPERATIONS)
            unreadable("an unknown operation");
    if (memcmp(OPERATIONS[op].counts, r->counts, sizeof r->counts) != 0)
        unreadable("an operation with other arguments");
    for (size_t skew = 0; skew <= 1; skew++) {
        const int equal = OPERATIONS[op].run(r, skew);
        if (release_all() && equal)
            continue;
        fprintf(stderr, "vectors: %s, %s: variant %s %s (skew %zu)\n", r->op, r->name, sa_variant(),
                equal ? "writes behind a buffer" : "differs", skew);
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: run_vectors FILE\n");
        return 2;
    }
    path = argv[1];
    FILE *const file = fopen(path, "rb");
    if (file == NULL)
        unreadable("cannot be opened");
    const char *name;
    size_t records = 0;
    for (size_t i = 0; (name = next_variant(&i)) != NULL; rewind(file)) {
        record r;
        for (records = 0; read_record(file, &r); records++) {
            run(&r);
            for (size_t j = 0; j < r.counts[2]; j++)
                free(r.blobs[j].bytes);
        }
        printf("vectors: variant %s, all %zu passed\n", name, records);
    }
    fclose(file);
    if (records == 0)
        unreadable("has no record");
    return 0;
}
