/* SPDX-License-Identifier: MIT */
#include "base/size.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

struct unit {
	const char *name;
	uint64_t factor;
};

/* The print functions take the first that divides, so the largest comes first. */
static const struct unit sizes[] = {
	{ "EiB", 1ull << 60 }, { "PiB", 1ull << 50 }, { "TiB", 1ull << 40 }, { "GiB", 1ull << 30 },
	{ "MiB", 1ull << 20 }, { "KiB", 1ull << 10 }, { "E", 1ull << 60 },   { "P", 1ull << 50 },
	{ "T", 1ull << 40 },   { "G", 1ull << 30 },   { "M", 1ull << 20 },   { "K", 1ull << 10 },
	{ "B", 1 },
};

static const struct unit durations[] = {
	{ "d", 86400000000000ull }, { "h", 3600000000000ull }, { "min", 60000000000ull }, { "s", 1000000000ull },
	{ "ms", 1000000ull },       { "us", 1000ull },         { "ns", 1 },               { "m", 60000000000ull },
	{ "w", 604800000000000ull },
};

/* Digits, a point and digits, taken from *@text.  The fraction is in billionths: further digits cannot matter
 * below 2^60, and are refused. */
static int number(const char **text, uint64_t *ret_whole, uint64_t *ret_billionths, unsigned int *ret_digits)
{
	const char *p = *text;
	uint64_t whole = 0, part = 0, place = 100000000;
	bool over = false;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		over = over || __builtin_mul_overflow(whole, 10u, &whole) ||
		       __builtin_add_overflow(whole, (unsigned int)(*p - '0'), &whole);
	}
	*ret_digits = 0;
	if (*p == '.') {
		for (p++; *p >= '0' && *p <= '9'; p++) {
			if (++*ret_digits > 9)
				return -EINVAL;
			part += place * (unsigned int)(*p - '0');
			place /= 10;
		}
		if (!*ret_digits)
			return -EINVAL;
	}
	*text = p;
	*ret_whole = whole;
	*ret_billionths = part;
	return over ? -ERANGE : 0;
}

/* whole.billionths times @factor, rounded down. */
static int multiply(uint64_t whole, uint64_t billionths, uint64_t factor, uint64_t *ret)
{
	unsigned __int128 v = (unsigned __int128)whole * factor + (unsigned __int128)billionths * factor / 1000000000u;

	if (v > UINT64_MAX)
		return -ERANGE;
	*ret = (uint64_t)v;
	return 0;
}

static int parse(const char *text, const struct unit *units, size_t n, bool any_case, bool *ret_bare, uint64_t *ret)
{
	uint64_t whole, part;
	unsigned int digits;
	int err = number(&text, &whole, &part, &digits);

	if (err == -EINVAL)
		return err;
	*ret_bare = !*text;
	if (!*text) {
		if (digits)
			return -EINVAL;
		*ret = whole;
		return err;
	}
	for (size_t i = 0; i < n; i++) {
		if (any_case ? strcasecmp(text, units[i].name) : strcmp(text, units[i].name))
			continue;
		if (digits && units[i].factor == 1)
			return -EINVAL;
		return err ? err : multiply(whole, part, units[i].factor, ret);
	}
	return -EINVAL;
}

int firn_size_parse(const char *text, uint64_t *ret_bytes)
{
	uint64_t v;
	bool bare;
	int err = parse(text, sizes, ARRAY_SIZE(sizes), true, &bare, &v);

	if (!err)
		*ret_bytes = v;
	return err;
}

int firn_duration_parse(const char *text, uint64_t *ret_ns)
{
	uint64_t v;
	bool bare;
	int err = parse(text, durations, ARRAY_SIZE(durations), false, &bare, &v);

	if (!err && bare && v)
		return -EINVAL;
	if (!err)
		*ret_ns = v;
	return err == -ERANGE && bare ? -EINVAL : err;
}

int firn_percent_parse(const char *text, uint32_t *ret_hundredths)
{
	uint64_t whole, part;
	unsigned int digits;
	int err = number(&text, &whole, &part, &digits);

	if (err == -EINVAL || strcmp(text, "%") || digits > 2)
		return -EINVAL;
	if (err || whole > 1000000 || (whole == 1000000 && part))
		return -ERANGE;
	*ret_hundredths = (uint32_t)(whole * 100 + part / 10000000);
	return 0;
}

int firn_number_parse(const char *text, int64_t min, int64_t max, int64_t *ret)
{
	bool negative = *text == '-';
	const char *p = text + negative;
	uint64_t whole, part;
	unsigned int digits;
	int64_t v;
	int err = number(&p, &whole, &part, &digits);

	if (err == -EINVAL || *p || digits)
		return -EINVAL;
	if (err || whole > INT64_MAX)
		return -ERANGE;
	v = negative ? -(int64_t)whole : (int64_t)whole;
	if (v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

/* Decimal digits of @v at @p; returns what follows them. */
static char *digits(char *p, uint64_t v)
{
	char reversed[20];
	unsigned int n = 0;

	do
		reversed[n++] = (char)('0' + v % 10);
	while (v /= 10);
	while (n)
		*p++ = reversed[--n];
	*p = 0;
	return p;
}

static const char *print(char *buf, uint64_t v, const struct unit *units, size_t n)
{
	for (size_t i = 0; v && i < n; i++) {
		if (v % units[i].factor)
			continue;
		strcpy(digits(buf, v / units[i].factor), units[i].name);
		return buf;
	}
	digits(buf, v);
	return buf;
}

const char *firn_size_print(char buf[FIRN_SIZE_TEXT], uint64_t bytes)
{
	return print(buf, bytes, sizes, 6);
}

const char *firn_duration_print(char buf[FIRN_SIZE_TEXT], uint64_t ns)
{
	return print(buf, ns, durations, 7);
}

const char *firn_percent_print(char buf[FIRN_SIZE_TEXT], uint32_t hundredths)
{
	char *p = digits(buf, hundredths / 100);
	unsigned int part = hundredths % 100;

	if (part) {
		*p++ = '.';
		*p++ = (char)('0' + part / 10);
		if (part % 10)
			*p++ = (char)('0' + part % 10);
	}
	strcpy(p, "%");
	return buf;
}
