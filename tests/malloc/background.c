/* SPDX-License-Identifier: MIT */
/* A program that leaves a sparse heap behind and neither allocates nor waits in a way that the library sees:
 * with FIRN_MALLOC_BACKGROUND=1 its heap is folded all the same, and that of its forked child. */
#include <time.h>

#include "m.h"

static void sleep_unseen(void)
{
	struct timespec t = { 0, 20000000 };

	syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &t, NULL);
}

/* Until pages are folded; 20 s, then it is no more a question of time. */
static void await_folds(void)
{
	for (int i = 0; i < 1000 && m_now().folded_pages < 100; i++)
		sleep_unseen();
}

static void folds(void)
{
	struct m_objects o = m_sparse(200000, 16, 440, 16, 1);
	pid_t pid;

	await_folds();
	if (m_folds())
		CHECK(m_now().folded_pages >= 100);
	m_check_all(&o);
	pid = fork();
	if (!pid) {
		m_check_all(&o);
		m_free_all(&o);
		o = m_sparse(200000, 16, 440, 16, 2);
		await_folds();
		if (m_folds())
			CHECK(m_now().folded_pages >= 100);
		m_check_all(&o);
		_exit(0);
	}
	m_reap(pid);
	m_check_all(&o);
}

static const struct m_case cases[] = {
	{ "folds", folds },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	return m_main(cases, argc, argv);
}
