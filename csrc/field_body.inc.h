/* Vector arithmetic in a prime field, once for each of the two fields: field.c and modq.c include it.
 *
 * They define FIELD(name), P, u128 and
 *   reduce(v)          a sum of two elements -> [0, P)
 *   mul(a, b)          of elements, in [0, P)
 *   mul_loose(a, b)    of values below 2 P, below 2 P: for chains of products
 *   fold(v)            a u128 below TERMS products -> congruent, and small enough for TERMS products more
 *   TERMS              products of elements that a u128 holds beside a folded rest
 *   settle(v)          what fold gives -> [0, P)
 *
 * Inputs are reduced; no branch and no index depends on one, but in decode. */

static inline uint64_t sub(uint64_t a, uint64_t b) { return reduce(a + P - b); }

static uint64_t inverse(uint64_t a) { /* a^(P - 2); the exponent is public */
    uint64_t r = 1;
    for (unsigned bit = 64; bit-- > 0;) {
        r = mul(r, r);
        if ((P - 2) >> bit & 1)
            r = mul(r, a);
    }
    return r;
}

int FIELD(valid)(const uint64_t *words, size_t n) {
    uint64_t above = 0; /* its top bit is set once a word is P or more */
    for (size_t i = 0; i < n; i++)
        above |= words[i] | (P - 1 - words[i]);
    return above >> 63 == 0;
}

#define COLUMNS 5 /* limbs of a secret: their sums stay in registers */

/* out[c] = sum over j < t of weights[j] * values[j][c], for c < columns. */
static inline __attribute__((always_inline)) void dot(uint64_t *out, const uint64_t *weights,
                                                      const uint64_t *values, size_t t, size_t m,
                                                      size_t columns) {
    u128 sum[COLUMNS] = {0};
    for (size_t first = 0; first < t; first += TERMS) {
        const size_t end = t - first < TERMS ? t : first + TERMS;
        for (size_t j = first; j < end; j++)
            for (size_t c = 0; c < columns; c++)
                sum[c] += (u128)weights[j] * values[j * m + c];
        for (size_t c = 0; c < columns; c++)
            sum[c] = fold(sum[c]);
    }
    for (size_t c = 0; c < columns; c++)
        out[c] = settle(sum[c]);
}

static void dots(uint64_t *out, const uint64_t *weights, const uint64_t *values, size_t t, size_t m) {
    size_t c = 0;
    for (; c + COLUMNS <= m; c += COLUMNS)
        dot(out + c, weights, values + c, t, m, COLUMNS);
    for (; c < m; c++)
        dot(out + c, weights, values + c, t, m, 1);
}

void FIELD(evaluate)(uint64_t *out, const uint64_t *coefficients, size_t t, size_t m,
                       const uint64_t *points, size_t k) {
    enum { STEP = 64 }; /* powers at a time, on the stack: f(x) = sum of x^first * (block of f)(x) */
    for (size_t i = 0; i < k; i++, out += m) {
        uint64_t powers[STEP] = {1}, part[COLUMNS];
        for (size_t j = 1; j < STEP && j < t; j++)
            powers[j] = mul(powers[j - 1], points[i]);
        const uint64_t next = t > STEP ? mul(powers[STEP - 1], points[i]) : 1;
        for (size_t c = 0; c < m; c++)
            out[c] = 0;
        for (size_t blocks = (t + STEP - 1) / STEP; blocks-- > 0;) { /* Horner over the blocks */
            const size_t terms = t - blocks * STEP < STEP ? t - blocks * STEP : STEP;
            const uint64_t *const block = coefficients + blocks * STEP * m;
            for (size_t c = 0; c < m; c += COLUMNS) {
                const size_t columns = m - c < COLUMNS ? m - c : COLUMNS;
                if (columns == COLUMNS)
                    dot(part, powers, block + c, terms, m, COLUMNS);
                else
                    for (size_t one = 0; one < columns; one++)
                        dot(part + one, powers, block + c + one, terms, m, 1);
                for (size_t one = 0; one < columns; one++)
                    out[c + one] = reduce(mul(out[c + one], next) + part[one]);
            }
        }
        sa_wipe(part, sizeof part);
    }
}

/* Weights by the product formula; the denominators are inverted together (Montgomery's trick), the
 * numerators are products before and behind the left out point. */
