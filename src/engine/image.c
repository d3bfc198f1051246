/* SPDX-License-Identifier: MIT */
/*
 * The files of the engine: images and pack tables in the private directory, packs in the store.
 */
#include "engine/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/fd.h"
#include "base/paths.h"
#include "sys/sys.h"

#define IMAGE_SUFFIX ".target"
#define TABLE_SUFFIX ".tables"
#define PACK_SUFFIX ".pack"

/* A shared mapping of @path, of @bytes where it is made, of its size where it exists. */
static int map_file(const char *path, size_t *bytes, bool create, void **ret)
{
	FIRN_FD fd = (int)firn_sys.open(path, O_RDWR | (create ? O_CREAT | O_EXCL : 0), 0600);
	struct stat st;
	void *p;
	long err;

	if (fd < 0)
		return fd;
	if (create) {
		err = firn_sys.ftruncate(fd, *bytes);
		if (err) {
			firn_sys.unlink(path);
			return (int)err;
		}
	} else {
		if (fstat(fd, &st))
			return -errno;
		*bytes = (size_t)st.st_size;
		if (!*bytes)
			return -EBADMSG;
	}
	p = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		err = -errno;
		if (create)
			firn_sys.unlink(path);
		return (int)err;
	}
	/* Link states and keys of nobody else's business: not in core dumps, not in children. */
	madvise(p, *bytes, MADV_DONTDUMP);
	*ret = p;
	return 0;
}

int firn_image_create(struct firn_engine *en, struct firn_target *t, const struct firn_proc *proc,
		      const struct firn_link_shape *shape, struct firn_err *e)
{
	size_t link_at = firn_align_up(sizeof(struct firn_image), en->page_size);
	uint64_t serial;
	char name[64];
	void *mem;
	int err;

	t->image_bytes = link_at + firn_align_up(firn_link_bytes(shape), en->page_size);
	pthread_mutex_lock(&en->lock);
	serial = ++en->serial;
	pthread_mutex_unlock(&en->lock);
	snprintf(name, sizeof(name), "%d-%llu-%llu" IMAGE_SUFFIX, proc->pid,
		 (unsigned long long)proc->start_time, (unsigned long long)serial);
	err = firn_path_join(t->image_path, sizeof(t->image_path), en->config.private_dir, name);
	if (!err)
		err = map_file(t->image_path, &t->image_bytes, true, &mem);
	if (err)
		return firn_err_set(e, FIRN_EXIT_FAILED, -err, "no-state",
				    "link state for process %d cannot be made in %s (%s): free memory there", proc->pid,
				    en->config.private_dir, strerror(-err));
	t->image = mem;
	t->image->version = FIRN_IMAGE_VERSION;
	t->image->page_size = en->page_size;
	t->image->link_at = link_at;
	t->image->link_bytes = t->image_bytes - link_at;
	t->image->pid = proc->pid;
	t->image->start_time = proc->start_time;
	t->image->serial = serial;
	snprintf(t->image->comm, sizeof(t->image->comm), "%s", proc->comm);
	t->image->target_uffd = -1;
	err = firn_armed_init(&t->armed, proc->pid, &t->image->armed);
	if (err) {
		munmap(mem, t->image_bytes);
		t->image = NULL;
		firn_sys.unlink(t->image_path);
		return firn_err_set(e, FIRN_EXIT_FAILED, -err, "no-lock", "a lock cannot be made: %s", strerror(-err));
	}
	t->armed.owner = t;
	t->armed.features = en->uffd_features;
	firn_link_format(&t->armed.link, (char *)mem + link_at, shape);
	__atomic_store_n(&t->image->magic, FIRN_IMAGE_MAGIC, __ATOMIC_RELEASE);
	return 0;
}

/* One word, so that number and table never belong to different keepers. */
void firn_image_hold(struct firn_engine *en, struct firn_image *image, int uffd)
{
	uint64_t word = uffd < 0 ? 0 : (uint64_t)(uint32_t)en->config.keeper << 32 | (uint32_t)uffd;

	__atomic_store_n(&image->held, word, __ATOMIC_SEQ_CST);
}

bool firn_image_held(const struct firn_image *image, pid_t *ret_keeper, int *ret_uffd)
{
	uint64_t word = __atomic_load_n(&image->held, __ATOMIC_SEQ_CST);

	*ret_keeper = (pid_t)(word >> 32);
	*ret_uffd = (int)(uint32_t)word;
	return word != 0;
}

