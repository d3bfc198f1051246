/* SPDX-License-Identifier: MIT */
/*
 * Packs that outlive the thaw of their process, so that its next eviction stores what changed and no more.
 *
 * What is found unchanged is found by its contents (pack/reuse.h), never by what is remembered of a process: an entry
 * here only says which pack is worth a look.  It is a user of the pack.  A record in the private directory, named
 * PID-STARTTIME-GENERATION, tells a successor; it is written before the target is forgotten and deleted before the
 * pack, so at each instant a pack has an image, a record, or is swept.
 *
 * Everything here takes the registry's lock for a moment, and holds none else.
 */
#include "engine/eviction.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/paths.h"
#include "sys/memory.h"
#include "sys/sys.h"

#define SUFFIX ".base"
#define WINDOW_BYTES (1u << 20)

/* --- The entries.  Registry locked, unless it says otherwise -------------------------------------- */

static struct firn_kept **find(struct firn_engine *en, pid_t pid, uint64_t start_time)
{
	struct firn_kept **k = &en->kept;

	while (*k && ((*k)->pid != pid || (*k)->start_time != start_time))
		k = &(*k)->next;
	return k;
}

/* Does nobody live on it? */
static bool idle(const struct firn_kept *k)
{
	return k->pack->users == 1;
}

/* Its last trace but the pack itself, which is given back.  Not in the list any more; registry not locked. */
static void drop(struct firn_engine *en, struct firn_kept *k, bool now)
{
	firn_sys.unlink(k->path);
	firn_point(FIRN_POINT_BASE_DROPPED);
	/* The last close gives space back some time later; who waits for it has it at once. */
	if (now)
		firn_sys.ftruncate(k->pack->file.fd, 0);
	pthread_mutex_lock(&en->lock);
	firn_pack_unref(k->pack);
	pthread_mutex_unlock(&en->lock);
	free(k);
}

/* Take the oldest that nobody lives on out of the list; NULL: there is none. */
static struct firn_kept *take_oldest(struct firn_engine *en)
{
	struct firn_kept **oldest = NULL, *k;

	for (struct firn_kept **p = &en->kept; *p; p = &(*p)->next)
		if (idle(*p))
			oldest = p;
	if (!oldest)
		return NULL;
	k = *oldest;
	*oldest = k->next;
	return k;
}

bool firn_kept_give_way(struct firn_engine *en)
{
	struct firn_kept *k;

	pthread_mutex_lock(&en->lock);
	k = take_oldest(en);
	pthread_mutex_unlock(&en->lock);
	if (k)
		drop(en, k, true);
	return k != NULL;
}

/* What is free in the store.  Registry not locked. */
static uint64_t free_bytes(const struct firn_engine *en)
{
	struct statvfs fs;

	return statvfs(en->config.store_dir, &fs) ? 0 : (uint64_t)fs.f_bavail * fs.f_frsize;
}

static uint64_t bytes_idle(const struct firn_engine *en)
{
	uint64_t sum = 0;

	for (const struct firn_kept *k = en->kept; k; k = k->next)
		if (idle(k))
			sum += k->pack->file.m->bytes;
	return sum;
}

/* The oldest go until the rest takes no more than its share of what would be free without any. */
static void trim(struct firn_engine *en)
{
	struct firn_kept *k;
	uint64_t all, left;

	pthread_mutex_lock(&en->lock);
	left = bytes_idle(en);
	pthread_mutex_unlock(&en->lock);
	all = left ? free_bytes(en) + left : 0;
	while (left > all / 100 * en->config.keep_percent) {
		pthread_mutex_lock(&en->lock);
		k = take_oldest(en);
		pthread_mutex_unlock(&en->lock);
		if (!k)
			return;
		left -= firn_min_u64(left, k->pack->file.m->bytes);
		drop(en, k, false);
	}
}

static void forget(struct firn_engine *en, pid_t pid, uint64_t start_time)
{
	struct firn_kept **at, *k;

	pthread_mutex_lock(&en->lock);
	at = find(en, pid, start_time);
	k = *at;
	if (k)
		*at = k->next;
	pthread_mutex_unlock(&en->lock);
	if (k)
		drop(en, k, false);
}

/* Somebody has just lived on it: it is the newest. */
static void renew(struct firn_engine *en, pid_t pid, uint64_t start_time)
{
	struct firn_kept **at, *k;

	pthread_mutex_lock(&en->lock);
	at = find(en, pid, start_time);
	k = *at;
	if (k) {
		*at = k->next;
		k->next = en->kept;
		en->kept = k;
	}
	pthread_mutex_unlock(&en->lock);
}

bool firn_engine_give_way(struct firn_engine *en)
{
	return firn_kept_give_way(en);
}

