/* SPDX-License-Identifier: MIT */
/*
 * firnd: the data transfer agent.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/check.h"
#include "agent/config.h"
#include "agent/control.h"
#include "agent/job.h"
#include "agent/keeper.h"
#include "agent/live.h"
#include "agent/notify.h"
#include "agent/scope.h"
#include "agent/server.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/paths.h"
#include "pack/codec.h"
#include "sys/point.h"

#define IDLE_EXIT_S 10
#define KEPT_EXIT_S 3600                /* where packs are kept */
#define KEEP_PERCENT 50

struct options {
	bool foreground, check, config_check, config_show, json;
	bool store_encrypted;           /* by the disk: packs need not be */
	int idle_exit_s;                /* -1: the mode's default */
	const char *encryption, *keep;
	unsigned int keep_percent;
	struct firn_live live;
	const char *scope_text;
	struct firn_scope *scope;       /* where the agent runs; never freed */
};

struct places {
	char runtime[400], private[440], state[400], store[440];
};

static const char usage[] =
	"usage: firnd [--foreground] [--idle-exit SECONDS] [--encryption CIPHER] [--store-encrypted]\n"
	"             [--keep PERCENT] [--scope SCOPE] [--auto yes|no|dry-run] [--dry-run]\n"
	"       firnd --check [--json] | --config-check [--json] | --config-show [--json]\n"
	"       firnd --list-points | --version | --help\n"
	"CIPHER: aes-256-ocb (default), aes-256-gcm, or off\n"
	"PERCENT: of the store's free space, for packs kept after a thaw, so that the next eviction writes what changed (50)\n"
	"SCOPE: cgroup:PATH, tree:PID, user:NAME, or all (default): outside it nothing is looked at or touched\n";

static int complain(int code, const char *message)
{
	fprintf(stderr, "firnd: %s\n", message);
	return code;
}

static int parse(int argc, char **argv, struct options *o)
{
	memset(o, 0, sizeof(*o));
	o->idle_exit_s = -1;
	o->encryption = getenv("FIRN_ENCRYPTION");
	o->scope_text = getenv("FIRN_SCOPE");
	o->live = (struct firn_live){ .dir = firn_config_dir(), .automatic = -1 };
	o->keep = getenv("FIRN_KEEP");
	o->store_encrypted = getenv("FIRN_STORE_ENCRYPTED") && !strcmp(getenv("FIRN_STORE_ENCRYPTED"), "yes");
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];

		if (!strcmp(a, "--foreground")) {
			o->foreground = true;
		} else if (!strcmp(a, "--store-encrypted")) {
			o->store_encrypted = true;
		} else if (!strcmp(a, "--check")) {
			o->check = true;
		} else if (!strcmp(a, "--config-check")) {
			o->config_check = true;
		} else if (!strcmp(a, "--config-show")) {
			o->config_show = true;
		} else if (!strcmp(a, "--json")) {
			o->json = true;
		} else if (!strcmp(a, "--idle-exit") && i + 1 < argc) {
			char *end;
			long n = strtol(argv[++i], &end, 10);

			if (*end || end == argv[i] || n < 0 || n > 86400 * 365)
				return complain(FIRN_EXIT_USAGE, "--idle-exit takes seconds, 0 for never: see firnd --help");
			o->idle_exit_s = (int)n;
		} else if (!strcmp(a, "--encryption") && i + 1 < argc) {
			o->encryption = argv[++i];
		} else if (!strcmp(a, "--dry-run")) {
			o->live.automatic = FIRN_AUTO_DRY_RUN;
		} else if (!strcmp(a, "--auto") && i + 1 < argc) {
			a = argv[++i];
			o->live.automatic = !strcmp(a, "yes")     ? (int)FIRN_AUTO_YES :
					    !strcmp(a, "no")      ? (int)FIRN_AUTO_NO :
					    !strcmp(a, "dry-run") ? (int)FIRN_AUTO_DRY_RUN :
								    -1;
			if (o->live.automatic < 0)
				return complain(FIRN_EXIT_USAGE, "--auto takes yes, no, or dry-run: see firnd --help");
		} else if (!strcmp(a, "--scope") && i + 1 < argc) {
			o->scope_text = argv[++i];
		} else if (!strcmp(a, "--keep") && i + 1 < argc) {
			o->keep = argv[++i];
		} else if (!strcmp(a, "--version")) {
			printf("firnd %s\n", FIRN_VERSION);
			exit(FIRN_EXIT_OK);
		} else if (!strcmp(a, "--help")) {
			fputs(usage, stdout);
			exit(FIRN_EXIT_OK);
		} else if (!strcmp(a, "--list-points")) {
			for (int p = 0; p < FIRN_POINT_COUNT; p++)
				puts(firn_point_name((enum firn_point)p));
			exit(FIRN_EXIT_OK);
		} else {
			fprintf(stderr, "firnd: unknown option or missing value: %s: see firnd --help\n", a);
			return FIRN_EXIT_USAGE;
		}
	}
	o->keep_percent = KEEP_PERCENT;
	if (o->keep) {
		char *end;
		long n = strtol(o->keep, &end, 10);

		if (*end || end == o->keep || n < 0 || n > 100)
			return complain(FIRN_EXIT_USAGE, "--keep takes a percentage, 0 for none: see firnd --help");
		o->keep_percent = (unsigned int)n;
	}
	return FIRN_EXIT_OK;
}

