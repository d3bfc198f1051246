/* SPDX-License-Identifier: MIT */
/*
 * The working set of a target from one eviction to the next: kept in a file of the private directory, laid out first
 * in the pack, brought in by one read before the target runs, and learned from when all is back.
 */
#include "engine/eviction.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/paths.h"
#include "sys/sys.h"

#define SUFFIX ".set"
#define MAGIC 0x7465736b726f7766ull     /* "fworkset" */
#define READ_MAX (24u << 20)            /* beyond it, the set's blocks do not lie together */

struct header {
	uint64_t magic;
	uint32_t version, page_size;
	uint32_t capacity, count;
};

static int path_of(struct firn_engine *en, pid_t pid, uint64_t start_time, char *path, size_t size)
{
	char name[64];

	snprintf(name, sizeof(name), "%d-%llu" SUFFIX, pid, (unsigned long long)start_time);
	return firn_path_join(path, size, en->config.private_dir, name);
}

static int read_set(const char *path, uint32_t page_size, struct firn_workset *s)
{
	FIRN_FD fd = (int)firn_sys.open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	struct header h;
	struct stat st;

	if (fd < 0)
		return fd;
	if (firn_sys.read(fd, &h, sizeof(h)) != sizeof(h) || h.magic != MAGIC || h.version != 1 ||
	    h.page_size != page_size || h.count > FIRN_WORKSET_MAX || fstat(fd, &st) ||
	    st.st_size != (off_t)(sizeof(h) + h.count * sizeof(*s->pages)) ||
	    firn_sys.read(fd, s->pages, h.count * sizeof(*s->pages)) != (long)(h.count * sizeof(*s->pages)))
		return -EBADMSG;
	s->capacity = h.capacity;
	s->count = h.count;
	return firn_workset_valid(s, page_size) ? 0 : -EBADMSG;
}

void firn_engine_workset_load(struct firn_engine *en, struct firn_target *t)
{
	struct firn_image *image = t->image;
	char path[600];

	if (path_of(en, t->pid, image->start_time, path, sizeof(path)) ||
	    read_set(path, en->page_size, &image->set))
		firn_workset_init(&image->set);
	image->armed.recording.limit = image->set.capacity;
}

static int write_set(struct firn_engine *en, const char *path, const struct firn_workset *s)
{
	struct header h = { MAGIC, 1, en->page_size, s->capacity, s->count };
	size_t len = s->count * sizeof(*s->pages);
	FIRN_FD fd = -1;

	firn_sys.unlink(path);
	fd = (int)firn_sys.open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return fd;
	if (write(fd, &h, sizeof(h)) != sizeof(h) || write(fd, s->pages, len) != (ssize_t)len) {
		firn_sys.unlink(path);
		return -ENOSPC;
	}
	return 0;
}

void firn_engine_workset_keep(struct firn_engine *en, struct firn_target *t)
{
	struct firn_image *image = t->image;
	struct firn_workset_scratch *scratch;
	char path[600];
	int err;

	/* A forked child has none: it lives on its parent's pack. */
	if (image->parent || !t->pid || path_of(en, t->pid, image->start_time, path, sizeof(path)))
		return;
	scratch = malloc(sizeof(*scratch));
	if (!scratch)
		return;
	firn_workset_learn(&image->set, &image->armed.recording, scratch);
	free(scratch);
	err = write_set(en, path, &image->set);
	if (err)
		firn_log("process %d: its working set cannot be kept (%s): its next thaw begins without", t->pid, strerror(-err));
}

void firn_engine_workset_sweep(struct firn_engine *en)
{
	firn_sweep_ended(en, SUFFIX);
}

