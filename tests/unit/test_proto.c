/* SPDX-License-Identifier: MIT */
/*
 * Framing: whatever way the bytes come in, the same messages come out, and never more than the
 * limit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/frame.h"
#include "proto/interface.h"

static void check_in(const struct firn_frame_in *f)
{
	assert_true(f->start <= f->scanned && f->scanned <= f->end && f->end <= f->size);
	assert_null(memchr(f->buf + f->start, '\0', f->scanned - f->start));
}

static void feed(struct firn_frame_in *f, const void *bytes, size_t n)
{
	char *at;

	assert_true(firn_frame_in_space(f, &at) >= n);
	memcpy(at, bytes, n);
	firn_frame_in_commit(f, n);
	check_in(f);
}

static void expect(struct firn_frame_in *f, const char *text)
{
	char *msg;
	size_t len;

	assert_int_equal(firn_frame_in_next(f, &msg, &len), 1);
	assert_string_equal(msg, text);
	assert_int_equal(len, strlen(text));
	check_in(f);
}

static int next(struct firn_frame_in *f)
{
	char *msg;
	size_t len;

	return firn_frame_in_next(f, &msg, &len);
}

static void test_pieces(void **state)
{
	char buf[16];
	struct firn_frame_in f;

	(void)state;
	firn_frame_in_init(&f, buf, sizeof(buf));
	assert_int_equal(next(&f), 0);
	feed(&f, "{\"a", 3);
	assert_int_equal(next(&f), 0);
	assert_int_equal(next(&f), 0);
	feed(&f, "\":1}\0{}", 7);
	expect(&f, "{\"a\":1}");
	assert_int_equal(next(&f), 0);
	feed(&f, "\0[1]\0", 5);
	expect(&f, "{}");
	expect(&f, "[1]");
	assert_int_equal(next(&f), 0);
}

static void test_limit(void **state)
{
	char buf[8], bigger[16];
	struct firn_frame_in f;
	char *at;

	(void)state;
	firn_frame_in_init(&f, buf, sizeof(buf));
	feed(&f, "1234567\0", 8);
	expect(&f, "1234567");
	feed(&f, "1234567", 7);
	assert_int_equal(next(&f), 0);
	feed(&f, "8", 1);
	assert_int_equal(firn_frame_in_space(&f, &at), 0);
	assert_int_equal(next(&f), -EMSGSIZE);

	/* A bigger buffer takes what is pending along. */
	assert_int_equal(firn_frame_in_move(&f, bigger, 7), -EINVAL);
	assert_int_equal(firn_frame_in_move(&f, bigger, sizeof(bigger)), 0);
	check_in(&f);
	assert_int_equal(next(&f), 0);
	feed(&f, "9\0x\0", 4);
	expect(&f, "123456789");
	expect(&f, "x");
}

static void test_empty_message(void **state)
{
	char buf[8];
	struct firn_frame_in f;

	(void)state;
	firn_frame_in_init(&f, buf, sizeof(buf));
	feed(&f, "a\0\0b\0", 5);
	expect(&f, "a");
	assert_int_equal(next(&f), -EBADMSG);
	assert_int_equal(next(&f), -EBADMSG);
}

static void test_out(void **state)
{
	char buf[8];
	struct firn_frame_out f;
	const char *p;

	(void)state;
	firn_frame_out_init(&f, buf, sizeof(buf));
	assert_int_equal(firn_frame_out_pending(&f, &p), 0);
	assert_int_equal(firn_frame_out_put(&f, "", 0), -EINVAL);
	assert_int_equal(firn_frame_out_put(&f, "a\0b", 3), -EINVAL);
	assert_int_equal(firn_frame_out_put(&f, "12345678", 8), -ENOBUFS);
	assert_int_equal(firn_frame_out_put(&f, "1234", 4), 0);
	assert_int_equal(firn_frame_out_put(&f, "123", 3), -ENOBUFS);
	assert_int_equal(firn_frame_out_put(&f, "ab", 2), 0);
	assert_int_equal(firn_frame_out_pending(&f, &p), 8);
	assert_memory_equal(p, "1234\0ab\0", 8);
	firn_frame_out_consume(&f, 3);
	/* Room is made by moving what waits to the front. */
	assert_int_equal(firn_frame_out_put(&f, "xy", 2), 0);
	assert_int_equal(firn_frame_out_pending(&f, &p), 8);
	assert_memory_equal(p, "4\0ab\0xy\0", 8);
	firn_frame_out_consume(&f, 8);
	assert_int_equal(firn_frame_out_put(&f, "1234567", 7), 0);
}