static int make_dir(const char *path, mode_t mode, struct firn_err *e)
{
	struct stat st;

	if (mkdir(path, mode) && errno != EEXIST)
		return firn_err_set(e, FIRN_EXIT_FAILED, errno, "directory", "%s cannot be made: %s", path, strerror(errno));
	if (lstat(path, &st) || !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
		return firn_err_set(e, FIRN_EXIT_FAILED, EPERM, "directory",
				    "%s is not a directory of ours: remove it, or set another", path);
	return 0;
}

static int find_places(struct places *p, struct firn_err *e)
{
	if (firn_runtime_dir(p->runtime, sizeof(p->runtime)) || firn_state_dir(p->state, sizeof(p->state)) ||
	    firn_path_join(p->private, sizeof(p->private), p->runtime, FIRN_PRIVATE_DIR) ||
	    firn_path_join(p->store, sizeof(p->store), p->state, FIRN_STORE_DIR))
		return firn_err_set(e, FIRN_EXIT_USAGE, ENAMETOOLONG, "path", "FIRN_RUNTIME_DIR or FIRN_STATE_DIR is too long");
	if (p->runtime[0] != '/' || p->state[0] != '/')
		return firn_err_set(e, FIRN_EXIT_USAGE, EINVAL, "path", "FIRN_RUNTIME_DIR and FIRN_STATE_DIR must be absolute paths");
	return 0;
}

static int make_places(const struct places *p, struct firn_err *e)
{
	struct firn_err store = { 0 };
	int err;

	err = make_dir(p->runtime, 0755, e);
	if (!err)
		err = make_dir(p->private, 0700, e);
	/* A store that cannot be made is reported by the first freeze; thawing does without. */
	if (!err && !make_dir(p->state, 0755, &store))
		make_dir(p->store, 0700, &store);
	return err;
}

static int listen_at(const struct places *p, struct firn_err *e)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	FIRN_FD fd = -1;

	if (firn_notify_socket() >= 0)
		return firn_notify_socket();
	if (firn_path_join(address.sun_path, sizeof(address.sun_path), p->runtime, FIRN_SOCKET_NAME))
		return firn_err_set(e, FIRN_EXIT_USAGE, ENAMETOOLONG, "path", "FIRN_RUNTIME_DIR is too long for a socket");
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unlink(address.sun_path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || chmod(address.sun_path, 0666) ||
	    listen(fd, 64))
		return firn_err_set(e, FIRN_EXIT_FAILED, errno, "socket", "the socket %s cannot be made: %s", address.sun_path,
				    strerror(errno));
	return firn_fd_steal(&fd);
}

/* Threads come and go with each request.  Left alone, libc gives them heaps of their own and keeps what it once had;
 * locked, that memory cannot be trimmed.  One heap, and what is large goes by itself. */
static void keep_heap_small(void)
{
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, 64 << 10);
	mallopt(M_TRIM_THRESHOLD, 64 << 10);
}

