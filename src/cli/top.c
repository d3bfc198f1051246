/* SPDX-License-Identifier: MIT */
/*
 * The screen of firn top.  What takes long (the agent's answer, a freeze) is done by a thread of its own, so that keys
 * are answered at once; the screen belongs to the main thread.
 */
#include "cli/top.h"

#include <curses.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/print.h"
#include "cli/say.h"

#define EVERY_MS 2000
#define KEYS_MS 100
#define HEAD 3                          /* lines above the table */

enum order_to_do {
	NOTHING,
	LOOK,
	FREEZE,
	EVICT,
	THAW,
	RANK,
};

struct top {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool ending;
	/* For the worker. */
	enum order_to_do wanted;
	pid_t pid;
	int priority;
	/* From it. */
	struct firn_result *fresh;
	char said[600];
	bool busy;
	struct firn_error error;
	bool failed;                    /* there is no agent to ask any more */
	/* The screen's own. */
	struct firn_result *shown;
	const struct firn_target **rows;
	size_t n, selected, first;
	pid_t selected_pid;
	enum firn_top_order order;
};

static void said(struct top *t, const char *fmt, ...) FIRN_PRINTF(2, 3);
static void said(struct top *t, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&t->lock);
	firn_print_escaped(t->said, sizeof(t->said), text, 140);
	pthread_mutex_unlock(&t->lock);
}

static void act(struct top *t, struct firn_client *client, enum order_to_do what, pid_t pid, int priority)
{
	struct firn_selector target = { .what = FIRN_SELECT_PID, .pid = pid };
	struct firn_result *result = NULL;
	const struct firn_target *one;
	struct firn_error e;
	char size[16];
	int r;

	if (what == FREEZE)
		r = firn_freeze(client, &target, 1, 0, &result, &e);
	else if (what == EVICT)
		r = firn_evict(client, &target, 1, 0, &result, &e);
	else if (what == THAW)
		r = firn_thaw(client, &target, 1, 0, &result, &e);
	else
		r = firn_set_priority(client, &target, 1, priority, 0, &result, &e);
	one = r == FIRN_OK ? firn_result_target(result, 0) : NULL;
	if (r != FIRN_OK)
		said(t, "%s", e.message);
	else if (one && one->error.code)
		said(t, "%s", one->error.message ? one->error.message : "failed");
	else if (what == RANK)
		said(t, "%d has priority %d", (int)pid, priority);
	else if (one && what == THAW)
		said(t, "%d is back", (int)pid);
	else if (one)
		said(t, "%d %s: %s given", (int)pid, what == FREEZE ? "frozen" : "evicted",
		     firn_print_size(size, sizeof(size), (double)(one->memory.before - one->memory.after)));
	firn_result_free(result);
}

static bool look(struct top *t, struct firn_client *client)
{
	struct firn_result *result;
	struct firn_error e;
	int r = firn_explain(client, NULL, 0, &result, &e);

	pthread_mutex_lock(&t->lock);
	if (r == FIRN_OK) {
		firn_result_free(t->fresh);
		t->fresh = result;
	} else {
		t->failed = true;
		t->error = e;
	}
	pthread_mutex_unlock(&t->lock);
	return r == FIRN_OK;
}

static void *work(void *arg)
{
	struct top *t = arg;
	struct firn_client *client = NULL;
	struct firn_error e;
	bool good = firn_connect(&client, FIRN_CONNECT_START, &e) == FIRN_OK;

	pthread_mutex_lock(&t->lock);
	if (!good) {
		t->failed = true;
		t->error = e;
	}
	while (good && !t->ending) {
		enum order_to_do what = t->wanted;
		pid_t pid = t->pid;
		int priority = t->priority;

		if (what == NOTHING) {
			pthread_cond_wait(&t->changed, &t->lock);
			continue;
		}
		t->wanted = NOTHING;
		t->busy = what != LOOK;
		pthread_mutex_unlock(&t->lock);
		if (what != LOOK)
			act(t, client, what, pid, priority);
		good = look(t, client);
		pthread_mutex_lock(&t->lock);
		t->busy = false;
	}
	pthread_mutex_unlock(&t->lock);
	firn_close(client);
	return NULL;
}

/* One thing at a time: what is asked for while something is done is not remembered. */
static void want(struct top *t, enum order_to_do what, pid_t pid, int priority)
{
	pthread_mutex_lock(&t->lock);
	if (!t->busy && (what != LOOK || t->wanted == NOTHING)) {
		t->wanted = what;
		t->pid = pid;
		t->priority = priority;
		if (what != LOOK)
			snprintf(t->said, sizeof(t->said), "%s %d ...",
				 what == FREEZE ? "freezing" : what == EVICT ? "evicting" : what == THAW ? "thawing" : "setting",
				 (int)pid);
	}
	pthread_cond_signal(&t->changed);
	pthread_mutex_unlock(&t->lock);
}

