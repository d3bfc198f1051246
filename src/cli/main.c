/* SPDX-License-Identifier: MIT */
/*
 * firn: the command.  It asks the agent by way of libfirn and says what came of it.
 *
 * Results go to standard output, errors to standard error, one line each: what is wrong, and what
 * to do.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/types.h"
#include "cli/args.h"
#include "cli/decide.h"
#include "cli/print.h"
#include "cli/say.h"
#include "cli/top.h"
#include "firn/firn.h"

static const char help_main[] =
"Freeze and thaw the memory of live processes.\n"
"\n"
"usage: firn VERB [OPTION...] [TARGET...]\n"
"\n"
"  firn freeze TARGET...        stop processes and give their RAM back\n"
"  firn evict TARGET...         give their RAM back, but let them run: it returns page by page\n"
"  firn thaw TARGET... | --all  bring their memory back and let them run\n"
"  firn list                    what is frozen or evicted\n"
"  firn show PID                all that is known of one of them\n"
"  firn explain [TARGET...]     what the agent would do with them, or with all, and why\n"
"  firn reclaim SIZE            evict what matters less until so much memory is available\n"
"  firn priority TARGET N       what matters how much, 0 to 100\n"
"  firn run -- COMMAND          run a command with a priority, and memory for it\n"
"  firn stats                   what the agent did, counted\n"
"  firn monitor                 what it does, as it does it\n"
"  firn top                     a live table of processes, with keys to freeze and thaw\n"
"  firn check                   does this host have what Firn needs\n"
"  firn config check | show     is the configuration valid; what counts, and where it is set\n"
"  firn help [VERB]             this text, or a verb's\n"
"  firn --version\n"
"\n"
"TARGET is a PID, or a group, which is frozen and thawed as one: --tree PID (a process and its\n"
"descendants), --cgroup PATH, --unit NAME, --name PATTERN, or --container ID.\n"
"--json writes one line of JSON; --dry-run says what would be done.\n"
"Exit status: 0 done, 1 failed, 2 usage, 3 no such target, 4 refused, 5 not permitted,\n"
"6 no agent, 7 store, 8 kernel, 9 pages lost, 10 some of several targets failed.\n";

#define KINDS \
"\n" \
"--kind=copied: compressed, checked and encrypted.  direct: as it is, with almost no memory.\n"

#define PLACES \
"\n" \
"--place=store: to the store (default).  ram: keep it in memory, compressed.  ram,store: keep it\n" \
"there and move it to the store 300 s later, or so many as --after=SECONDS says, or when memory\n" \
"is short.\n"

#define TARGETS \
"\n" \
"Groups, all of whose processes are stopped before any is evicted; if one cannot be, none is:\n" \
"  --tree PID       a process and its descendants\n" \
"  --cgroup PATH    the processes of a control group and of those below it\n" \
"  --unit NAME      those of a systemd unit\n" \
"  --name PATTERN   those whose name, or program's name, matches, as in 'redis*'\n" \
"  --container ID   those of a container of Docker, Podman or Kubernetes; 4 digits or more\n" \
"\n" \
"--force: also what the configuration's never-list names (see firn config show).\n"

static const char help_freeze[] =
"usage: firn freeze [--wake] [--dry-run] [--force] [--json] [--kind KIND] [--place PLACE] PID... GROUP...\n"
"\n"
"Stop the targets, write their private memory to the store and give its RAM back.  They stay\n"
"stopped until firn thaw.\n"
"\n"
"--wake: thaw a target by itself when there is something for it to do: a connection, data, a\n"
"signal, the end of a child, a timer that is not a mere tick.  firn show says what it was.\n" TARGETS KINDS PLACES;

static const char help_evict[] =
"usage: firn evict [--dry-run] [--force] [--json] [--kind KIND] [--place PLACE] PID... GROUP...\n"
"\n"
"Write the targets' private memory to the store and give its RAM back, but let them run: what\n"
"they touch comes back by itself.\n" TARGETS KINDS PLACES;

static const char help_thaw[] =
"usage: firn thaw [--dry-run] [--json] PID... GROUP... | --all\n"
"\n"
"Bring the targets' memory back and let them run.  --all: whatever is frozen or evicted, also by\n"
"an agent that died.  A group (see firn help freeze) is found again by what it was named when it\n"
"was frozen, whoever is in it by now.\n";

static const char help_list[] =
"usage: firn list [--json]\n"
"\n"
"What is frozen or evicted.  TAKEN: memory that was evicted; OUT: what of it is not\n"
"in RAM now; PACK: what it takes in its PLACE, the store or memory.\n";
static const char help_show[] =
"usage: firn show [--json] PID\n"
"\n"
"All that is known of a frozen or evicted process, or of one that woke.\n";
static const char help_explain[] =
"usage: firn explain [--json] [PID... GROUP...]\n"
"\n"
"What the agent would do with a process now, which rule gives its priority, its place in the queue\n"
"of those that would give memory, what that would gain and cost; and whether it can be evicted.\n"
"Without a target: a table of all, those first that would give memory first.\n";
static const char help_reclaim[] =
"usage: firn reclaim [--priority N] [--timeout T] [--dry-run] [--json] SIZE\n"
"\n"
"Evict processes of a priority below N (50) until SIZE, as in 2G, is available; the lowest first,\n"
"the longest idle among them.  Fails, having said what each gave, where that is not enough.\n";
static const char help_priority[] =
"usage: firn priority [--dry-run] [--json] PID... GROUP... N\n"
"\n"
"Set the priority, 0 to 100, for as long as the process lives; higher matters more.  Only root raises\n"
"it above what the rules say.  --tree PID: of its descendants too.\n";
static const char help_run[] =
"usage: firn run [--dry-run] [--priority N] [--need SIZE] [--timeout T] [--] COMMAND [ARGUMENT...]\n"
"\n"
"Run a command with a priority, after SIZE of memory is available to it, as by firn reclaim.\n"
"Where that cannot be had, it is not run.\n";
static const char help_stats[] =
"usage: firn stats [--format text|json|openmetrics] [--json]\n"
"\n"
"What the agent did since it began: operations, refusals and their reasons, bytes, times.\n";
static const char help_monitor[] =
"usage: firn monitor\n"
"\n"
"Each thing that the agent does or decides, as one line of JSON, until interrupted.  Needs root.\n";
static const char help_top[] =
"usage: firn top\n"
"\n"
"A live table of processes: private memory, state, priority, idle time, faults, and what evicting\n"
"each would gain and cost. Keys: arrows choose, f freezes, e evicts, t thaws, + and - change the\n"
"priority, o the order, q quits.\n";
static const char help_check[] =
"usage: firn check [--json]\n"
"\n"
"Does this host's kernel and store have what is needed?\n";
static const char help_config[] =
"usage: firn config check [--json]\n"
"       firn config show [--json]\n"
"\n"
"check: is /etc/firn valid?  Every error, with its file and line.  show: every value that counts,\n"
"and where it is set; the rules in their order, the never-list among them.  See firn.conf(5).\n";
static const char help_help[] =
"usage: firn help [VERB]\n";

/* All that was to be written was: else the exit code says so. */
static int finish(int code)
{
	bool failed;
	int err;

	errno = 0;
	failed = fflush(stdout) == EOF || ferror(stdout);
	err = errno;
	if (close(STDOUT_FILENO) < 0 && !failed) {
		failed = true;
		err = errno;
	}
	if (!failed)
		return code;
	/* What went wrong earlier is not known any more. */
	firn_complain("cannot write to standard output%s%s", err ? ": " : "", err ? strerror(err) : "");
	return FIRN_FAILED;
}