/* Nothing of the agent may wait for memory while targets wait for it. */
static void lock_memory(void)
{
	int fd;

	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
		firn_log("memory cannot be locked (%s): under pressure the agent may be slow", strerror(errno));
	prctl(PR_SET_DUMPABLE, 0);
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "-1000", 5) != 5)
			firn_log("oom_score_adj cannot be lowered (%s): the agent may be killed when memory runs out",
				 strerror(errno));
		close(fd);
	}
}

/* What is wrong with the configuration goes to the log.  That of the command line goes before it. */
static int configure(struct options *o, struct firn_err *e)
{
	int err = firn_live_begin(&o->live);

	if (err)
		return firn_err_set(e, FIRN_EXIT_FAILED, -err, "no-memory", "no memory to read the configuration");
	if (o->scope_text)
		return 0;
	return firn_scope_parse(&o->scope, o->live.config->scope, e);
}

/* Who decides by itself stays. */
static int idle_exit(const struct options *o, int otherwise)
{
	if (o->idle_exit_s >= 0)
		return o->idle_exit_s;
	return o->foreground || o->live.config->automatic != FIRN_AUTO_NO ? 0 : otherwise;
}

/* What decides, beside what is done. */
struct deciders {
	struct firn_jobs jobs;
	struct firn_metrics metrics;
	struct firn_control *control;
};

/* An event of the control's goes to whoever monitors. */
static void send_event(void *arg, struct json_object *event)
{
	struct json_object *m = json_object_new_object(), *p = json_object_new_object();

	json_object_object_add(p, "event", event);
	json_object_object_add(m, "parameters", p);
	json_object_object_add(m, "continues", json_object_new_boolean(true));
	firn_jobs_send(arg, FIRN_TO_MONITORS, m, false);
}

static int start_deciders(struct deciders *d, struct firn_engine *engine, const struct options *o, const struct places *p,
			  pid_t keeper, struct firn_err *e)
{
	struct firn_control_setup setup;
	int err;

	firn_metrics_init(&d->metrics);
	err = firn_jobs_init(&d->jobs, engine, o->scope);
	if (err)
		return firn_err_set(e, FIRN_EXIT_FAILED, -err, "jobs", "the agent's jobs cannot begin: %s", strerror(-err));
	setup = (struct firn_control_setup){ engine,   &d->metrics, o->scope, o->live.config, p->private,
					     p->state, p->store,    keeper,   send_event, &d->jobs };
	err = firn_control_open(&d->control, &setup, e);
	d->jobs.control = d->control;
	return err;
}

