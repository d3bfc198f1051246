/* SPDX-License-Identifier: MIT */
/*
 * Sizes, durations, percentages and numbers: what is right is right to the last byte, what is nearly right is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/size.h"

struct sample {
	const char *text;
	int result;
	uint64_t value;
};

static void check(const char *what, const struct sample *s, size_t n, int (*parse)(const char *, uint64_t *))
{
	for (size_t i = 0; i < n; i++) {
		uint64_t v = 0x5a5a;
		int r = parse(s[i].text, &v);

		if (r != s[i].result || v != (r ? 0x5a5a : s[i].value))
			fail_msg("%s '%s': %d, %llu", what, s[i].text, r, (unsigned long long)v);
	}
}

static void test_sizes(void **state)
{
	static const struct sample samples[] = {
		{ "0", 0, 0 },
		{ "4096", 0, 4096 },
		{ "4096B", 0, 4096 },
		{ "64K", 0, 65536 },
		{ "64KiB", 0, 65536 },
		{ "2GiB", 0, 2ull << 30 },
		{ "2G", 0, 2ull << 30 },
		{ "2g", 0, 2ull << 30 },
		{ "2gib", 0, 2ull << 30 },
		{ "2048M", 0, 2ull << 30 },
		{ "1.5G", 0, 3ull << 29 },
		{ "0.5K", 0, 512 },
		{ "1.000000001G", 0, (1ull << 30) + 1 },
		{ "0.0001K", 0, 0 },
		{ "3T", 0, 3ull << 40 },
		{ "1PiB", 0, 1ull << 50 },
		{ "15E", 0, 15ull << 60 },
		{ "15.999999999E", 0, (uint64_t)(((unsigned __int128)15999999999u << 60) / 1000000000u) },
		{ "18446744073709551615", 0, UINT64_MAX },
		{ "007", 0, 7 },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "99999999999999999999999999", -ERANGE, 0 },
		{ "16E", -ERANGE, 0 },
		{ "20000000000000000K", -ERANGE, 0 },
		{ "99999999999999999999Q", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
		{ " ", -EINVAL, 0 },
		{ "G", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },
		{ "-0", -EINVAL, 0 },
		{ "2Q", -EINVAL, 0 },
		{ "2 G", -EINVAL, 0 },
		{ "2G ", -EINVAL, 0 },
		{ " 2G", -EINVAL, 0 },
		{ "2GB", -EINVAL, 0 },
		{ "2KB", -EINVAL, 0 },
		{ "2Gi", -EINVAL, 0 },
		{ "2GiBB", -EINVAL, 0 },
		{ "2GG", -EINVAL, 0 },
		{ "1.5", -EINVAL, 0 },
		{ "1.5B", -EINVAL, 0 },
		{ "1.", -EINVAL, 0 },
		{ "1.G", -EINVAL, 0 },
		{ ".5G", -EINVAL, 0 },
		{ "1.5.5G", -EINVAL, 0 },
		{ "1.0000000001G", -EINVAL, 0 },
		{ "1,5G", -EINVAL, 0 },
		{ "1e3", -EINVAL, 0 },
		{ "0x10", -EINVAL, 0 },
		{ "inf", -EINVAL, 0 },
		{ "nan", -EINVAL, 0 },
		{ "5%", -EINVAL, 0 },
		{ "90s", -EINVAL, 0 },
	};

	(void)state;
	check("size", samples, ARRAY_SIZE(samples), firn_size_parse);
}

static void test_durations(void **state)
{
	static const struct sample samples[] = {
		{ "0", 0, 0 },
		{ "0s", 0, 0 },
		{ "500ms", 0, 500000000ull },
		{ "90s", 0, 90000000000ull },
		{ "5min", 0, 300000000000ull },
		{ "5m", 0, 300000000000ull },
		{ "2h", 0, 7200000000000ull },
		{ "1.5h", 0, 5400000000000ull },
		{ "7d", 0, 604800000000000ull },
		{ "1w", 0, 604800000000000ull },
		{ "3us", 0, 3000 },
		{ "3ns", 0, 3 },
		{ "0.000000001s", 0, 1 },
		{ "100000000d", -ERANGE, 0 },
		{ "99999999999999999999s", -ERANGE, 0 },
		{ "99999999999999999999", -EINVAL, 0 },
		{ "90", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
		{ "s", -EINVAL, 0 },
		{ "-5s", -EINVAL, 0 },
		{ "5 min", -EINVAL, 0 },
		{ "5Min", -EINVAL, 0 },
		{ "5M", -EINVAL, 0 },
		{ "5S", -EINVAL, 0 },
		{ "1.5ns", -EINVAL, 0 },
		{ "1h30min", -EINVAL, 0 },
		{ "2G", -EINVAL, 0 },
		{ "1y", -EINVAL, 0 },
	};

	(void)state;
	check("duration", samples, ARRAY_SIZE(samples), firn_duration_parse);
}

static int percent(const char *text, uint64_t *ret)
{
	uint32_t v;
	int r = firn_percent_parse(text, &v);

	if (!r)
		*ret = v;
	return r;
}

static void test_percentages(void **state)
{
	static const struct sample samples[] = {
		{ "0%", 0, 0 },         { "5%", 0, 500 },         { "12.5%", 0, 1250 },     { "0.01%", 0, 1 },
		{ "100%", 0, 10000 },   { "250%", 0, 25000 },     { "1000000%", 0, 100000000 },
		{ "1000001%", -ERANGE, 0 }, { "1000000.01%", -ERANGE, 0 }, { "99999999999999999999%", -ERANGE, 0 },
		{ "5", -EINVAL, 0 },    { "%", -EINVAL, 0 },      { "", -EINVAL, 0 },       { "-5%", -EINVAL, 0 },
		{ "5 %", -EINVAL, 0 },  { "5%%", -EINVAL, 0 },    { "0.001%", -EINVAL, 0 }, { "5.%", -EINVAL, 0 },
	};

	(void)state;
	check("percentage", samples, ARRAY_SIZE(samples), percent);
}

static void test_numbers(void **state)
{
	static const struct {
		const char *text;
		int result;
		int64_t value;
	} samples[] = {
		{ "0", 0, 0 },           { "100", 0, 100 },       { "-1000", 0, -1000 },
		{ "-1001", -ERANGE, 0 }, { "101", -ERANGE, 0 },   { "9223372036854775808", -ERANGE, 0 },
		{ "99999999999999999999", -ERANGE, 0 },           { "", -EINVAL, 0 },
		{ "-", -EINVAL, 0 },     { "+1", -EINVAL, 0 },    { "1.5", -EINVAL, 0 },
		{ "12x", -EINVAL, 0 },   { " 1", -EINVAL, 0 },    { "--1", -EINVAL, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		int64_t v = 77;
		int r = firn_number_parse(samples[i].text, -1000, 100, &v);

		if (r != samples[i].result || v != (r ? 77 : samples[i].value))
			fail_msg("number '%s': %d, %lld", samples[i].text, r, (long long)v);
	}
}

/* What is printed is the same value, exactly. */
static void test_printed(void **state)
{
	char buf[FIRN_SIZE_TEXT];

	(void)state;
	assert_string_equal(firn_size_print(buf, 0), "0");
	assert_string_equal(firn_size_print(buf, 1), "1");
	assert_string_equal(firn_size_print(buf, 1536), "1536");
	assert_string_equal(firn_size_print(buf, 3ull << 29), "1536MiB");
	assert_string_equal(firn_size_print(buf, 2ull << 30), "2GiB");
	assert_string_equal(firn_size_print(buf, UINT64_MAX), "18446744073709551615");
	assert_string_equal(firn_duration_print(buf, 0), "0");
	assert_string_equal(firn_duration_print(buf, 90000000000ull), "90s");
	assert_string_equal(firn_duration_print(buf, 300000000000ull), "5min");
	assert_string_equal(firn_duration_print(buf, 1500000ull), "1500us");
	assert_string_equal(firn_duration_print(buf, UINT64_MAX), "18446744073709551615ns");
	assert_string_equal(firn_percent_print(buf, 500), "5%");
	assert_string_equal(firn_percent_print(buf, 1250), "12.5%");
	assert_string_equal(firn_percent_print(buf, 1), "0.01%");
	assert_string_equal(firn_percent_print(buf, UINT32_MAX), "42949672.95%");
	srandom(20);
	for (int i = 0; i < 20000; i++) {
		uint64_t v = ((uint64_t)random() << 33 ^ (uint64_t)random()) >> (random() % 63), back;
		uint32_t p = (uint32_t)(v % 1000000), pback;

		assert_int_equal(firn_size_parse(firn_size_print(buf, v), &back), 0);
		assert_int_equal(back, v);
		assert_int_equal(firn_duration_parse(firn_duration_print(buf, v), &back), 0);
		assert_int_equal(back, v);
		assert_int_equal(firn_percent_parse(firn_percent_print(buf, p), &pback), 0);
		assert_int_equal(pback, p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),   cmocka_unit_test(test_durations), cmocka_unit_test(test_percentages),
		cmocka_unit_test(test_numbers), cmocka_unit_test(test_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
