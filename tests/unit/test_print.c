/* SPDX-License-Identifier: MIT */
/*
 * What people read: units, names that try to drive a terminal, lines with parts that are not known.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/print.h"
#include "cli/stats.h"

static void test_size(void **state)
{
	static const struct {
		double bytes;
		const char *text;
	} cases[] = {
		{ -1, "-" },
		{ 0, "0 B" },
		{ 1023, "1023 B" },
		{ 1024, "1.0 KiB" },
		{ 10188, "9.9 KiB" },
		{ 10189, "10 KiB" },
		{ 1048575, "1.0 MiB" },
		{ 432013312, "412 MiB" },
		{ 2.5 * (1 << 30), "2.5 GiB" },
		{ 18446744073709551615.0, "16 EiB" },
	};
	char buf[16];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(firn_print_size(buf, sizeof(buf), cases[i].bytes),
				    cases[i].text);
}

static void test_times(void **state)
{
	char buf[16];

	(void)state;
	assert_string_equal(firn_print_ms(buf, sizeof(buf), -1), "-");
	assert_string_equal(firn_print_ms(buf, sizeof(buf), 0.84), "0.8 ms");
	assert_string_equal(firn_print_ms(buf, sizeof(buf), 41.2), "41 ms");
	assert_string_equal(firn_print_ms(buf, sizeof(buf), 412.2), "0.41 s");
	assert_string_equal(firn_print_ms(buf, sizeof(buf), 12345), "12.3 s");
	assert_string_equal(firn_print_ms(buf, sizeof(buf), 140000), "140 s");
	assert_string_equal(firn_print_age(buf, sizeof(buf), -1), "-");
	assert_string_equal(firn_print_age(buf, sizeof(buf), 59.9), "59 s");
	assert_string_equal(firn_print_age(buf, sizeof(buf), 60), "1 min");
	assert_string_equal(firn_print_age(buf, sizeof(buf), 3600), "1 h");
	assert_string_equal(firn_print_age(buf, sizeof(buf), 100 * 86400.0), "100 d");
}

static void test_escaped(void **state)
{
	char buf[64];

	(void)state;
	assert_int_equal(firn_print_escaped(buf, sizeof(buf), "redis-server", 15), 12);
	assert_string_equal(buf, "redis-server");
	assert_int_equal(firn_print_escaped(buf, sizeof(buf),
					    "a\033[31m\n\x7f\xff"
					    "b",
					    15),
			 10);
	assert_string_equal(buf, "a?[31m???b");
}

static void test_escaped_cut(void **state)
{
	char buf[64], small[4];

	(void)state;
	assert_int_equal(firn_print_escaped(buf, sizeof(buf), "redis-server", 5), 5);
	assert_string_equal(buf, "redis");
	assert_int_equal(firn_print_escaped(small, sizeof(small), "redis-server", 15), 3);
	assert_string_equal(small, "red");
	assert_int_equal(firn_print_escaped(buf, sizeof(buf), "", 15), 0);
	assert_string_equal(buf, "");
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		skip();
	/* Two bytes, one column; two columns that no longer fit; a control character of two bytes;
	 * half a character. */
	assert_int_equal(firn_print_escaped(buf, sizeof(buf), "\xc3\xa9\xc3\xa9", 1), 1);
	assert_string_equal(buf, "\xc3\xa9");
	assert_int_equal(firn_print_escaped(small, sizeof(small), "ab\xc3\xa9", 15), 2);
	assert_string_equal(small, "ab");
	assert_int_equal(firn_print_escaped(buf, sizeof(buf), "\xe9\x9b\xaa\xe9\x9b\xaa", 3), 2);
	assert_string_equal(buf, "\xe9\x9b\xaa");
	assert_int_equal(firn_print_escaped(buf, sizeof(buf),
					    "\xc2\x9b"
					    "m\xe9\x9b",
					    9),
			 4);
	assert_string_equal(buf, "?m??");
	setlocale(LC_CTYPE, "C");
}

/* A target of which nothing is known. */
static struct firn_target unknown(void)
{
	struct firn_target t;

	memset(&t, 0, sizeof(t));
	t.pid = 1234;
	t.comm = "redis-server";
	t.since_ms = FIRN_UNKNOWN;
	t.pages.total = t.pages.evicted = t.pages.zero = t.pages.filled = FIRN_UNKNOWN;
	t.pages.resident = t.pages.removed = t.pages.lost = FIRN_UNKNOWN;
	t.pack.bytes = t.pack.blocks = t.pack.raw = t.pack.duplicates = t.pack.generation =
		FIRN_UNKNOWN;
	t.io.write_calls = t.io.write_bytes = t.io.read_calls = t.io.read_bytes = FIRN_UNKNOWN;
	t.io.blocks_read = t.io.faults = t.memory.before = t.memory.after = FIRN_UNKNOWN;
	t.ratio = t.ms.plan = t.ms.stop = t.ms.walk = t.ms.gather = t.ms.write = t.ms.arm =
		FIRN_UNKNOWN;
	t.ms.drop = t.ms.leave = t.ms.total = t.ms.run = t.ms.whole = FIRN_UNKNOWN;
	return t;
}