unsigned int firn_engine_kept(struct firn_engine *en, uint64_t *ret_bytes)
{
	unsigned int n = 0;

	*ret_bytes = 0;
	pthread_mutex_lock(&en->lock);
	for (const struct firn_kept *k = en->kept; k; k = k->next, n++)
		*ret_bytes += k->pack->file.m->bytes;
	pthread_mutex_unlock(&en->lock);
	return n;
}

void firn_kept_sweep(struct firn_engine *en)
{
	for (;;) {
		struct firn_kept *ended = NULL;
		uint64_t start;

		pthread_mutex_lock(&en->lock);
		for (struct firn_kept **p = &en->kept; *p && !ended; p = &(*p)->next) {
			if (!firn_proc_start_time((*p)->pid, &start) && start == (*p)->start_time)
				continue;
			ended = *p;
			*p = ended->next;
			break;
		}
		pthread_mutex_unlock(&en->lock);
		if (!ended)
			break;
		drop(en, ended, false);
	}
	trim(en);
}

void firn_kept_close(struct firn_engine *en)
{
	struct firn_kept *k;

	while ((k = en->kept)) {
		en->kept = k->next;
		drop(en, k, false);
	}
}

/* --- Kept after a thaw, and found by a successor -------------------------------------------------- */

static int path_of(const struct firn_engine *en, struct firn_kept *k, uint64_t generation)
{
	char name[96];

	snprintf(name, sizeof(name), "%d-%llu-%016llx" SUFFIX, k->pid, (unsigned long long)k->start_time,
		 (unsigned long long)generation);
	return firn_path_join(k->path, sizeof(k->path), en->config.private_dir, name);
}

