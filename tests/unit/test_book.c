/* SPDX-License-Identifier: MIT */
/* The two files that the agent's control keeps: the book and the ledger. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/book.h"
#include "agent/ledger.h"
#include "policy/policy.h"

static char dir[64];

static int begin(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/firn-book-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int end(void **state)
{
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/book", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/ledger", dir);
	unlink(path);
	return rmdir(dir);       /* fails where anything else was left */
}

static void test_book(void **state)
{
	struct firn_book b;
	struct firn_entry *e;

	(void)state;
	assert_int_equal(firn_book_open(&b, dir), 0);
	for (int i = 500; i > 0; i--) {
		e = firn_book_make(&b, i, (uint64_t)i * 7);
		assert_non_null(e);
		e->priority = (uint8_t)(i % 101);
		e->has_priority = i % 2;
		e->tree = i % 3 == 0;
		e->stored_bytes = (uint64_t)i << 33;
		e->quick_returns = (uint32_t)i;
	}
	assert_ptr_equal(firn_book_make(&b, 77, 77 * 7), firn_book_find(&b, 77, 77 * 7));
	assert_null(firn_book_find(&b, 77, 1));
	b.changed = true;
	assert_int_equal(firn_book_save(&b), 0);
	firn_book_close(&b);

	assert_int_equal(firn_book_open(&b, dir), 0);
	assert_int_equal(b.n, 500);
	for (int i = 1; i <= 500; i++) {
		e = firn_book_find(&b, i, (uint64_t)i * 7);
		assert_non_null(e);
		assert_int_equal(e->priority, i % 101);
		assert_int_equal(e->has_priority, i % 2);
		assert_int_equal(e->tree, i % 3 == 0);
		assert_int_equal(e->stored_bytes, (uint64_t)i << 33);
		assert_int_equal(e->quick_returns, i);
	}
	/* Another process of that number. */
	e = firn_book_make(&b, 77, 1234);
	assert_int_equal(e->priority, 0);
	assert_null(firn_book_find(&b, 77, 77 * 7));
	/* Who is not there any more is forgotten; the last one takes the file along. */
	e->here = true;
	firn_book_sweep(&b);
	assert_int_equal(b.n, 1);
	assert_non_null(firn_book_find(&b, 77, 1234));
	firn_book_sweep(&b);
	assert_int_equal(b.n, 0);
	assert_int_equal(firn_book_save(&b), 0);
	firn_book_close(&b);
	assert_int_equal(firn_book_open(&b, dir), 0);
	assert_int_equal(b.n, 0);
	firn_book_close(&b);
}

static void put(const char *name, const char *text)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void test_damaged(void **state)
{
	static const char *const texts[] = {
		"", "x", "firn-book 1", "firn-book 1\n1 2 3\n", "firn-book 1\n-5 2 1 1 5 0 0 0 0 0 0\n",
		"firn-book 1\n5 2 1 1 500 0 0 0 0 0 0\n", "firn-ledger 1\n", "firn-ledger 1\n1 2 3\n",
		"firn-ledger 1\n1 2 3 4 5 6 7 8 9 10 99\n", "firn-ledger 1\n1 2 3 4 5 6 7 8 9 10 0\nnonsense\n",
	};
	struct firn_ledger l;
	struct firn_book b;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		put("book", texts[i]);
		assert_int_equal(firn_book_open(&b, dir), 0);
		assert_int_equal(b.n, 0);
		firn_book_close(&b);
		put("ledger", texts[i]);
		assert_int_equal(firn_ledger_open(&l, dir), 0);
		assert_int_equal(firn_ledger_total(&l), 0);
		assert_int_equal(l.n, 0);
		firn_ledger_close(&l);
	}
}

static void test_ledger(void **state)
{
	struct firn_budget_config config = { .daily_bytes = 1000, .carry_bytes = 1000, .warn_hundredths = 2000 };
	struct firn_ledger l;

	(void)state;
	assert_int_equal(firn_ledger_open(&l, dir), 0);
	assert_true(firn_ledger_left(&l) == FIRN_NO_LIMIT);
	firn_ledger_configure(&l, &config);
	firn_ledger_note(&l, 5, 50, "some name\n", 300);
	firn_ledger_note(&l, 6, 60, "", 200);
	firn_ledger_note(&l, 5, 50, "some name\n", 100);
	assert_int_equal(firn_ledger_left(&l), 400);
	firn_ledger_close(&l);

	/* Another agent goes on counting. */
	assert_int_equal(firn_ledger_open(&l, dir), 0);
	firn_ledger_configure(&l, &config);
	assert_int_equal(firn_ledger_left(&l), 400);
	assert_int_equal(firn_ledger_today(&l), 600);
	assert_int_equal(firn_ledger_written(&l, 5, 50), 400);
	assert_int_equal(firn_ledger_written(&l, 6, 60), 200);
	assert_int_equal(firn_ledger_written(&l, 6, 61), 0);
	firn_ledger_note(&l, 7, 70, "x", 5000);
	assert_int_equal(firn_ledger_left(&l), 0);
	for (int i = 0; i < 3000; i++)
		firn_ledger_note(&l, 1000 + i, 1, "many", 1);
	assert_true(l.n <= 1024);
	assert_int_equal(firn_ledger_total(&l), 600 + 5000 + 3000);
	assert_int_equal(firn_ledger_written(&l, 3999, 1), 1);
	firn_ledger_close(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_book, begin, end),
		cmocka_unit_test_setup_teardown(test_damaged, begin, end),
		cmocka_unit_test_setup_teardown(test_ledger, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