/* --- Order in the pack ---------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

int firn_order_prepare(struct firn_eviction *j)
{
	const struct firn_workset *s = &j->t->image->set;

	j->set_pages = s->count;
	if (!s->count)
		return 0;
	j->max_pieces = j->max_stretches + s->count;
	j->set = malloc(s->count * sizeof(*j->set));
	j->set_runs = malloc(s->count * sizeof(*j->set_runs));
	j->pieces = mmap(NULL, j->max_pieces * sizeof(*j->pieces), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (j->pieces == MAP_FAILED)
		j->pieces = NULL;
	if (!j->set || !j->set_runs || !j->pieces)
		return -ENOMEM;
	memcpy(j->set, s->pages, s->count * sizeof(*j->set));
	qsort(j->set, s->count, sizeof(*j->set), ascending);
	memset(j->set_runs, 0, s->count * sizeof(*j->set_runs));
	memset(j->pieces, 0, firn_min_u64(j->max_pieces, s->count + j->max_stretches / 10) * sizeof(*j->pieces));
	return 0;
}

void firn_order_release(struct firn_eviction *j)
{
	free(j->set);
	free(j->set_runs);
	if (j->pieces)
		munmap(j->pieces, j->max_pieces * sizeof(*j->pieces));
}

int firn_order_set(struct firn_eviction *j)
{
	uint32_t page = j->en->page_size, n = 0;
	struct firn_builder_stats stats;
	int err;

	/* What the base does not have among its first blocks is written anew, so that two reads bring it in. */
	firn_builder_reuse_below(j->builder, j->t->image->set_base);
	for (uint32_t i = 0; i < j->set_pages; i++) {
		struct firn_pack_run *last = j->nset_runs ? &j->set_runs[j->nset_runs - 1] : NULL;
		uint32_t place;

		while (n < j->nruns && j->runs[n].start.v + (uint64_t)j->runs[n].npages * page <= j->set[i])
			n++;
		if (n == j->nruns)
			break;
		if (j->set[i] < j->runs[n].start.v)
			continue;               /* it is not evicted this time */
		place = j->runs[n].first_place + (uint32_t)((j->set[i] - j->runs[n].start.v) / page);
		/* Within one run: the next one may be of another slice. */
		if (last && last->first_place >= j->runs[n].first_place && last->first_place + last->npages == place)
			last->npages++;
		else
			j->set_runs[j->nset_runs++] = (struct firn_pack_run){ { j->set[i] }, 1, place };
	}
	err = j->nset_runs ? firn_builder_add(j->builder, j->set_runs, j->nset_runs, j->places) : 0;
	firn_builder_reuse_below(j->builder, UINT32_MAX);
	if (err || !j->nset_runs)
		return err;
	firn_builder_get_stats(j->builder, &stats);
	j->pack->file.m->set_blocks = stats.blocks;
	__atomic_store_n(&j->t->image->set_blocks, stats.blocks, __ATOMIC_RELEASE);
	return 0;
}

/* Add @npages of @run from page @first on. */
static void add_piece(struct firn_eviction *j, uint32_t *count, const struct firn_pack_run *run, uint32_t first,
		      uint32_t npages)
{
	if (npages)
		j->pieces[(*count)++] = (struct firn_pack_run){
			{ run->start.v + (uint64_t)first * j->en->page_size }, npages, run->first_place + first,
		};
}

int firn_order_rest(struct firn_eviction *j, const struct firn_slice *s)
{
	uint32_t count = 0;

	if (!j->nset_runs)
		return firn_builder_add(j->builder, j->runs + s->first, s->last - s->first, j->places);
	for (uint32_t n = s->first; n < s->last; n++) {
		const struct firn_pack_run *run = &j->runs[n];
		uint32_t done = 0;

		/* Places ascend with addresses, in the set too. */
		for (; j->next_set_run < j->nset_runs; j->next_set_run++) {
			const struct firn_pack_run *in = &j->set_runs[j->next_set_run];
			uint32_t first = in->first_place - run->first_place;

			if (in->first_place >= run->first_place + run->npages)
				break;
			add_piece(j, &count, run, done, first - done);
			done = first + in->npages;
		}
		add_piece(j, &count, run, done, run->npages - done);
	}
	return count ? firn_builder_add(j->builder, j->pieces, count, j->places) : 0;
}

/* --- Bringing it in ------------------------------------------------------------------------------- */

/* Which of the set's blocks @block is, the base's first; or UINT32_MAX. */
static uint32_t number_in_set(const struct firn_image *image, uint32_t block)
{
	if (block < image->set_first)
		return block < image->set_base ? block : UINT32_MAX;
	block -= image->set_first;
	return block < image->set_blocks ? image->set_base + block : UINT32_MAX;
}

bool firn_engine_workset_held(const struct firn_image *image, uint32_t block)
{
	uint32_t n = number_in_set(image, block);

	return n < FIRN_SET_BLOCKS_MAX && image->set_held[n / 64] >> n % 64 & 1;
}

/* The block of an evicted page of the set, or UINT32_MAX.  Layout lock held. */
static uint32_t block_of(const struct firn_target *t, uint64_t address, struct firn_run *run, uint32_t *index)
{
	uint32_t link, block;

	if (firn_link_find(&t->armed.link, address, run, index) != FIRN_FOUND_LINK)
		return UINT32_MAX;
	link = firn_link_get(&t->armed.link, *index);
	block = firn_link_place(link) / FIRN_BLOCK_PAGES;
	return firn_link_state(link) == FIRN_PAGE_EVICTED && number_in_set(t->image, block) != UINT32_MAX ? block :
													     UINT32_MAX;
}

