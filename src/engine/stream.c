/* SPDX-License-Identifier: MIT */
/*
 * Blocks in the order of the pack, pages wherever they belong: an index made at the begin says which links each
 * block has.  It is advice: every page is put back under the layout lock and only if its link still wants it,
 * so that a layout that changed meanwhile costs no more than pages left to the caller.
 */
#include "engine/stream.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sys/memory.h"
#include "sys/sys.h"
#include "transfer/pace.h"
#include "transfer/workers.h"

#define WORKERS_MAX 16u
#define PAUSE_NS 50000u
#define TRIES 100u                   /* at a block, while the layout changes */
#define PULLS 64u                    /* places that faults in order may call it to, in a thaw */
#define SOON 512u                    /* blocks: it is there soon anyway */

struct worker {
	struct firn_codec codec;
	struct firn_pace pace;
	uint32_t run;                /* where it found the last link */
	char *raw;                   /* a decoded block */
};

struct stream {
	struct firn_target *t;
	struct firn_armed *a;
	struct firn_block_reader *reader;
	struct firn_chunk chunk;
	struct firn_workers *pool;
	unsigned int nworkers;
	size_t raw_bytes;
	char *raws;
	/* The index: first[b] is one more than the first link of block b, next[i] than the one after link i. */
	uint32_t *first, *next;
	uint32_t nblocks, nlinks;
	bool again;                  /* it left out blocks for others that were asked for */
	uint32_t pulls;              /* how often */
	size_t index_bytes;
	atomic_ullong pages;         /* that are back */
	atomic_uint blocks;          /* decoded */
	atomic_int err;
	struct worker workers[WORKERS_MAX];
};

static int make_index(struct stream *s)
{
	struct firn_link *l = &s->a->link;
	struct firn_run run;
	uint32_t nruns = 0;

	pthread_rwlock_rdlock(&s->a->layout);
	while (firn_link_run(l, nruns, &run)) {
		if (run.first + run.npages > s->nlinks)
			s->nlinks = run.first + run.npages;
		nruns++;
	}
	s->nblocks = firn_packfile_blocks(s->a->pack);
	s->index_bytes = ((size_t)s->nblocks + s->nlinks) * sizeof(uint32_t);
	s->first = mmap(NULL, s->index_bytes + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->first == MAP_FAILED) {
		s->first = NULL;
		pthread_rwlock_unlock(&s->a->layout);
		return -ENOMEM;
	}
	s->next = s->first + s->nblocks;
	/* From the last to the first, so that a block's links ascend. */
	while (nruns-- > 0 && firn_link_run(l, nruns, &run)) {
		for (uint32_t i = run.first + run.npages; i-- > run.first;) {
			uint32_t link = firn_link_get(l, i), block = firn_link_place(link) / FIRN_BLOCK_PAGES;

			if (firn_link_state(link) == FIRN_PAGE_EVICTED && block < s->nblocks &&
			    !firn_engine_workset_held(s->t->image, block)) {
				s->next[i] = s->first[block];
				s->first[block] = i + 1;
			}
		}
	}
	pthread_rwlock_unlock(&s->a->layout);
	return 0;
}

/* The run of link @index, if runs are still in the order of their links; @hint: its number, or near. */
static bool find_run(const struct firn_link *l, uint32_t index, uint32_t *hint, struct firn_run *ret)
{
	uint32_t low = 0, step = 1;

	if (firn_link_run(l, *hint, ret) && index - ret->first < ret->npages)
		return true;
	if (firn_link_run(l, *hint + 1, ret) && index - ret->first < ret->npages) {
		++*hint;
		return true;
	}
	while (firn_link_run(l, low + step, ret) && ret->first <= index)
		step *= 2;
	for (; step; step /= 2)
		if (firn_link_run(l, low + step, ret) && ret->first <= index)
			low += step;
	*hint = low;
	return firn_link_run(l, low, ret) && index - ret->first < ret->npages;
}

static bool is_wanted(const struct stream *s, uint32_t block)
{
	for (uint32_t i = s->first[block]; i; i = s->next[i - 1]) {
		uint32_t link = firn_link_get(&s->a->link, i - 1);

		if (firn_link_state(link) == FIRN_PAGE_EVICTED && firn_link_place(link) / FIRN_BLOCK_PAGES == block)
			return true;
	}
	return false;
}

/* Put the pages of the decoded @block where they belong.  @*from: one more than the link to begin with, and
 * where it came to. */
static enum firn_installed put_back(struct stream *s, struct worker *w, uint32_t block, const void *raw, uint32_t *from)
{
	enum firn_installed r = FIRN_INSTALLED;

	pthread_rwlock_rdlock(&s->a->layout);
	while (r == FIRN_INSTALLED && *from) {
		uint32_t index = *from - 1, n = 1;
		struct firn_run run;

		if (find_run(&s->a->link, index, &w->run, &run)) {
			bool evicted = firn_link_state(firn_link_get(&s->a->link, index)) == FIRN_PAGE_EVICTED;

			r = firn_armed_install(s->a, &run, index, run.first + run.npages - index, block, raw, &n);
			if (r == FIRN_INSTALLED && evicted)
				atomic_fetch_add(&s->pages, n);
		}
		if (r == FIRN_INSTALLED)
			while (*from && *from - 1 - index < n)
				*from = s->next[*from - 1];
	}
	pthread_rwlock_unlock(&s->a->layout);
	return r;
}