int firn_image_open(struct firn_engine *en, struct firn_target *t, const char *path)
{
	struct firn_image *image;
	void *mem;
	int err;

	snprintf(t->image_path, sizeof(t->image_path), "%s", path);
	err = map_file(path, &t->image_bytes, false, &mem);
	if (err)
		return err;
	image = mem;
	if (t->image_bytes < sizeof(*image) || image->magic != FIRN_IMAGE_MAGIC ||
	    image->version != FIRN_IMAGE_VERSION || image->page_size != en->page_size ||
	    image->link_at > t->image_bytes || image->link_bytes > t->image_bytes - image->link_at) {
		munmap(mem, t->image_bytes);
		return -EBADMSG;
	}
	t->image = image;
	t->pid = image->pid;
	err = firn_armed_init(&t->armed, t->pid, &image->armed);
	if (err) {
		munmap(mem, t->image_bytes);
		t->image = NULL;
		return err;
	}
	t->armed.owner = t;
	t->armed.features = en->uffd_features;
	err = firn_link_attach(&t->armed.link, (char *)mem + image->link_at, image->link_bytes);
	if (err)
		firn_image_unmap(t);
	return err;
}

void firn_image_unmap(struct firn_target *t)
{
	if (!t->image)
		return;
	firn_armed_done(&t->armed);
	munmap(t->image, t->image_bytes);
	t->image = NULL;
}

static int pack_paths(struct firn_engine *en, struct firn_pack_ref *p, uint64_t generation)
{
	char name[64];
	int err;

	snprintf(name, sizeof(name), "%016llx" PACK_SUFFIX, (unsigned long long)generation);
	err = firn_path_join(p->path, sizeof(p->path), en->config.store_dir, name);
	if (!err)
		err = firn_path_join(p->ram_path, sizeof(p->ram_path), en->config.private_dir, name);
	if (err)
		return err;
	snprintf(name, sizeof(name), "%016llx" TABLE_SUFFIX, (unsigned long long)generation);
	return firn_path_join(p->memory_path, sizeof(p->memory_path), en->config.private_dir, name);
}

/* O_DIRECT keeps the page cache, that is, RAM, out of it; a store that cannot do it still works. */
int firn_pack_file_open(const char *path, bool create, bool *ret_buffered)
{
	int flags = O_RDWR | (create ? O_CREAT | O_EXCL : 0);
	long fd = firn_sys.open(path, flags | O_DIRECT, 0600);

	*ret_buffered = fd == -EINVAL;
	/* O_EXCL has made the file before it learned that it cannot be read directly. */
	return (int)(*ret_buffered ? firn_sys.open(path, flags & ~O_EXCL, 0600) : fd);
}

const char *firn_pack_path(const struct firn_pack_ref *p)
{
	return __atomic_load_n(&p->file.m->in_ram, __ATOMIC_ACQUIRE) ? p->ram_path : p->path;
}

static int open_pack(struct firn_pack_ref *p, bool create)
{
	if (p->file.m->in_ram)
		return (int)firn_sys.open(p->ram_path, O_RDWR | (create ? O_CREAT | O_EXCL : 0), 0600);
	return firn_pack_file_open(p->path, create, &p->buffered);
}

int firn_pack_ref_create(struct firn_engine *en, struct firn_pack_ref **ret, const struct firn_pack_shape *shape,
			 struct firn_err *e)
{
	struct firn_pack_ref *p = calloc(1, sizeof(*p));
	uint64_t generation;
	void *mem;
	long fd;
	int err;