static void expect_done(const struct firn_target *t, const char *verb, bool dry_run,
			const char *line)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	firn_print_done(out, verb, dry_run, t);
	fclose(out);
	assert_string_equal(text, line);
	free(text);
}

static void test_done(void **state)
{
	struct firn_target t = unknown();

	(void)state;
	expect_done(&t, "freeze", false, "froze 1234 redis-server\n");
	expect_done(&t, "thaw", true, "would thaw 1234 redis-server\n");
	t.pages.total = (412 << 20) / sysconf(_SC_PAGESIZE);
	t.ms.total = 412;
	t.pack.bytes = 190 << 20;
	t.ratio = 2.17;
	t.io.write_calls = 24;
	expect_done(
		&t, "freeze", false,
		"froze 1234 redis-server: 412 MiB in 0.41 s, pack 190 MiB (ratio 2.2), 24 writes\n");
	t.io.write_calls = 1;
	expect_done(
		&t, "evict", false,
		"evicted 1234 redis-server: 412 MiB in 0.41 s, pack 190 MiB (ratio 2.2), 1 write\n");
	t.place = "ram";
	t.io.write_calls = 0;
	expect_done(&t, "evict", false,
		    "evicted 1234 redis-server: 412 MiB in 0.41 s, pack 190 MiB in RAM (ratio 2.2), 0 writes\n");
	expect_done(&t, "evict", true, "would evict 1234 redis-server: 412 MiB\n");
	t.ms.run = 33.1;
	t.ms.whole = 311;
	t.io.read_calls = 12;
	expect_done(
		&t, "thaw", false,
		"thawed 1234 redis-server: 412 MiB, ran after 33 ms, whole after 0.31 s, 12 reads\n");
}

static void test_show_unknown(void **state)
{
	struct firn_target t = unknown();
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	(void)state;
	assert_non_null(out);
	t.state = "evicted";
	firn_print_show(out, &t, 0);
	fclose(out);
	assert_string_equal(text, "1234 redis-server\n  state     evicted\n");
	free(text);
}

static void test_stats(void **state)
{
	static const char told[] =
		"# TYPE firn_started_seconds gauge\n"
		"firn_started_seconds 1000\n"
		"firn_operations_total{verb=\"freeze\",cause=\"request\"} 3\n"
		"firn_operations_total{verb=\"evict\",cause=\"policy\"} 12\n"
		"firn_failures_total{verb=\"evict\",cause=\"request\"} 1\n"
		"firn_failures_total{verb=\"evict\",cause=\"policy\"} 1\n"
		"firn_refusals_total{reason=\"traced\"} 2\n"
		"firn_refusals_total{reason=\"\033[2J\"} 1\n"
		"firn_evicted_bytes_total 67108864\n"
		"firn_freed_bytes_total 66060288\n"
		"firn_out_bytes 0\n"
		"firn_evict_seconds_sum 3\n"
		"firn_evict_seconds_count 15\n"
		"firn_targets{state=\"frozen\"} 2\n"
		"firn_targets{state=\"evicted\"} 0\n"
		"firn_lost_pages_total 1\n"
		"# EOF\n";
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	(void)state;
	firn_print_stats(f, told, 1180 * 1000);
	fclose(f);
	assert_non_null(strstr(text, "began 3 min ago\n"));
	assert_non_null(strstr(text, "freeze            3        0        0        0        0\n"));
	assert_non_null(strstr(text, "evict             0        0       12        0        2\n"));
	assert_non_null(strstr(text, "traced 2, ?[2J 1\n"));
	assert_non_null(strstr(text, "taken 64 MiB, given back 63 MiB; out now 0 B\n"));
	/* Not told: no budget, no PSI; a dash for the host. */
	assert_null(strstr(text, "budget"));
	assert_null(strstr(text, "pressure"));
	assert_non_null(strstr(text, "host       -, available -\n"));
	assert_non_null(strstr(text, "targets    2 frozen\n"));
	assert_non_null(strstr(text, "on average evict 0.20 s\n"));
	assert_non_null(strstr(text, "1 page could not be read back\n"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_size),    cmocka_unit_test(test_times),
		cmocka_unit_test(test_escaped), cmocka_unit_test(test_escaped_cut),
		cmocka_unit_test(test_done),    cmocka_unit_test(test_show_unknown),
		cmocka_unit_test(test_stats),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