/* One block of the chunk at hand, by one worker. */
static void bring_block(void *arg, uint32_t i, uint32_t worker)
{
	struct stream *s = arg;
	struct worker *w = &s->workers[worker];
	const struct firn_packfile *p = s->a->pack;
	uint32_t number = s->chunk.first + i, from = s->first[number], own = number;
	struct firn_piece piece;
	const void *raw;

	if (!from || atomic_load(&s->err) || !is_wanted(s, number))
		return;
	firn_pace_give_way(&w->pace, s->a);
	raw = firn_chunk_stored(s->reader, p, number);
	p = firn_packfile_of(p, &own);
	piece = firn_piece_of_block(p->m->generation, own, p->m->page_size, &p->blocks[own]);
	if (p->m->kind != FIRN_PACK_DIRECT) {
		if (firn_codec_decode(&w->codec, &piece, raw, w->raw))
			return;
		raw = w->raw;
	}
	atomic_fetch_add(&s->blocks, 1);
	for (unsigned int tries = 0; from && tries < TRIES; tries++) {
		enum firn_installed r = put_back(s, w, number, raw, &from);

		firn_point(FIRN_POINT_THAW_BLOCK);
		if (r == FIRN_INSTALL_GONE)
			atomic_store(&s->err, -ESRCH);
		else if (r == FIRN_INSTALL_NO_MEMORY)
			atomic_store(&s->err, -ENOMEM);
		if (r != FIRN_INSTALL_AGAIN)
			return;
		/* The pagers bring the events. */
		firn_sys.sleep_ns(PAUSE_NS);
	}
}

static unsigned int count_cores(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);

	return n < (int)WORKERS_MAX ? (unsigned int)n : WORKERS_MAX;
}

static int open_workers(struct stream *s, struct firn_engine *en)
{
	enum firn_cipher cipher = (enum firn_cipher)s->a->pack->m->cipher;
	const uint8_t *key = cipher == FIRN_CIPHER_OFF ? NULL : en->config.key;
	uint32_t block = FIRN_BLOCK_PAGES * s->a->pack->m->page_size;
	int err;

	s->nworkers = count_cores();
	s->raw_bytes = (size_t)s->nworkers * block;
	s->raws = firn_memory_reserve(s->raw_bytes);
	if (!s->raws)
		return -ENOMEM;
	for (unsigned int n = 0; n < s->nworkers; n++) {
		s->workers[n].raw = s->raws + (size_t)n * block;
		firn_pace_begin(&s->workers[n].pace);
		err = firn_codec_open(&s->workers[n].codec, cipher, key, block);
		if (err)
			return err;
	}
	return firn_workers_open(&s->pool, s->nworkers);
}

static void close_workers(struct stream *s)
{
	firn_workers_close(s->pool);
	for (unsigned int n = 0; n < s->nworkers; n++)
		firn_codec_close(&s->workers[n].codec);
	if (s->raws)
		explicit_bzero(s->raws, s->raw_bytes);
	firn_memory_release(s->raws, s->raw_bytes);
	if (s->first)
		munmap(s->first, s->index_bytes + 1);
}

/* The block to go on with, at or after @from; or where faults in order would meet the stream, and what it left out for
 * that in the end.  s->nblocks: there is none. */
static uint32_t next_block(struct stream *s, uint32_t from)
{
	uint32_t pull = atomic_exchange(&s->a->pull, 0);

	if (pull && pull - 1 < s->nblocks && pull - 1 - from >= SOON && s->pulls < PULLS) {
		s->pulls++;
		s->again = true;
		from = pull - 1;
	}
	for (;;) {
		while (from < s->nblocks && !(s->first[from] && is_wanted(s, from)))
			from++;
		if (from < s->nblocks || !s->again)
			return from;
		s->again = false;
		from = 0;
	}
}

/* Chunk after chunk: one is worked on while the next is read. */
static int stream(struct stream *s, void (*progress)(void *arg, uint64_t pages), void *arg)
{
	struct firn_packfile *p = s->a->pack;
	struct firn_pace *pace = &s->workers[0].pace;
	uint32_t next, after;
	int err = 0;

	firn_pace_give_way(pace, s->a);
	next = next_block(s, 0);
	firn_window_announce(&s->a->window, next, firn_chunk_ahead(s->reader, p, next, s->nblocks));
	for (; next < s->nblocks && !err; next = after) {
		/* What cannot be read is found again by the caller, who knows what to say of it. */
		if (firn_chunk_read(s->reader, p, next, s->nblocks, &s->chunk))
			break;
		firn_window_show(&s->a->window, p, &s->chunk,
				 firn_chunk_stored(s->reader, p, s->chunk.first));
		firn_pace_give_way(pace, s->a);
		after = next_block(s, s->chunk.first + s->chunk.count);
		firn_window_announce(&s->a->window, after, firn_chunk_ahead(s->reader, p, after, s->nblocks));
		firn_workers_run(s->pool, s->chunk.count, bring_block, s);
		err = atomic_load(&s->err);
		if (progress)
			progress(arg, atomic_load(&s->pages));
	}
	firn_window_shut(&s->a->window);
	return err;
}

int firn_stream_back(struct firn_engine *en, struct firn_target *t, struct firn_block_reader *reader,
		     void (*progress)(void *arg, uint64_t pages), void *arg)
{
	struct stream *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->t = t;
	s->a = &t->armed;
	s->reader = reader;
	err = make_index(s);
	if (!err)
		err = open_workers(s, en);
	if (!err)
		err = stream(s, progress, arg);
	reader->blocks_read += atomic_load(&s->blocks);
	if (err == -ENOMEM && s->pool)
		err = 0;
	close_workers(s);
	free(s);
	return err;
}