/* @ready: written to when connections are accepted; closed. */
static int run(struct options *o, const struct places *p, enum firn_cipher cipher, int ready, struct firn_err *e)
{
	struct firn_keeper keeper;
	struct firn_engine_config engine_config;
	struct firn_server_config server_config;
	struct firn_engine *engine;
	struct deciders d = { 0 };
	char path[600];
	sigset_t set;
	int err, live, listening;
	struct rlimit nofile;
	bool whole;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGPIPE);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	/* A descriptor for each target and each of its forked children. */
	if (!getrlimit(RLIMIT_NOFILE, &nofile)) {
		nofile.rlim_cur = nofile.rlim_max;
		setrlimit(RLIMIT_NOFILE, &nofile);
	}
	err = firn_keeper_start(&keeper, p->runtime, firn_notify_take_key(), e);
	if (err)
		return err;
	/* Another one that is kept is of no use; this one is, if agent and keeper are killed together. */
	firn_notify_keep_key(-1);
	firn_notify_keep_key(keeper.key_fd);
	lock_memory();
	engine_config = (struct firn_engine_config){
		.private_dir = p->private,
		.store_dir = p->store,
		.key = keeper.key->key,
		.cipher = cipher,
		.kind = o->store_encrypted ? FIRN_PACK_DIRECT : FIRN_PACK_COPIED,
		.generation = &keeper.key->generation,
		.keeper = keeper.pid,
		.buffer_bytes = o->live.config->buffer_bytes,
		.wake_tick_ns = o->live.config->wake_tick_ns,
		.keep_percent = o->keep_percent,
	};
	err = firn_engine_open(&engine, &engine_config, e);
	if (err)
		goto end_keeper;
	live = firn_engine_recover(engine, &whole);
	if (!whole) {
		firn_log("keeper %d is left alone: it holds what could not be taken over", keeper.old);
		keeper.old = 0;
	}
	if (live)
		firn_log("took over %d target%s from a former agent", live, live == 1 ? "" : "s");
	err = start_deciders(&d, engine, o, p, keeper.pid, e);
	if (!err)
		err = firn_keeper_settle(&keeper, p->runtime);
	listening = err ? err : listen_at(p, e);
	if (listening < 0) {
		firn_err_set(e, FIRN_EXIT_FAILED, -listening, "keeper", "%s: the keeper's file cannot be written", p->runtime);
		/* What was taken over is still held by a keeper: another agent may try. */
		return listening;
	}
	err = firn_pid_file_write(p->runtime, FIRN_AGENT_PID_NAME, getpid());
	if (err)
		return firn_err_set(e, FIRN_EXIT_FAILED, -err, "pid-file", "%s: the agent's file cannot be written", p->runtime);
	if (ready >= 0) {
		if (write(ready, "", 1) < 0)
			firn_log("nobody waits for the agent's start any more");
		close(ready);
	}
	server_config = (struct firn_server_config){
		.engine = engine,
		.keeper = &keeper,
		.scope = o->scope,
		.jobs = &d.jobs,
		.control = d.control,
		.metrics = &d.metrics,
		.runtime_dir = p->runtime,
		.listening = listening,
		.idle_exit_s = idle_exit(o, IDLE_EXIT_S),
		.kept_exit_s = idle_exit(o, KEPT_EXIT_S),
		.live = &o->live,
	};
	if (firn_control_start(d.control))
		firn_log("the agent decides nothing by itself: it cannot start a thread");
	firn_notify("READY=1");
	err = firn_server_run(&server_config);
	firn_control_stop(d.control);
	if (err)
		firn_log("the agent's loop ended: %s", strerror(-err));
	/* One that was handed over is the manager's: it listens on, for the next agent. */
	if (firn_notify_socket() < 0 && !firn_path_join(path, sizeof(path), p->runtime, FIRN_SOCKET_NAME))
		unlink(path);
	if (!firn_path_join(path, sizeof(path), p->runtime, FIRN_AGENT_PID_NAME))
		unlink(path);
	if (firn_notify_socket() < 0)
		shutdown(listening, SHUT_RDWR);
	firn_control_close(d.control);
	if (firn_engine_reap(engine)) {
		firn_log("targets are left: the keeper stays, start an agent to thaw them");
		return 0;
	}
	firn_engine_close(engine);
end_keeper:
	if (!keeper.old) {
		firn_notify_keep_key(-1);
		firn_keeper_end(&keeper, p->runtime);
	} else {
		kill(keeper.pid, SIGKILL);
	}
	return err;
}

/* In the child: our own session, no terminal, the log in place of stderr. */
static void detach(const struct places *p)
{
	char path[600];
	const char *log = getenv("FIRN_LOG");
	int fd;

	setsid();
	if (chdir("/"))
		return;
	if (log)
		snprintf(path, sizeof(path), "%s", log);
	else if (firn_path_join(path, sizeof(path), p->runtime, FIRN_LOG_NAME))
		return;
	fd = open("/dev/null", O_RDWR);
	if (fd >= 0) {
		dup2(fd, 0);
		dup2(fd, 1);
		close(fd);
	}
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0)
		dup2(fd, 2);
}

/* Wait for the child's word; its error line comes through the same pipe. */
static int await(pid_t child, int from)
{
	/* Not only for the pipe's end: a keeper has the pipe too, and outlives the agent. */
	struct pollfd p[2] = { { from, POLLIN, 0 }, { (int)syscall(SYS_pidfd_open, child, 0), POLLIN, 0 } };
	char buf[512];
	ssize_t n = 0;
	int status = 0;

	while (poll(p, 2, -1) < 0 && errno == EINTR)
		;
	if (poll(p, 1, 0) > 0 && (p[0].revents & POLLIN))
		n = read(from, buf, sizeof(buf) - 1);
	if (n == 1 && !buf[0])
		return FIRN_EXIT_OK;
	waitpid(child, &status, 0);
	if (n > 1) {
		buf[n] = 0;
		fprintf(stderr, "firnd: %s\n", buf);
	}
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	fprintf(stderr, "firnd: the agent was ended by signal %d while it started: see its log\n", WTERMSIG(status));
	return FIRN_EXIT_NO_AGENT;
}

