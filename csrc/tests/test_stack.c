/* Nothing of the keystream or of the key stays on the stack behind sa_mask_add and sa_lattice_mask, whatever
 * the optimizer does.
 *
 * The stack below is painted, the kernel runs on zeros (so that its output is the keystream), then the same
 * stretch of stack is searched for eight successive bytes of the keystream or of the seed. */
#include "kernels_impl.h"

#include <stdio.h>
#include <stdlib.h>

enum { DEPTH = 1 << 16, BYTES = 4096 + 37 };

static uint8_t output[BYTES], seed[32], copy[DEPTH];
static const uint8_t public_seed[32] = {251};
static uint64_t entries[SA_LATTICE_RING], noise[SA_LATTICE_RING];
static uint64_t element[SA_LATTICE_RING], prepared[SA_LATTICE_RING];

#define OPAQUE(p) __asm__ volatile("" : : "r"(p) : "memory")

static __attribute__((noinline)) void paint(void) {
    uint8_t stretch[DEPTH];
    memset(stretch, 0xa5, sizeof stretch);
    OPAQUE(stretch);
}

static __attribute__((noinline)) void look(void) {
    uint8_t stretch[DEPTH];
    OPAQUE(stretch); /* what was left there */
    memcpy(copy, stretch, sizeof copy);
}

static int found(const uint8_t *secret, size_t bytes) {
    for (size_t at = 0; at + 8 <= bytes; at++)
        for (size_t i = 0; i + 8 <= sizeof copy; i++)
            if (memcmp(copy + i, secret + at, 8) == 0)
                return 1;
    return 0;
}

static __attribute__((noinline)) void leak(void) { /* what must be found */
    uint8_t stretch[DEPTH / 2];
    memcpy(stretch, output, BYTES);
    OPAQUE(stretch);
}

int main(void) {
    static const int8_t signs[1] = {1};
    const char *name;
    uint32_t needs;
    for (size_t i = 0; (name = sa_variant_at(i, &needs)) != NULL; i++) {
        sa_select(needs);
        if (strcmp(sa_variant(), name) != 0 || !sa_has_mask())
            continue;
        for (unsigned round = 0; round < 16; round++) {
            for (unsigned b = 0; b < sizeof seed; b++)
                seed[b] = (uint8_t)(rand() >> 7);
            memset(output, 0, sizeof output);
            const unsigned lane_bytes = 2u << round % 3;
            paint();
            sa_mask_add(output, sizeof output / lane_bytes, lane_bytes, 1 + round, seed, signs, 1);
            look();
            if (found(output, sizeof output / lane_bytes * lane_bytes) || found(seed, 28)) {
                fprintf(stderr, "stack: variant %s leaves keystream or key behind\n", name);
                return 1;
            }
            memset(noise, 0, sizeof noise);
            sa_mask_add(noise, SA_LATTICE_RING, 8, SA_LATTICE_RING * round, seed, signs, 1);
            for (size_t k = 0; k < SA_LATTICE_RING; k++)
                element[k] = (uint64_t)(unsigned)rand() << 18 | 1;
            sa_lattice_secret(prepared, element);
            paint();
            sa_lattice_mask(entries, 1, round, public_seed, seed, prepared, NULL, 0, 4, 20, 28);
            look();
            if (found((const uint8_t *)noise, sizeof noise) || found(seed, 28)) {
                fprintf(stderr, "stack: variant %s leaves noise of a lattice mask behind\n", name);
                return 1;
            }
        }
        printf("stack: variant %s leaves nothing behind\n", name);
    }
    paint();
    leak();
    look();
    if (!found(output, sizeof output)) {
        fprintf(stderr, "stack: a deliberate leak was not found\n");
        return 1;
    }
    return 0;
}