/* Random bytes in random pieces against the obvious model: split the whole at its NULs. */
static void test_random(void **state)
{
	unsigned int seed = 20240229;
	const char *given = getenv("FIRN_TEST_SEED");

	(void)state;
	if (given)
		seed = (unsigned int)strtoul(given, NULL, 10);
	print_message("seed %u\n", seed);
	srand(seed);
	for (int round = 0; round < 2000; round++) {
		char stream[512], buf[64];
		size_t size = 1 + (size_t)rand() % sizeof(buf),
		       length = (size_t)rand() % sizeof(stream);
		size_t sent = 0, model = 0;
		struct firn_frame_in f;
		int outcome = 0;

		for (size_t i = 0; i < length; i++)
			stream[i] = rand() % 8 ? (char)rand() : '\0';
		firn_frame_in_init(&f, buf, size);
		while (outcome >= 0 && sent < length) {
			char *at, *msg;
			size_t room = firn_frame_in_space(&f, &at), n, len;

			n = room ? 1 + (size_t)rand() % room : 0;
			if (n > length - sent)
				n = length - sent;
			memcpy(at, stream + sent, n);
			firn_frame_in_commit(&f, n);
			sent += n;
			check_in(&f);
			while ((outcome = firn_frame_in_next(&f, &msg, &len)) == 1) {
				assert_int_equal(strlen(msg), len);
				assert_memory_equal(msg, stream + model, len + 1);
				model += len + 1;
				assert_true(model <= sent);
			}
			check_in(&f);
			/* No message is held back, and each error has its cause. */
			if (outcome == 0)
				assert_null(memchr(stream + model, '\0', sent - model));
			else if (outcome == -EBADMSG)
				assert_true(stream[model] == '\0');
			else
				assert_true(outcome == -EMSGSIZE && sent - model == size &&
					    !memchr(stream + model, '\0', size));
		}
	}
}

static void test_names(void **state)
{
	static const char *const methods[] = {
		FIRN_METHOD_FREEZE, FIRN_METHOD_EVICT,    FIRN_METHOD_THAW,
		FIRN_METHOD_LIST,   FIRN_METHOD_SHOW,     FIRN_METHOD_EXPLAIN,
		FIRN_METHOD_RECLAIM, FIRN_METHOD_PRIORITY, FIRN_METHOD_RUN,
		FIRN_METHOD_STATS,  FIRN_METHOD_MONITOR,  FIRN_METHOD_PING,
		FIRN_METHOD_STOP,   FIRN_METHOD_GET_INFO, FIRN_METHOD_GET_DESCRIPTION,
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		char line[64], interface[64];
		const char *dot = strrchr(methods[i], '.');
		const char *text;

		assert_int_equal(firn_method_find(methods[i]), (int)i + 1);
		/* Each is described in its interface. */
		snprintf(interface, sizeof(interface), "%.*s", (int)(dot - methods[i]), methods[i]);
		text = firn_interface_description(interface);
		assert_non_null(text);
		snprintf(line, sizeof(line), "method %s(", dot + 1);
		assert_non_null(strstr(text, line));
	}
	assert_int_equal(firn_method_find(""), FIRN_CALL_UNKNOWN);
	assert_int_equal(firn_method_find("org.firn.Agent.freeze"), FIRN_CALL_UNKNOWN);
	assert_null(firn_interface_description("org.firn.Agents"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces),        cmocka_unit_test(test_limit),
		cmocka_unit_test(test_empty_message), cmocka_unit_test(test_out),
		cmocka_unit_test(test_random),        cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