int main(int argc, char **argv)
{
	enum firn_cipher cipher = FIRN_CIPHER_AES_256_OCB;
	const char *kill_at = getenv("FIRN_KILL_AT"), *sleep_at = getenv("FIRN_SLEEP_AT");
	struct firn_err e = { 0 };
	/* Static: what it holds lasts until the end, and is not lost. */
	static struct options o;
	struct places p;
	char path[600];
	int code, lock, first_free, ready[2] = { -1, -1 };
	pid_t running;

	firn_notify_begin(&first_free);
	/* The agent's descriptors must not be taken for standard ones. */
	for (int fd; (fd = open("/dev/null", O_RDWR)) >= 0;) {
		if (fd > 2) {
			close(fd);
			break;
		}
	}
	/* Nor may the keeper hold what our caller happened to have open. */
	syscall(SYS_close_range, (unsigned int)first_free, ~0u, 0u);
	keep_heap_small();
	code = parse(argc, argv, &o);
	if (code)
		return code;
	if (o.config_check)
		return firn_config_check(firn_config_dir(), o.json);
	if (o.config_show)
		return firn_config_show(firn_config_dir(), o.json);
	if (find_places(&p, &e))
		return complain(e.code, e.message);
	if (o.check)
		return firn_check(p.runtime, p.state, o.json);
	if (o.json)
		return complain(FIRN_EXIT_USAGE, "--json belongs to --check, --config-check and --config-show");
	if (o.encryption && firn_cipher_from_name(o.encryption, &cipher))
		return complain(FIRN_EXIT_USAGE, "unknown encryption: aes-256-ocb, aes-256-gcm or off");
	if (kill_at && firn_point_kill_at(kill_at))
		return complain(FIRN_EXIT_USAGE, "FIRN_KILL_AT names no point: see firnd --list-points");
	if (sleep_at && firn_point_sleep_at(sleep_at))
		return complain(FIRN_EXIT_USAGE, "FIRN_SLEEP_AT names no point: see firnd --list-points");
	if (geteuid())
		return complain(FIRN_EXIT_NOT_PERMITTED, "the agent must run as root: use sudo firnd");
	if (o.scope_text && firn_scope_parse(&o.scope, o.scope_text, &e))
		return complain(e.code, e.message);
	umask(0022);
	if (make_places(&p, &e) || firn_path_join(path, sizeof(path), p.runtime, "start.lock"))
		return complain(e.code, e.message);
	lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX))
		return complain(FIRN_EXIT_FAILED, "the start lock cannot be taken");
	running = firn_pid_file_read(p.runtime, FIRN_AGENT_PID_NAME);
	if (running) {
		/* That one is there is all that a caller without wishes wants. */
		if (argc == 1)
			return FIRN_EXIT_OK;
		firn_err_set(&e, FIRN_EXIT_FAILED, EEXIST, "runs",
			     "an agent runs already, as process %d, and keeps to its own options: end it first (kill %d), or set "
			     "what you want in firn.conf and send it SIGHUP", running, running);
		return complain(e.code, e.message);
	}
	if (!o.foreground) {
		pid_t child;

		if (pipe2(ready, O_CLOEXEC))
			return complain(FIRN_EXIT_FAILED, "no pipe can be made");
		child = fork();
		if (child < 0)
			return complain(FIRN_EXIT_FAILED, "no process can be made");
		if (child) {
			close(ready[1]);
			return await(child, ready[0]);
		}
		close(ready[0]);
		detach(&p);
	} else if (firn_pid_file_write(p.runtime, FIRN_AGENT_PID_NAME, getpid())) {
		return complain(FIRN_EXIT_FAILED, "the agent's file cannot be written");
	}
	/* Not the agent's: the keeper would hold it beyond the agent's death.  The parent, which waits for
	 * the agent to be ready, keeps it until then. */
	close(lock);
	if ((!configure(&o, &e) && !run(&o, &p, cipher, ready[1], &e)) || !e.code)
		return FIRN_EXIT_OK;
	if (o.foreground)
		return complain(e.code, e.message);
	if (write(ready[1], e.message, strlen(e.message)) < 0)
		firn_log("%s", e.message);
	return e.code;
}
