/* What the programs of this folder share: variants that run here, memory that betrays overruns. */
#ifndef SECAGG_TESTS_HELPERS_H
#define SECAGG_TESTS_HELPERS_H

#include "secagg_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, sa_variant(), #condition);      \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Select the next variant that runs here, from *i = 0 on; NULL behind the last. */
static inline const char *next_variant(size_t *i) {
    const char *name;
    uint32_t needs;
    while ((name = sa_variant_at((*i)++, &needs)) != NULL) {
        sa_select(needs);
        if (strcmp(sa_variant(), name) == 0)
            return name;
    }
    return NULL;
}

static inline uint64_t xorshift(uint64_t *state) { /* test data only; the state is not zero */
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Memory taken for one call. AddressSanitizer sees any access behind it; elsewhere a guard sees
 * what was written there. `skew` bytes off the alignment of malloc. */
#if defined(__SANITIZE_ADDRESS__)
#define GUARD ((size_t)0)
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GUARD ((size_t)0)
#endif
#endif
#ifndef GUARD
#define GUARD ((size_t)64)
#endif

static struct {
    uint8_t *base;
    size_t end;
} taken[64];
static size_t taken_count;

/* A copy of `content`, or bytes of no meaning (NULL). */
static inline void *take(size_t size, size_t skew, const void *content) {
    CHECK(taken_count < sizeof taken / sizeof *taken);
    uint8_t *const base = malloc(skew + size + GUARD);
    CHECK(base != NULL);
    memset(base, 0xa5, skew + size + GUARD);
    if (content != NULL && size != 0)
        memcpy(base + skew, content, size);
    taken[taken_count].base = base;
    taken[taken_count++].end = skew + size;
    return base + skew;
}

/* Free all that was taken; whether the guards stand. */
static inline int release_all(void) {
    int stand = 1;
    while (taken_count > 0) {
        taken_count--;
        uint8_t *const base = taken[taken_count].base, *const guard = base + taken[taken_count].end;
        for (const uint8_t *p = guard; p != guard + GUARD; p++)
            stand &= *p == 0xa5;
        free(base);
    }
    return stand;
}

#endif
