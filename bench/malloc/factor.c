// SPDX-License-Identifier: MIT
/* Number theory on numbers that are allocated one by one: a walk x -> x^2 + c modulo a product of two primes, as
 * a factoring program does.  Every intermediate number is an object of 12 to 60 bytes that lives for one
 * operation; some are kept for a while, as such programs keep relations.
 *
 *   factor PERCENT */
#include "bench.h"

#define DIGIT_BITS 16
#define KEPT 4096

struct number {
	uint16_t refs, n;               /* n digits, the lowest first; no leading zero */
	uint16_t digit[];
};

static struct number *make(unsigned int n)
{
	struct number *x = take(sizeof(*x) + n * sizeof(x->digit[0]));

	x->refs = 1;
	x->n = (uint16_t)n;
	return x;
}

static void drop(struct number *x)
{
	if (x && !--x->refs)
		free(x);
}

static struct number *trim(struct number *x)
{
	while (x->n && !x->digit[x->n - 1])
		x->n--;
	return x;
}

static struct number *of(uint64_t value)
{
	struct number *x = make(4);

	for (unsigned int i = 0; i < 4; i++, value >>= DIGIT_BITS)
		x->digit[i] = (uint16_t)value;
	return trim(x);
}

static int compare(const struct number *a, const struct number *b)
{
	if (a->n != b->n)
		return a->n < b->n ? -1 : 1;
	for (unsigned int i = a->n; i--;) {
		if (a->digit[i] != b->digit[i])
			return a->digit[i] < b->digit[i] ? -1 : 1;
	}
	return 0;
}

static struct number *add(const struct number *a, const struct number *b)
{
	const struct number *l = a->n >= b->n ? a : b, *s = l == a ? b : a;
	struct number *x = make(l->n + 1u);
	uint32_t carry = 0;

	for (unsigned int i = 0; i < l->n; i++) {
		carry += l->digit[i] + (i < s->n ? s->digit[i] : 0u);
		x->digit[i] = (uint16_t)carry;
		carry >>= DIGIT_BITS;
	}
	x->digit[l->n] = (uint16_t)carry;
	return trim(x);
}

static struct number *difference(const struct number *a, const struct number *b)
{
	const struct number *l = compare(a, b) >= 0 ? a : b, *s = l == a ? b : a;
	struct number *x = make(l->n);
	int32_t borrow = 0;

	for (unsigned int i = 0; i < l->n; i++) {
		int32_t d = l->digit[i] - (i < s->n ? s->digit[i] : 0) - borrow;

		borrow = d < 0;
		x->digit[i] = (uint16_t)d;
	}
	return trim(x);
}

static struct number *multiply(const struct number *a, const struct number *b)
{
	struct number *x = make(a->n + (unsigned int)b->n);

	memset(x->digit, 0, x->n * sizeof(x->digit[0]));
	for (unsigned int i = 0; i < a->n; i++) {
		uint32_t carry = 0;

		for (unsigned int j = 0; j < b->n; j++) {
			carry += x->digit[i + j] + (uint32_t)a->digit[i] * b->digit[j];
			x->digit[i + j] = (uint16_t)carry;
			carry >>= DIGIT_BITS;
		}
		x->digit[i + b->n] = (uint16_t)carry;
	}
	return trim(x);
}

/* @a modulo @m, by long division: a copy of @a is reduced digit by digit. */
static struct number *modulo(const struct number *a, const struct number *m)
{
	struct number *x;
	uint32_t top;

	if (compare(a, m) < 0) {
		x = make(a->n);
		memcpy(x->digit, a->digit, a->n * sizeof(x->digit[0]));
		return x;
	}
	x = make(a->n + 1u);
	memcpy(x->digit, a->digit, a->n * sizeof(x->digit[0]));
	x->digit[a->n] = 0;
	top = m->digit[m->n - 1] + 1u;
	for (unsigned int i = a->n + 1u - m->n; i--;) {
		/* The estimate is never too large; what it leaves is taken in further turns. */
		for (;;) {
			uint32_t head = (uint32_t)x->digit[i + m->n] << DIGIT_BITS | x->digit[i + m->n - 1];
			uint32_t q = head / top;
			int64_t carry = 0;

			if (!q) {
				unsigned int j = m->n;

				if (x->digit[i + m->n])
					q = 1;
				while (!q && j--) {
					if (x->digit[i + j] != m->digit[j])
						break;
				}
				if (!q && j != UINT32_MAX && x->digit[i + j] < m->digit[j])
					break;
				q = 1;
			}
			for (unsigned int j = 0; j < m->n; j++) {
				carry += x->digit[i + j] - (int64_t)q * m->digit[j];
				x->digit[i + j] = (uint16_t)carry;
				carry >>= DIGIT_BITS;
			}
			x->digit[i + m->n] = (uint16_t)(x->digit[i + m->n] + carry);
		}
	}
	return trim(x);
}

/* Both arguments of these are dropped: what a chain of operations leaves between them. */
static struct number *reduced(struct number *a, const struct number *m)
{
	struct number *x = modulo(a, m);

	drop(a);
	return x;
}

int main(int argc, char **argv)
{
	long turns = 16000 * argument(argc, argv, 1, 100);
	struct number *p = of(1099511627791), *q = of(281474976710677), *m = multiply(p, q), *c = of(7);
	struct number *x = of(2), *y = of(2), *product = of(1);
	static struct number *kept[KEPT];
	uint64_t sum = 0;

	for (long i = 0; i < turns; i++) {
		struct number *square = reduced(multiply(x, x), m), *next = add(square, c), *gap;

		drop(square);
		drop(x);
		x = reduced(next, m);
		gap = difference(x, y);
		next = multiply(product, gap);
		drop(gap);
		if (next->n) {
			drop(product);
			product = reduced(next, m);
		} else {
			drop(next);
		}
		if (!(i & 7)) {
			unsigned int at = (unsigned int)(i >> 3) % KEPT;

			drop(kept[at]);
			kept[at] = product;
			product->refs++;
		}
		if (!(i & (i - 1))) {
			drop(y);
			y = x;
			y->refs++;
		}
	}
	for (unsigned int i = 0; i < x->n; i++)
		sum = sum * 65537 + x->digit[i];
	printf("%016lx\n", (unsigned long)sum);
	return 0;
}