/* Standard descriptors that are closed would be taken by our sockets; fill them with what fails or
 * is empty. */
static void fill_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDONLY);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

static bool can_write_stdout(void)
{
	int flags = fcntl(STDOUT_FILENO, F_GETFL);

	return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

static int do_change(const struct firn_args *a)
{
	const char *verb = firn_verb_name(a->verb);
	struct firn_progress_line line = { .verb = verb };
	struct firn_client *client;
	struct firn_result *result = NULL;
	struct firn_error e;
	unsigned int flags = (a->dry_run ? FIRN_DRY_RUN : 0) | (a->all ? FIRN_ALL : 0) | (a->ram ? FIRN_IN_RAM : 0) |
			     (a->move ? FIRN_MOVE : 0) | (a->force ? FIRN_FORCE : 0) | (a->wake ? FIRN_WAKE : 0) | a->kind;
	int r;

	r = firn_connect(&client, FIRN_CONNECT_START, &e);
	if (r != FIRN_OK)
		return firn_fail(a, &e);
	firn_progress_begin(client, &line);
	if (a->after >= 0)
		firn_move_after(client, (unsigned int)a->after);
	if (a->verb == FIRN_VERB_FREEZE)
		r = firn_freeze(client, a->targets, a->count, flags, &result, &e);
	else if (a->verb == FIRN_VERB_EVICT)
		r = firn_evict(client, a->targets, a->count, flags, &result, &e);
	else
		r = firn_thaw(client, a->targets, a->count, flags, &result, &e);
	firn_progress_end(&line);
	firn_close(client);
	if (r != FIRN_OK)
		return firn_fail(a, &e);
	if (a->json)
		printf("%s\n", firn_result_json(result));
	else if (firn_result_count(result) == 0)
		printf("nothing to %s\n", verb);
	else
		firn_print_groups(stdout, result);
	for (size_t i = 0; i < firn_result_count(result); i++) {
		const struct firn_target *t = firn_result_target(result, i);

		if (t->error.code)
			firn_complain_target(t);
		else if (!a->json)
			firn_print_done(stdout, verb, a->dry_run, t);
	}
	r = firn_result_code(result);
	firn_result_free(result);
	return r;
}

static int do_list(const struct firn_args *a)
{
	struct firn_client *client;
	struct firn_result *result;
	struct firn_error e;
	int r = firn_connect(&client, 0, &e);

	if (r == FIRN_NO_AGENT && strcmp(e.reason, "no-agent") == 0) {
		/* Without an agent, and without what one left behind, nothing is frozen. */
		printf(a->json ? "{\"targets\":[]}\n"
			       : "nothing found: no process is frozen or evicted\n");
		return FIRN_OK;
	}
	if (r != FIRN_OK)
		return firn_fail(a, &e);
	r = firn_list(client, &result, &e);
	firn_close(client);
	if (r != FIRN_OK)
		return firn_fail(a, &e);
	if (a->json)
		printf("%s\n", firn_result_json(result));
	else
		firn_print_list(stdout, result, firn_now_ms(), firn_want_colour());
	firn_result_free(result);
	return FIRN_OK;
}

static int do_show(const struct firn_args *a)
{
	struct firn_client *client;
	struct firn_result *result;
	struct firn_error e;
	int r = firn_connect(&client, 0, &e);

	if (r != FIRN_OK)
		return firn_fail(a, &e);
	r = firn_show(client, a->targets[0].pid, &result, &e);
	firn_close(client);
	if (r != FIRN_OK)
		return firn_fail(a, &e);
	if (a->json)
		printf("%s\n", firn_result_json(result));
	for (size_t i = 0; !a->json && i < firn_result_count(result); i++)
		firn_print_show(stdout, firn_result_target(result, i), firn_now_ms());
	firn_result_free(result);
	return FIRN_OK;
}

/* What the agent's program answers without an agent. */
static int run_agent(const struct firn_args *a, const char *option)
{
	char path[PATH_MAX];
	char what[32], json[] = "--json";
	char *argv[] = { path, what, a->json ? json : NULL, NULL };
	struct firn_error e;

	snprintf(what, sizeof(what), "%s", option);
	if (firn_find_agent(path, sizeof(path), &e) != FIRN_OK)
		return firn_fail(a, &e);
	/* What we ignore, it shall not. */
	signal(SIGPIPE, SIG_DFL);
	execv(path, argv);
	firn_complain("cannot run %s: %s", path, strerror(errno));
	return FIRN_NO_AGENT;
}

static int do_top(const struct firn_args *a)
{
#ifdef FIRN_HAVE_CURSES
	return firn_do_top(a);
#else
	(void)a;
	firn_complain("this firn was built without ncurses: use firn explain and firn list");
	return FIRN_FAILED;
#endif
}

static int do_help(const struct firn_args *a)
{
	const char *text = help_main;

	switch (a->topic) {
	case FIRN_VERB_FREEZE:
		text = help_freeze;
		break;
	case FIRN_VERB_EVICT:
		text = help_evict;
		break;
	case FIRN_VERB_THAW:
		text = help_thaw;
		break;
	case FIRN_VERB_LIST:
		text = help_list;
		break;
	case FIRN_VERB_SHOW:
		text = help_show;
		break;
	case FIRN_VERB_EXPLAIN:
		text = help_explain;
		break;
	case FIRN_VERB_RECLAIM:
		text = help_reclaim;
		break;
	case FIRN_VERB_PRIORITY:
		text = help_priority;
		break;
	case FIRN_VERB_RUN:
		text = help_run;
		break;
	case FIRN_VERB_STATS:
		text = help_stats;
		break;
	case FIRN_VERB_MONITOR:
		text = help_monitor;
		break;
	case FIRN_VERB_TOP:
		text = help_top;
		break;
	case FIRN_VERB_CHECK:
		text = help_check;
		break;
	case FIRN_VERB_CONFIG:
		text = help_config;
		break;
	case FIRN_VERB_HELP:
		text = help_help;
		break;
	case FIRN_VERB_NONE:
	case FIRN_VERB_VERSION:
		break;
	}
	fputs(text, stdout);
	return FIRN_OK;
}

static int run(const struct firn_args *a)
{
	switch (a->verb) {
	case FIRN_VERB_FREEZE:
	case FIRN_VERB_EVICT:
	case FIRN_VERB_THAW:
		return do_change(a);
	case FIRN_VERB_LIST:
		return do_list(a);
	case FIRN_VERB_SHOW:
		return do_show(a);
	case FIRN_VERB_EXPLAIN:
		return firn_do_explain(a);
	case FIRN_VERB_RECLAIM:
		return firn_do_reclaim(a);
	case FIRN_VERB_PRIORITY:
		return firn_do_priority(a);
	case FIRN_VERB_RUN:
		return firn_do_run(a);
	case FIRN_VERB_STATS:
		return firn_do_stats(a);
	case FIRN_VERB_MONITOR:
		return firn_do_monitor(a);
	case FIRN_VERB_TOP:
		return do_top(a);
	case FIRN_VERB_CHECK:
		return run_agent(a, "--check");
	case FIRN_VERB_CONFIG:
		return run_agent(a, a->show ? "--config-show" : "--config-check");
	case FIRN_VERB_VERSION:
		printf("firn %s\n", firn_version());
		return FIRN_OK;
	case FIRN_VERB_HELP:
	case FIRN_VERB_NONE:
		break;
	}
	return do_help(a);
}

int main(int argc, char **argv)
{
	struct firn_args a;
	int r;

	setlocale(LC_CTYPE, "");
	fill_standard_descriptors();
	signal(SIGPIPE, SIG_IGN);
	r = firn_args_parse(argc, argv, &a);
	if (r != FIRN_OK) {
		firn_complain("%s", a.error);
	} else if (!can_write_stdout()) {
		/* Before anything is done that nobody could be told of. */
		firn_complain("standard output is closed, nothing was done: open it, or use >/dev/null");
		r = FIRN_FAILED;
	} else {
		r = finish(run(&a));
	}
	firn_args_done(&a);
	return r;
}