	if (!p)
		return firn_err_set(e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory for a pack's tables");
	/* A number that is taken belongs to a pack of an earlier key, which is kept for a reason. */
	do {
		generation = __atomic_add_fetch(en->config.generation, 1, __ATOMIC_SEQ_CST);
		err = pack_paths(en, p, generation);
		if (err)
			goto out;
		p->memory_bytes = firn_align_up(firn_packfile_memory_bytes(shape->max_blocks, shape->max_fills),
						 en->page_size);
		err = map_file(p->memory_path, &p->memory_bytes, true, &mem);
	} while (err == -EEXIST);
	if (err) {
		firn_err_set(e, FIRN_EXIT_FAILED, -err, "no-state", "pack tables cannot be made in %s: %s",
			     en->config.private_dir, strerror(-err));
		goto out;
	}
	firn_packfile_format(&p->file, mem, shape->max_blocks, shape->max_fills);
	p->file.m->generation = generation;
	p->file.m->kind = shape->kind;
	p->file.m->cipher = shape->cipher;
	p->file.m->in_ram = shape->in_ram;
	if (shape->base) {
		p->file.m->base_generation = shape->base->file.m->generation;
		p->file.m->base_blocks = shape->base->file.m->blocks;
		p->file.base = &shape->base->file;
	}
	p->file.m->move_after_s = shape->move_after_s;
	p->file.m->page_size = en->page_size;
	fd = open_pack(p, true);
	if (fd < 0) {
		err = (int)fd;
		munmap(mem, p->memory_bytes);
		firn_sys.unlink(p->memory_path);
		firn_err_set(e, FIRN_EXIT_STORE, -err, "store", "a pack cannot be made in %s (%s): make the store writable",
			     shape->in_ram ? en->config.private_dir : en->config.store_dir, strerror(-err));
		goto out;
	}
	p->file.fd = (int)fd;
	p->base = shape->base;
	p->users = 1;
	*ret = p;
	return 0;
out:
	free(p);
	return err;
}

/* The pack of @generation, where somebody lives on it. */
static struct firn_pack_ref *find_pack(const struct firn_engine *en, uint64_t generation)
{
	for (const struct firn_target *t = en->targets; t; t = t->next) {
		struct firn_pack_ref *p = t->pack;

		if (p && p->file.m->generation != generation)
			p = p->base;
		if (p && p->file.m->generation == generation)
			return p;
	}
	for (const struct firn_kept *k = en->kept; k; k = k->next)
		if (k->pack->file.m->generation == generation)
			return k->pack;
	return NULL;
}

int firn_pack_ref_open(struct firn_engine *en, struct firn_pack_ref **ret, uint64_t generation)
{
	struct firn_pack_ref *p;
	void *mem;
	long fd;
	int err;

	p = find_pack(en, generation);
	if (p) {
		p->users++;
		*ret = p;
		return 0;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	err = pack_paths(en, p, generation);
	if (!err)
		err = map_file(p->memory_path, &p->memory_bytes, false, &mem);
	if (err)
		goto out;
	err = firn_packfile_attach(&p->file, mem, p->memory_bytes);
	if (!err && p->file.m->base_generation) {
		/* A base has none itself: this goes no deeper. */
		err = p->file.m->base_generation < generation ?
			      firn_pack_ref_open(en, &p->base, p->file.m->base_generation) : -EBADMSG;
		if (!err)
			p->file.base = &p->base->file;
	}
	if (err) {
		munmap(mem, p->memory_bytes);
		goto out;
	}
	/* The other one is the beginning of a copy, or what was copied. */
	firn_sys.unlink(p->file.m->in_ram ? p->path : p->ram_path);
	fd = open_pack(p, false);
	p->file.fd = (int)fd;           /* a pack that is gone: its pages will be reported lost */
	p->users = 1;
	*ret = p;
	return 0;
out:
	free(p);
	return err;
}

static void *close_pack(void *arg)
{
	close((int)(intptr_t)arg);
	return NULL;
}

/* The last close of a deleted file gives its space back, and with discard that takes its time: nobody waits
 * for it. */
static void close_aside(int fd)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 65536);
	err = pthread_create(&thread, &attr, close_pack, (void *)(intptr_t)fd);
	pthread_attr_destroy(&attr);
	if (err)
		close(fd);
}

void firn_pack_unref(struct firn_pack_ref *p)
{
	bool in_ram;

	if (!p || --p->users)
		return;
	in_ram = p->file.m->in_ram;
	munmap(p->file.m, p->memory_bytes);
	firn_sys.unlink(in_ram ? p->ram_path : p->path);
	firn_sys.unlink(p->memory_path);
	if (p->file.fd >= 0)
		close_aside(p->file.fd);
	firn_pack_unref(p->base);
	free(p);
}

static bool in_use(const struct firn_engine *en, uint64_t generation)
{
	return find_pack(en, generation) != NULL;
}

/* Delete "<generation>@suffix" files of @dir that no target lives on. */
static void sweep_dir(struct firn_engine *en, const char *dir, const char *suffix)
{
	struct dirent *d;
	DIR *open = opendir(dir);

	if (!open)
		return;
	while ((d = readdir(open))) {
		char path[1024], *end;
		uint64_t generation = strtoull(d->d_name, &end, 16);

		if (end != d->d_name + 16 || strcmp(end, suffix) || in_use(en, generation) ||
		    firn_path_join(path, sizeof(path), dir, d->d_name))
			continue;
		firn_sys.unlink(path);
	}
	closedir(open);
}

void firn_image_sweep(struct firn_engine *en)
{
	sweep_dir(en, en->config.store_dir, PACK_SUFFIX);
	sweep_dir(en, en->config.private_dir, PACK_SUFFIX);
	sweep_dir(en, en->config.private_dir, TABLE_SUFFIX);
}

int firn_store_check(const char *dir, struct firn_err *e)
{
	struct statfs fs;
	char path[600];
	long fd;

	if (statfs(dir, &fs))
		return firn_err_set(e, FIRN_EXIT_STORE, errno, "store-missing",
				    "store %s is not there (%s): create the state directory", dir, strerror(errno));
	if (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC)
		return firn_err_set(e, FIRN_EXIT_STORE, EINVAL, "store-tmpfs",
				    "store %s is on tmpfs, which is memory itself: set FIRN_STATE_DIR to a directory on a disk",
				    dir);
	snprintf(path, sizeof(path), "%s/.check", dir);
	fd = firn_sys.open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0)
		return firn_err_set(e, FIRN_EXIT_STORE, (int)-fd, "store-not-writable",
				    "store %s is not writable (%s): check the file system and its permissions", dir,
				    strerror((int)-fd));
	close((int)fd);
	firn_sys.unlink(path);
	return 0;
}