/* Show what the worker brought; who was selected stays so. */
static void take_fresh(struct top *t)
{
	const struct firn_target **rows;
	struct firn_result *fresh;
	size_t n;

	pthread_mutex_lock(&t->lock);
	fresh = t->fresh;
	t->fresh = NULL;
	pthread_mutex_unlock(&t->lock);
	if (!fresh)
		return;
	n = firn_result_count(fresh);
	rows = calloc(n ? n : 1, sizeof(*rows));
	if (!rows) {
		firn_result_free(fresh);
		return;
	}
	free(t->rows);
	firn_result_free(t->shown);
	t->shown = fresh;
	t->rows = rows;
	t->n = n;
	for (size_t i = 0; i < n; i++)
		rows[i] = firn_result_target(fresh, i);
}

static void arrange(struct top *t)
{
	if (t->order == FIRN_TOP_QUEUE)
		for (size_t i = 0; i < t->n; i++)
			t->rows[i] = firn_result_target(t->shown, i);
	firn_top_sort(t->rows, t->n, t->order);
	for (size_t i = 0; i < t->n; i++)
		if (t->rows[i]->pid == t->selected_pid)
			t->selected = i;
	if (t->selected >= t->n)
		t->selected = t->n ? t->n - 1 : 0;
	t->selected_pid = t->n ? t->rows[t->selected]->pid : 0;
}

static void put(int y, int columns, attr_t how, const char *text)
{
	attrset(how);
	mvaddnstr(y, 0, text, -1);
	/* A bar goes to the edge. */
	if (how & A_REVERSE)
		for (int x = getcurx(stdscr); x < columns && getcury(stdscr) == y; x++)
			addch(' ');
	attrset(A_NORMAL);
}

static attr_t how_shown(const struct firn_target *target)
{
	if (!has_colors() || !target->state)
		return A_NORMAL;
	if (!strcmp(target->state, "frozen"))
		return COLOR_PAIR(1);
	if (!strcmp(target->state, "evicted"))
		return COLOR_PAIR(2);
	return A_NORMAL;
}

static void draw(struct top *t)
{
	static const char *const orders[] = { "queue", "size", "idle", "priority", "pid" };
	char text[2048], a[16], b[16], c[16];
	int lines, columns, rows;

	getmaxyx(stdscr, lines, columns);
	rows = lines - HEAD - 2;
	erase();
	if (t->shown) {
		const char *host = firn_result_text(t->shown, "text");
		char shown[1024];

		snprintf(text, sizeof(text), "memory %s, available %s; budget left %s; by %s",
			 firn_print_size(a, sizeof(a), (double)firn_result_number(t->shown, "total")),
			 firn_print_size(b, sizeof(b), (double)firn_result_number(t->shown, "available")),
			 firn_print_size(c, sizeof(c), (double)firn_result_number(t->shown, "budgetLeft")), orders[t->order]);
		put(0, columns, A_BOLD, text);
		firn_print_escaped(shown, sizeof(shown), host ? host : "", columns - 1);
		put(1, columns, A_NORMAL, shown);
	} else {
		put(0, columns, A_NORMAL, "asking the agent ...");
	}
	firn_top_head(text, sizeof(text), columns);
	put(2, columns, A_REVERSE, text);
	if (rows > 0 && t->selected < t->first)
		t->first = t->selected;
	if (rows > 0 && t->selected >= t->first + (size_t)rows)
		t->first = t->selected - (size_t)rows + 1;
	for (int i = 0; i < rows && t->first + (size_t)i < t->n; i++) {
		const struct firn_target *target = t->rows[t->first + (size_t)i];
		bool here = t->first + (size_t)i == t->selected;

		firn_top_line(text, sizeof(text), columns, target);
		put(HEAD + i, columns, here ? A_REVERSE : how_shown(target), text);
	}
	if (lines > HEAD + 2) {
		const char *why = t->n ? t->rows[t->selected]->policy.text : NULL;

		pthread_mutex_lock(&t->lock);
		snprintf(text, sizeof(text), "%s", t->said);
		pthread_mutex_unlock(&t->lock);
		if (!*text && why)
			firn_print_escaped(text, sizeof(text), why, columns - 1);
		put(lines - 2, columns, A_NORMAL, text);
		snprintf(text, sizeof(text), "%.*s", columns - 1,
			 "q quit  arrows choose  f freeze  e evict  t thaw  + - priority  o order");
		put(lines - 1, columns, A_DIM, text);
	}
	refresh();
}