/* Make an entry, the newest, with a record; @pack becomes its. */
static int enter(struct firn_engine *en, struct firn_pack_ref *pack, pid_t pid, uint64_t start_time)
{
	struct firn_kept *k = calloc(1, sizeof(*k));
	FIRN_FD fd = -1;
	int err;

	if (!k)
		return -ENOMEM;
	k->pack = pack;
	k->pid = pid;
	k->start_time = start_time;
	err = path_of(en, k, pack->file.m->generation);
	if (!err) {
		fd = (int)firn_sys.open(k->path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		err = fd < 0 ? fd : 0;
	}
	if (err) {
		free(k);
		return err;
	}
	pthread_mutex_lock(&en->lock);
	pack->users++;
	k->next = en->kept;
	en->kept = k;
	pthread_mutex_unlock(&en->lock);
	return 0;
}

void firn_kept_keep(struct firn_engine *en, struct firn_target *t)
{
	const struct firn_image *image = t->image;
	struct firn_pack_ref *p = t->pack;
	bool whole = !image->armed.lost_pages;
	int err;

	/* Children live on their parent's pack. */
	if (image->parent || !t->pid)
		return;
	/* One that is still mostly good stays what the next is compared with, also after a pack of another kind. */
	if (whole && (p->base ? p->file.m->bytes <= p->base->file.m->bytes / 2 : !p->file.m->digests)) {
		renew(en, t->pid, image->start_time);
		return;
	}
	forget(en, t->pid, image->start_time);
	if (p->base || !whole || !en->config.keep_percent)
		return;
	err = enter(en, p, t->pid, image->start_time);
	if (err)
		firn_log("process %d: its pack cannot be kept (%s): its next eviction writes everything", t->pid, strerror(-err));
	firn_point(FIRN_POINT_BASE_KEPT);
	trim(en);
}

static int is_record(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return n > sizeof(SUFFIX) && !strcmp(d->d_name + n - (sizeof(SUFFIX) - 1), SUFFIX);
}

static int by_generation(const struct dirent **a, const struct dirent **b)
{
	unsigned long long x = 0, y = 0;

	sscanf((*a)->d_name, "%*d-%*u-%llx", &x);
	sscanf((*b)->d_name, "%*d-%*u-%llx", &y);
	return x < y ? -1 : x > y;
}

/* One record; false: it is of no use, and goes. */
static bool recover(struct firn_engine *en, const char *name)
{
	unsigned long long start, generation;
	struct firn_pack_ref *p;
	uint64_t now;
	bool ok;
	int pid;

	if (sscanf(name, "%d-%llu-%llx", &pid, &start, &generation) != 3 || firn_proc_start_time(pid, &now) ||
	    now != start || firn_pack_ref_open(en, &p, generation))
		return false;
	/* Where the former agent died between an entry and the next, the newest counts. */
	forget(en, pid, start);
	ok = p->file.fd >= 0 && !p->file.m->in_ram && p->file.m->digests && !p->file.m->base_blocks &&
	     en->config.keep_percent && !enter(en, p, pid, start);
	pthread_mutex_lock(&en->lock);
	firn_pack_unref(p);
	pthread_mutex_unlock(&en->lock);
	return ok;
}

void firn_kept_recover(struct firn_engine *en)
{
	struct dirent **names = NULL;
	int n = scandir(en->config.private_dir, &names, is_record, by_generation);
	char path[1024];

	for (int i = 0; i < n; i++) {
		if (!recover(en, names[i]->d_name) &&
		    !firn_path_join(path, sizeof(path), en->config.private_dir, names[i]->d_name))
			firn_sys.unlink(path);
		free(names[i]);
	}
	free(names);
}

/* --- Used by an eviction -------------------------------------------------------------------------- */

/* A file's bytes by aligned reads of a window. */
struct window {
	const struct firn_pack_ref *pack;
	char *bytes;
	uint64_t offset, len;
};

static int read_window(void *ctx, void *buf, size_t len, struct firn_poff offset)
{
	struct window *w = ctx;

	if (len > WINDOW_BYTES - FIRN_PACK_ALIGN)
		return -EINVAL;
	if (offset.v < w->offset || offset.v + len > w->offset + w->len) {
		long n;

		w->offset = firn_align_down(offset.v, FIRN_PACK_ALIGN);
		w->len = 0;
		do
			n = firn_sys.pread(w->pack->file.fd, w->bytes, WINDOW_BYTES, w->offset);
		while (n == -EINTR);
		if (n < 0)
			return (int)n;
		w->len = (uint64_t)n;
	}
	if (offset.v + len > w->offset + w->len)
		return -EBADMSG;
	memcpy(buf, w->bytes + (offset.v - w->offset), len);
	return 0;
}

/* Is the file that a successor would find by its name the one that is open, and as long as it was? */
static int check_file(const struct firn_pack_ref *p)
{
	struct stat open, named;

	if (fstat(p->file.fd, &open) || stat(p->path, &named))
		return -errno;
	return open.st_dev == named.st_dev && open.st_ino == named.st_ino &&
			       (uint64_t)open.st_size == p->file.m->bytes ? 0 : -EBADMSG;
}

static int load(struct firn_eviction *j, struct firn_pack_ref *p)
{
	struct window w = { .pack = p };
	const struct firn_pack_footer *f = &j->base_reader.footer;
	int err = check_file(p);

	if (err)
		return err;
	w.bytes = firn_memory_reserve(WINDOW_BYTES);
	if (!w.bytes)
		return -ENOMEM;
	err = firn_reader_open(&j->base_reader, j->en->config.key, p->file.m->bytes, read_window, &w);
	firn_memory_release(w.bytes, WINDOW_BYTES);
	if (err)
		return err;
	if (f->generation != p->file.m->generation || f->blocks != p->file.m->blocks || !f->digests || f->base_generation ||
	    j->base_reader.header.page_size != j->en->page_size)
		return -EBADMSG;
	firn_reader_base(&j->base_reader, &j->base);
	return 0;
}

void firn_kept_use(struct firn_eviction *j)
{
	struct firn_engine *en = j->en;
	uint64_t start_time = j->t->image->start_time, room = free_bytes(en);
	struct firn_pack_ref *p = NULL;
	struct firn_kept *k;
	int err;

	if (j->kind != FIRN_PACK_COPIED || j->o->ram)
		return;
	pthread_mutex_lock(&en->lock);
	k = *find(en, j->t->pid, start_time);
	if (k && k->pack->file.m->cipher == j->cipher && k->pack->file.m->bytes <= room &&
	    k->pack->file.m->blocks + (uint64_t)firn_slice_blocks_max(j) < FIRN_LINK_PLACE_MAX / FIRN_BLOCK_PAGES) {
		p = k->pack;
		p->users++;
	}
	pthread_mutex_unlock(&en->lock);
	if (!p) {
		/* Written anew, it may need the room. */
		forget(en, j->t->pid, start_time);
		return;
	}
	err = load(j, p);
	firn_point(FIRN_POINT_BASE_LOADED);
	if (!err) {
		j->base_pack = p;
		return;
	}
	firn_reader_close(&j->base_reader);
	firn_log("process %d: the pack that was kept of it, %s, is of no use (%s): all is written anew", j->t->pid, p->path,
		 strerror(-err));
	forget(en, j->t->pid, start_time);
	pthread_mutex_lock(&en->lock);
	firn_pack_unref(p);
	pthread_mutex_unlock(&en->lock);
}

void firn_kept_release(struct firn_eviction *j)
{
	firn_reader_close(&j->base_reader);
	if (!j->base_pack)
		return;
	pthread_mutex_lock(&j->en->lock);
	firn_pack_unref(j->base_pack);
	pthread_mutex_unlock(&j->en->lock);
	j->base_pack = NULL;
}