/* Choose what is held back, mark its pages, and sort the others into @to.  Returns how many they are. */
static uint32_t choose(struct firn_target *t, uint64_t *to)
{
	struct firn_image *image = t->image;
	struct firn_workset *s = &image->set;
	uint8_t random[FIRN_SET_BLOCKS_MAX];
	uint32_t n = 0;

	memset(image->set_held, 0, sizeof(image->set_held));
	if (getrandom(random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
		memset(random, 1, sizeof(random));
	for (uint32_t b = 0; b < image->set_base + image->set_blocks && b < sizeof(random); b++)
		if (!(random[b] % FIRN_WORKSET_HOLD_BACK))
			image->set_held[b / 64] |= 1ull << b % 64;
	pthread_rwlock_rdlock(&t->armed.layout);
	for (uint32_t i = 0; i < s->count; i++) {
		struct firn_run run;
		uint32_t index, block;

		s->pages[i] = firn_align_down(s->pages[i], t->armed.link.page_size);
		block = block_of(t, s->pages[i], &run, &index);
		if (block == UINT32_MAX)
			continue;
		if (firn_engine_workset_held(image, block))
			s->pages[i] |= FIRN_WORKSET_HELD;
		else
			to[n++] = s->pages[i];
	}
	pthread_rwlock_unlock(&t->armed.layout);
	qsort(to, n, sizeof(*to), ascending);
	return n;
}

/* Stored bytes of the set's blocks in one of the files. */
struct span {
	const struct firn_packfile *file;
	uint64_t offset, end;
	char *buf;                      /* NULL: they could not be read */
};

/* Of the first @n blocks of @file. */
static struct span span_of(const struct firn_packfile *file, uint32_t n)
{
	struct span s = { .file = file, .offset = UINT64_MAX };

	for (uint32_t b = 0; b < n; b++) {
		const struct firn_block *of = &file->blocks[b];

		s.offset = firn_min_u64(s.offset, of->offset.v);
		s.end = firn_max_u64(s.end, of->offset.v + of->stored_bytes + FIRN_TAG_BYTES);
	}
	s.offset = n ? firn_align_down(s.offset, FIRN_PACK_ALIGN) : s.end;
	return s;
}

static size_t bytes_of(const struct span *s)
{
	return (size_t)firn_align_up(s->end - s->offset, FIRN_PACK_ALIGN);
}

static void read_span(struct firn_block_reader *r, struct span *s)
{
	size_t bytes = bytes_of(s);
	char *buf;

	if (!bytes || !s->offset || bytes > READ_MAX)
		return;
	buf = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buf == MAP_FAILED)
		return;
	if (firn_block_read_span(r, s->file, s->offset, buf, s->end - s->offset))
		munmap(buf, bytes);
	else
		s->buf = buf;
}

/* Put back the page at @address, and what follows it in its block. */
static int bring_page(struct firn_target *t, struct firn_block_reader *r, uint64_t address, const struct span spans[2])
{
	struct firn_armed *a = &t->armed;
	uint32_t index, block, own, step;
	const struct span *s;
	struct firn_run run;
	const void *raw;
	int err;

	pthread_rwlock_rdlock(&a->layout);
	block = block_of(t, address, &run, &index);
	pthread_rwlock_unlock(&a->layout);
	if (block == UINT32_MAX)
		return 0;
	own = block;
	s = &spans[firn_packfile_of(a->pack, &own) == a->pack];
	if (!s->buf)
		return 0;
	err = firn_block_decode(r, a->pack, block, s->buf + (s->file->blocks[own].offset.v - s->offset), &raw);
	if (err)
		return err;
	pthread_rwlock_rdlock(&a->layout);
	if (block_of(t, address, &run, &index) == block &&
	    firn_armed_install(a, &run, index, FIRN_BLOCK_PAGES, block, raw, &step) != FIRN_INSTALLED)
		err = -EAGAIN;
	pthread_rwlock_unlock(&a->layout);
	return err;
}

void firn_engine_workset_bring(struct firn_engine *en, struct firn_target *t)
{
	struct firn_image *image = t->image;
	struct firn_armed *a = &t->armed;
	struct firn_block_reader reader;
	struct span spans[2];           /* of the base, of its own */
	uint64_t *pages;
	uint32_t n;

	if (!image->set.count || !(image->set_base + image->set_blocks) ||
	    image->set_base + image->set_blocks > FIRN_SET_BLOCKS_MAX || image->set_blocks > a->pack->m->max_blocks)
		return;
	spans[0] = span_of(a->pack->base, image->set_base);
	spans[1] = span_of(a->pack, image->set_blocks);
	if (firn_block_reader_open(&reader, en->config.key, en->page_size, 0, 1))
		return;
	pages = malloc(FIRN_WORKSET_MAX * sizeof(*pages));
	n = pages ? choose(t, pages) : 0;
	for (int k = 0; n && k < 2; k++)
		read_span(&reader, &spans[k]);
	/* What cannot be had comes with the rest: there it is retried, or lost and told of. */
	for (uint32_t i = 0; i < n; i++)
		if (bring_page(t, &reader, pages[i], spans))
			break;
	firn_armed_count_reads(a, &reader);
	firn_point(FIRN_POINT_THAW_SET);
	free(pages);
	for (int k = 0; k < 2; k++) {
		if (!spans[k].buf)
			continue;
		explicit_bzero(spans[k].buf, bytes_of(&spans[k]));
		munmap(spans[k].buf, bytes_of(&spans[k]));
	}
	firn_block_reader_close(&reader);
}