static void choose(struct top *t, long by)
{
	long at = (long)t->selected + by;

	t->selected = at < 0 ? 0 : (size_t)at;
	if (t->n && t->selected >= t->n)
		t->selected = t->n - 1;
	t->selected_pid = t->n ? t->rows[t->selected]->pid : 0;
	pthread_mutex_lock(&t->lock);
	t->said[0] = 0;
	pthread_mutex_unlock(&t->lock);
}

/* Returns false for the end. */
static bool key(struct top *t, int k)
{
	const struct firn_target *at = t->n ? t->rows[t->selected] : NULL;
	int priority = at ? (int)at->policy.priority : 0;

	switch (k) {
	case 'q':
	case 'Q':
	case 27:
		return false;
	case KEY_UP:
	case 'k':
		choose(t, -1);
		break;
	case KEY_DOWN:
	case 'j':
		choose(t, 1);
		break;
	case KEY_PPAGE:
		choose(t, -10);
		break;
	case KEY_NPAGE:
		choose(t, 10);
		break;
	case KEY_HOME:
		choose(t, -(long)t->n);
		break;
	case KEY_END:
		choose(t, (long)t->n);
		break;
	case 'o':
	case 's':
		t->order = (t->order + 1) % FIRN_TOP_ORDERS;
		arrange(t);
		break;
	case 'f':
	case 'e':
	case 't':
		if (at)
			want(t, k == 'f' ? FREEZE : k == 'e' ? EVICT : THAW, at->pid, 0);
		break;
	case '+':
	case '=':
	case '-':
		priority += k == '-' ? -5 : 5;
		if (at)
			want(t, RANK, at->pid, priority < 0 ? 0 : priority > 100 ? 100 : priority);
		break;
	default:
		break;
	}
	return true;
}

/* Ctrl-C and a kill are as q: the terminal is put right, and what was asked for comes to its end. */
static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
	(void)number;
	interrupted = 1;
}

int firn_do_top(const struct firn_args *a)
{
	struct sigaction on_interrupt = { .sa_handler = interrupt };
	struct top t = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
	int since = EVERY_MS, r = FIRN_OK;
	SCREEN *screen;
	bool going = true;
	pthread_t thread;

	if (!firn_is_terminal(STDOUT_FILENO) || !isatty(STDIN_FILENO)) {
		firn_complain("top needs a terminal: use firn explain --json, or firn list, in scripts");
		return FIRN_USAGE;
	}
	/* initscr() would end us for that, in words of its own. */
	screen = newterm(NULL, stdout, stdin);
	if (!screen) {
		firn_complain("the terminal's TERM is not known: set it to what it is, or use firn explain");
		return FIRN_USAGE;
	}
	def_prog_mode();
	sigemptyset(&on_interrupt.sa_mask);
	sigaction(SIGINT, &on_interrupt, NULL);
	sigaction(SIGTERM, &on_interrupt, NULL);
	if (pthread_create(&thread, NULL, work, &t)) {
		endwin();
		firn_complain("cannot start a thread: try again");
		return FIRN_FAILED;
	}
	if (firn_want_colour() && has_colors()) {
		start_color();
		use_default_colors();
		init_pair(1, COLOR_CYAN, -1);
		init_pair(2, COLOR_BLUE, -1);
	}
	cbreak();
	noecho();
	curs_set(0);
	set_escdelay(25);
	keypad(stdscr, TRUE);
	timeout(KEYS_MS);
	while (going) {
		int k;

		if (since >= EVERY_MS) {
			want(&t, LOOK, 0, 0);
			since = 0;
		}
		take_fresh(&t);
		arrange(&t);
		draw(&t);
		k = getch();
		if (k == ERR)
			since += KEYS_MS;
		else
			going = key(&t, k);
		pthread_mutex_lock(&t.lock);
		going = going && !t.failed && !interrupted;
		pthread_mutex_unlock(&t.lock);
	}
	endwin();
	pthread_mutex_lock(&t.lock);
	t.ending = true;
	pthread_cond_signal(&t.changed);
	pthread_mutex_unlock(&t.lock);
	pthread_join(thread, NULL);
	if (t.failed)
		r = firn_fail(a, &t.error);
	delscreen(screen);
	firn_result_free(t.fresh);
	firn_result_free(t.shown);
	free(t.rows);
	return r;
}