void FIELD(lagrange)(uint64_t *out, uint64_t *scratch, const uint64_t *points, size_t t,
                       const uint64_t *ats, size_t q) {
    uint64_t *const inverted = scratch, *const prefix = scratch + t;
    uint64_t product = 1;
    for (size_t j = 0; j < t; j += 4) { /* four chains of products at a time */
        const size_t group = t - j < 4 ? t - j : 4;
        uint64_t d[4] = {1, 1, 1, 1}, x[4] = {0, 0, 0, 0};
        for (size_t c = 0; c < group; c++)
            x[c] = points[j + c];
        for (size_t i = 0; i < t; i++)
            for (size_t c = 0; c < 4; c++) {
                const uint64_t difference = x[c] + P - points[i];
                d[c] = mul_loose(d[c], i == j + c ? 1 : difference); /* points are public */
            }
        for (size_t c = 0; c < group; c++) {
            inverted[j + c] = d[c] = reduce(d[c]);
            prefix[j + c] = product; /* of the denominators before */
            product = mul(product, d[c]);
        }
    }
    uint64_t inv = inverse(product);
    for (size_t j = t; j-- > 0;) {
        const uint64_t d = inverted[j];
        inverted[j] = mul(inv, prefix[j]);
        inv = mul(inv, d);
    }
    for (size_t i = 0; i < q; i++, out += t) {
        uint64_t before = 1, behind = 1;
        for (size_t j = 0; j < t; j++) {
            out[j] = mul(inverted[j], before);
            before = mul(before, sub(ats[i], points[j]));
        }
        for (size_t j = t; j-- > 0;) {
            out[j] = mul(out[j], behind);
            behind = mul(behind, sub(ats[i], points[j]));
        }
    }
}

void FIELD(weighted_sums)(uint64_t *out, const uint64_t *weights, const uint64_t *values, size_t q,
                            size_t t, size_t m) {
    for (size_t i = 0; i < q; i++, out += m, weights += t)
        dots(out, weights, values, t, m);
}

/* --- decoding: on revealed shares, in variable time --------------------------------------------- */

typedef struct {
    uint64_t *c;   /* coefficients, lowest degree first */
    size_t length; /* without leading zeros; 0: the zero polynomial */
} poly;

static void trim(poly *a) {
    while (a->length != 0 && a->c[a->length - 1] == 0)
        a->length--;
}

/* a -= factor * x^shift * b; a has room. */
static void subtract(poly *a, const poly *b, uint64_t factor, size_t shift) {
    for (; a->length < b->length + shift; a->length++)
        a->c[a->length] = 0;
    for (size_t i = 0; i < b->length; i++)
        a->c[i + shift] = sub(a->c[i + shift], mul(factor, b->c[i]));
    trim(a);
}

static uint64_t value_at(const uint64_t *c, size_t length, uint64_t x) {
    uint64_t v = 0;
    while (length-- > 0)
        v = reduce(mul(v, x) + c[length]);
    return v;
}

size_t FIELD(decode)(uint64_t *polynomial, uint64_t *scratch, const uint64_t *points,
                       const uint64_t *values, size_t m, size_t t) {
    const size_t room = m + 1;
    poly g0 = {scratch, 1}, g1 = {scratch + room, 0};
    poly v0 = {scratch + 2 * room, 0}, v1 = {scratch + 3 * room, 1};
    g0.c[0] = v1.c[0] = 1;
    for (size_t i = 0; i < m; i++) {
        /* Newton's step: g0 = product of (x - x_j), g1 = interpolation, j < i; then include i. */
        const uint64_t miss = sub(values[i], value_at(g1.c, g1.length, points[i]));
        const uint64_t step = mul(miss, inverse(value_at(g0.c, g0.length, points[i])));
        subtract(&g1, &g0, sub(0, step), 0);
        g0.c[g0.length] = 0;
        for (size_t k = g0.length; k > 0; k--)
            g0.c[k] = sub(g0.c[k - 1], mul(points[i], g0.c[k]));
        g0.c[0] = sub(0, mul(points[i], g0.c[0]));
        g0.length++;
    }
    /* Euclid on (g0, g1), stopped half-way; v0, v1 follow the same steps. */
    while (g1.length != 0 && 2 * (g1.length - 1) >= m + t) {
        const uint64_t lead = inverse(g1.c[g1.length - 1]);
        while (g0.length >= g1.length) {
            const uint64_t factor = mul(g0.c[g0.length - 1], lead);
            const size_t shift = g0.length - g1.length;
            subtract(&v0, &v1, factor, shift);
            subtract(&g0, &g1, factor, shift);
        }
        const poly g = g0, v = v0;
        g0 = g1, v0 = v1;
        g1 = g, v1 = v;
    }
    for (size_t k = 0; k < t; k++)
        polynomial[k] = 0;
    const uint64_t lead = inverse(v1.c[v1.length - 1]);
    while (g1.length >= v1.length) {
        const uint64_t factor = mul(g1.c[g1.length - 1], lead);
        const size_t shift = g1.length - v1.length;
        if (shift >= t)
            return m + 1;
        polynomial[shift] = factor;
        subtract(&g1, &v1, factor, shift);
    }
    if (g1.length != 0)
        return m + 1; /* the error locator does not divide: too many errors */
    size_t wrong = 0;
    for (size_t i = 0; i < m; i++)
        wrong += value_at(polynomial, t, points[i]) != values[i];
    return wrong <= (m - t) / 2 ? wrong : m + 1;
}
