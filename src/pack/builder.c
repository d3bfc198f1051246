/* SPDX-License-Identifier: MIT */
/*
 * Pages in, a pack out.  Owns one mapping with all its buffers and tables; does no I/O but through
 * the callbacks, and allocates in firn_builder_open only.
 *
 * What is added is cut into batches, numbered in order.  A worker takes a whole batch: reads its
 * pages into a buffer that fits a core's cache, scans them, elides, compresses block by block, and
 * seals each block straight to where it will be written from.  Two steps are taken in the order of
 * the batches (struct turn): eliding, so that what is a duplicate of what does not depend on chance,
 * and reserving places in the output, so that blocks ascend in the file.
 *
 * Who may touch what:
 *   elider, next_block, counts of pages    the worker whose turn it is to elide
 *   pack.blocks, counts of blocks          the worker whose turn it is to place
 *   cursor, published                      whoever holds the output's lock
 *   everything                             the caller, while no add is under way
 */
#include "pack/builder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pack/codec.h"
#include "pack/elide.h"
#include "pack/hash.h"
#include "pack/output.h"
#include "pack/turn.h"
#include "sys/memory.h"

/* A block on its way. */
struct job {
	uint32_t raw_bytes;
	uint32_t stored_bytes;
	uint8_t codec;
};

struct worker {
	struct firn_codec codec;
	uint8_t *raw;                   /* a batch of pages; the unique ones move to its front */
	uint8_t *scratch;               /* scratch_stride for each block */
	uint8_t *page;                  /* an original, read again */
	struct firn_pack_run *runs;     /* what the batch consists of */
	struct firn_scan *scans;        /* of its pages */
	uint32_t *reused;               /* their places in the base, or FIRN_PLACE_NONE */
	uint32_t base_run;              /* where the last was found */
	struct job *jobs;               /* of its blocks */
	uint32_t *sizes;
	uint64_t *offsets;
	uint32_t number;                /* of the batch */
	uint32_t nruns, npages;
	uint32_t unique;
	uint32_t first_block;
};

/* What add() still has to hand out. */
struct cursor {
	const struct firn_pack_run *runs;
	uint32_t nruns, run;
	uint32_t page;                  /* of that run */
	uint32_t batch;                 /* number of the next */
	uint32_t *places;
};

struct firn_builder {
	size_t map_bytes;
	uint32_t page_size;
	uint32_t block_bytes;           /* raw */
	uint32_t batch_pages;
	uint32_t scratch_stride;
	uint32_t nworkers;
	enum firn_cipher cipher;
	struct firn_builder_ops ops;
	void *ctx;

	struct firn_output out;
	struct firn_elider elider;
	struct cursor cursor;
	struct firn_turn elide_turn, place_turn;        /* of the batches, by their numbers */
	bool active;
	bool begun;                     /* pack.generation has been used */
	uint32_t next_block;
	bool digests;                   /* may be made */
	struct firn_digester digester;
	uint32_t base_blocks;           /* of the pack's base: its own are numbered from there */
	uint32_t reuse_below;
	uint64_t sliced_pages;          /* added before the last end of a slice */
	struct firn_builder_pack pack;
	struct firn_builder_stats stats, published;
	struct firn_pack_header header;
	struct worker workers[FIRN_BUILDER_WORKERS_MAX];
};

static size_t take(size_t *total, size_t bytes)
{
	size_t at = *total;

	*total += firn_align_up(bytes, FIRN_PACK_ALIGN);
	return at;
}

static int open_workers(struct firn_builder *b, const struct firn_builder_config *config)
{
	uint32_t piece_bytes = b->block_bytes > FIRN_INDEX_PIECE_BYTES ? b->block_bytes
								       : FIRN_INDEX_PIECE_BYTES;
	int r = 0;

	if (config->digest_key)
		r = firn_digester_open(&b->digester, config->digest_key);
	for (uint32_t i = 0; i < b->nworkers && r == 0; i++)
		r = firn_codec_open(&b->workers[i].codec, b->cipher, config->key, piece_bytes);
	return r;
}

/* One mapping for all: @map NULL only counts its bytes. */
static size_t lay_out(struct firn_builder *b, uint8_t *map)
{
	uint32_t batch_blocks = b->batch_pages / FIRN_BLOCK_PAGES;
	size_t total = 0;

	/* The large ones first: they are aligned for huge pages then. */
	b->out.ring = map + take(&total, 2 * (size_t)b->out.buffer_bytes);
	b->elider.originals =
		(struct firn_original *)(map + take(&total, firn_elider_originals_bytes()));
	b->elider.fill_slots = (uint32_t *)(map + take(&total, firn_elider_fills_bytes()));
	for (uint32_t i = 0; i < b->nworkers; i++) {
		struct worker *w = &b->workers[i];

		w->raw = map + take(&total, (size_t)b->batch_pages * b->page_size);
		w->scratch = map + take(&total, (size_t)batch_blocks * b->scratch_stride);
		w->page = map + take(&total, b->page_size);
		w->runs = (struct firn_pack_run *)(map + take(&total, b->batch_pages * sizeof(*w->runs)));
		w->scans = (struct firn_scan *)(map + take(&total, b->batch_pages * sizeof(*w->scans)));
		w->reused = (uint32_t *)(map + take(&total, b->batch_pages * sizeof(*w->reused)));
		w->jobs = (struct job *)(map + take(&total, batch_blocks * sizeof(*w->jobs)));
		w->sizes = (uint32_t *)(map + take(&total, batch_blocks * sizeof(*w->sizes)));
		w->offsets = (uint64_t *)(map + take(&total, batch_blocks * sizeof(*w->offsets)));
	}
	return total;
}

static int open_locks(struct firn_builder *b)
{
	int r = firn_output_open(&b->out);

	if (r < 0)
		return r;
	r = firn_turn_open(&b->elide_turn);
	if (r < 0)
		goto no_elide_turn;
	r = firn_turn_open(&b->place_turn);
	if (r < 0)
		goto no_place_turn;
	return 0;
no_place_turn:
	firn_turn_close(&b->elide_turn);
no_elide_turn:
	firn_output_close(&b->out);
	return r;
}

int firn_builder_open(struct firn_builder **ret, const struct firn_builder_config *config)
{
	uint32_t ps = config->page_size, workers = config->workers ? config->workers : 1;
	uint32_t out_bytes = config->out_bytes ? config->out_bytes : FIRN_BUILDER_OUT_BYTES;
	struct firn_builder *b;
	uint8_t *map;
	int r;

	*ret = NULL;
	if (ps < FIRN_PAGE_SIZE_MIN || ps > FIRN_PAGE_SIZE_MAX || (ps & (ps - 1)) ||
	    workers > FIRN_BUILDER_WORKERS_MAX || out_bytes < 65536 || out_bytes > (1u << 30) ||
	    out_bytes % FIRN_PACK_ALIGN || !config->ops.write || !config->ops.read)
		return -EINVAL;
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->page_size = ps;
	b->block_bytes = FIRN_BLOCK_PAGES * ps;
	b->batch_pages = firn_builder_batch_pages(ps);
	b->scratch_stride = (uint32_t)firn_block_span_bytes(b->block_bytes);
	b->nworkers = workers;
	b->cipher = config->cipher;
	b->ops = config->ops;
	b->ctx = config->ctx;
	b->out.write = config->ops.write;
	b->out.ctx = config->ctx;
	b->out.own_writer = config->own_writer;
	/* The largest piece must fit one buffer: a block, or an index piece with its head. */
	b->out.buffer_bytes = out_bytes;
	if (out_bytes < b->block_bytes + FIRN_PACK_ALIGN)
		b->out.buffer_bytes = b->block_bytes + FIRN_PACK_ALIGN;
	b->map_bytes = lay_out(b, NULL);
	map = firn_memory_reserve(b->map_bytes);
	if (!map) {
		free(b);
		return -ENOMEM;
	}
	lay_out(b, map);
	r = open_locks(b);
	if (r < 0) {
		firn_memory_release(map, b->map_bytes);
		free(b);
		return r;
	}
	b->digests = config->digest_key != NULL;
	r = open_workers(b, config);
	if (r < 0) {
		firn_builder_close(b);
		return r;
	}
	*ret = b;
	return 0;
}

void firn_builder_close(struct firn_builder *b)
{
	if (!b)
		return;
	for (uint32_t i = 0; i < b->nworkers; i++) {
		struct worker *w = &b->workers[i];

		firn_codec_close(&w->codec);
		explicit_bzero(w->raw, (size_t)b->batch_pages * b->page_size);
		explicit_bzero(w->scratch,
			       (size_t)b->batch_pages / FIRN_BLOCK_PAGES * b->scratch_stride);
		explicit_bzero(w->page, b->page_size);
	}
	firn_turn_close(&b->elide_turn);
	firn_turn_close(&b->place_turn);
	firn_digester_close(&b->digester);
	firn_output_close(&b->out);
	firn_memory_release(b->out.ring, b->map_bytes);
	free(b);
}

void firn_builder_reuse_below(struct firn_builder *b, uint32_t blocks)
{
	b->reuse_below = blocks;
}

void firn_builder_abort(struct firn_builder *b)
{
	firn_output_fail(&b->out, -ECANCELED);
}

void firn_builder_write_all(struct firn_builder *b)
{
	firn_output_write_all(&b->out);
}

int firn_builder_begin(struct firn_builder *b, const struct firn_builder_pack *pack)
{
	struct firn_pack_header *h = &b->header;
	const uint32_t header_bytes = sizeof(*h);
	uint64_t offset;

	b->active = false;
	if ((!pack->blocks && pack->blocks_cap) || (!pack->fills && pack->fills_cap))
		return -EINVAL;
	if ((pack->digests || pack->base) && !b->digests)
		return -EINVAL;
	/* One base at most lies below a pack. */
	if (pack->digests && pack->base)
		return -EINVAL;
	/* Its nonces may be used up: trying again under it would undo the encryption of both. */
	if (b->begun && pack->generation == b->pack.generation)
		return -EINVAL;
	b->begun = true;
	b->pack = *pack;
	if (b->pack.blocks_cap > FIRN_BLOCKS_MAX)
		b->pack.blocks_cap = FIRN_BLOCKS_MAX;
	firn_elider_begin(&b->elider, pack->fills,
			  pack->fills_cap < FIRN_FILLS_MAX ? pack->fills_cap : FIRN_FILLS_MAX);
	memset(&b->stats, 0, sizeof(b->stats));
	b->published = b->stats;
	b->next_block = 0;
	b->base_blocks = pack->base ? pack->base->blocks : 0;
	b->reuse_below = UINT32_MAX;
	b->sliced_pages = 0;

	firn_pack_make_header(h, pack, FIRN_PACK_COPIED, b->cipher, b->page_size);
	firn_output_begin(&b->out);
	firn_output_reserve(&b->out, &header_bytes, 1, &offset);
	firn_output_put(&b->out, offset, h, sizeof(*h));
	firn_output_filled(&b->out, offset, sizeof(*h));
	b->active = true;
	return 0;
}

/* --- One batch, by one worker -------------------------------------------------------------------- */

/* The first failure sticks, and nobody waits for a turn that will not come. */
static int fail(struct firn_builder *b, int err)
{
	err = firn_output_fail(&b->out, err);
	firn_turn_end(&b->elide_turn);
	firn_turn_end(&b->place_turn);
	return err;
}

/* The next batch for @w.  False: there is none, or all has failed. */
static bool take_batch(struct firn_builder *b, struct worker *w)
{
	struct cursor *c = &b->cursor;

	w->nruns = w->npages = 0;
	pthread_mutex_lock(&b->out.lock);
	while (!b->out.err && c->run < c->nruns && w->npages < b->batch_pages) {
		const struct firn_pack_run *from = &c->runs[c->run];
		uint32_t n = (uint32_t)firn_min_u64(from->npages - c->page,
						    b->batch_pages - w->npages);

		if (n)
			w->runs[w->nruns++] = (struct firn_pack_run){
				.start = { from->start.v + (uint64_t)c->page * b->page_size },
				.npages = n,
				.first_place = from->first_place + c->page,
			};
		w->npages += n;
		c->page += n;
		if (c->page == from->npages) {
			c->page = 0;
			c->run++;
		}
	}
	if (w->npages)
		w->number = c->batch++;
	pthread_mutex_unlock(&b->out.lock);
	return w->npages != 0;
}

struct candidate {
	struct firn_builder *b;
	struct worker *w;
	const uint8_t *page;
};

/* Is the stored page @o the same as the candidate?  Only bytes say so. */
static bool is_same(void *arg, const struct firn_original *o)
{
	struct candidate *c = arg;
	struct firn_pack_run original = { .start = { o->address }, .npages = 1 };
	uint32_t slot = o->slot - 1, own = c->w->first_block * FIRN_BLOCK_PAGES;
	const uint8_t *bytes = c->w->page;

	if (slot >= own)
		bytes = c->w->raw + (size_t)(slot - own) * c->b->page_size;
	else if (c->b->ops.read(c->b->ctx, &original, 1, c->w->page))
		return false;
	return !memcmp(bytes, c->page, c->b->page_size);
}

/* The place of page @k of the batch, at @address; a unique one moves to the front. */
static uint32_t place_page(struct firn_builder *b, struct worker *w, uint32_t k, uint64_t address)
{
	uint8_t *page = w->raw + (size_t)k * b->page_size, *to;
	struct candidate candidate = { b, w, page };
	uint64_t hash = w->scans[k].value;
	struct firn_original *free_entry;
	uint32_t value, base_slots = b->base_blocks * FIRN_BLOCK_PAGES;

	if (w->reused[k]) {
		b->stats.reused_pages++;
		return w->reused[k];
	}
	if (w->scans[k].is_filled) {
		if (!w->scans[k].value) {
			b->stats.zero_pages++;
			return firn_place(FIRN_PLACE_ZERO, 0);
		}
		if (firn_elider_find_fill(&b->elider, w->scans[k].value, &value)) {
			b->stats.fill_pages++;
			return firn_place(FIRN_PLACE_FILL, value);
		}
		hash = firn_hash(page, b->page_size);
	}
	if (firn_elider_find_original(&b->elider, hash, is_same, &candidate, &value, &free_entry)) {
		b->stats.duplicate_pages++;
		return firn_place(FIRN_PLACE_SLOT, base_slots + value);
	}
	value = w->first_block * FIRN_BLOCK_PAGES + w->unique;
	if (free_entry)
		firn_elider_enter(&b->elider, free_entry, hash, address, value);
	to = w->raw + (size_t)w->unique++ * b->page_size;
	if (to != page)
		memcpy(to, page, b->page_size);
	b->stats.unique_pages++;
	return firn_place(FIRN_PLACE_SLOT, base_slots + value);
}

/* In turn: say where each page will be, and number the blocks. */
static int elide(struct firn_builder *b, struct worker *w)
{
	uint32_t k = 0, nblocks;

	w->unique = 0;
	w->first_block = b->next_block;
	for (uint32_t n = 0; n < w->nruns; n++) {
		const struct firn_pack_run *run = &w->runs[n];

		for (uint32_t i = 0; i < run->npages; i++, k++)
			b->cursor.places[run->first_place + i] = place_page(
				b, w, k, run->start.v + (uint64_t)i * b->page_size);
	}
	nblocks = (w->unique + FIRN_BLOCK_PAGES - 1) / FIRN_BLOCK_PAGES;
	if (nblocks > b->pack.blocks_cap - b->next_block)
		return -ENOSPC;
	b->next_block += nblocks;
	b->stats.pages += w->npages;
	b->stats.fills = b->elider.nfills;
	return 0;
}

static uint32_t compress(struct firn_builder *b, struct worker *w)
{
	uint32_t n = 0;

	for (uint32_t page = 0; page < w->unique; page += FIRN_BLOCK_PAGES, n++) {
		struct job *j = &w->jobs[n];
		uint32_t pages = (uint32_t)firn_min_u64(w->unique - page, FIRN_BLOCK_PAGES);

		j->raw_bytes = pages * b->page_size;
		j->stored_bytes = firn_codec_compress(
			&w->codec, w->raw + (size_t)n * b->block_bytes, j->raw_bytes,
			w->scratch + (size_t)n * b->scratch_stride, &j->codec);
		w->sizes[n] = (uint32_t)firn_block_span_bytes(j->stored_bytes);
	}
	return n;
}

/* Encrypt block @n of the batch to where it belongs. */
static int seal(struct firn_builder *b, struct worker *w, uint32_t n)
{
	const struct job *j = &w->jobs[n];
	struct firn_piece p = {
		.generation = b->pack.generation,
		.number = w->first_block + n,
		.raw_bytes = j->raw_bytes,
		.stored_bytes = j->stored_bytes,
		.codec = j->codec,
	};
	uint8_t *scratch = w->scratch + (size_t)n * b->scratch_stride;
	const uint8_t *data =
		j->codec == FIRN_CODEC_RAW ? w->raw + (size_t)n * b->block_bytes : scratch;
	uint32_t sealed = j->stored_bytes + FIRN_TAG_BYTES;
	uint8_t *to = firn_output_at(&b->out, w->offsets[n], w->sizes[n]);
	int r;

	r = firn_codec_seal(&w->codec, &p, data, to ? to : scratch);
	if (r < 0)
		return r;
	memset((to ? to : scratch) + sealed, 0, w->sizes[n] - sealed);
	if (!to)
		firn_output_put(&b->out, w->offsets[n], scratch, w->sizes[n]);
	return 0;
}

/* In turn: find room for the @n blocks; then, out of turn where there is room for all, seal them. */
static int place(struct firn_builder *b, struct worker *w, uint32_t n)
{
	for (uint32_t done = 0, some; done < n; done += some) {
		uint64_t bytes = 0;
		int r = firn_output_reserve(&b->out, w->sizes + done, n - done, w->offsets + done);

		if (r < 0)
			return r;
		some = (uint32_t)r;
		for (uint32_t i = done; i < done + some; i++) {
			b->pack.blocks[w->first_block + i] = (struct firn_block){
				.offset = { w->offsets[i] },
				.stored_bytes = w->jobs[i].stored_bytes,
				.raw_pages = (uint8_t)(w->jobs[i].raw_bytes / b->page_size),
				.codec = w->jobs[i].codec,
			};
			b->stats.raw_blocks += w->jobs[i].codec == FIRN_CODEC_RAW;
			bytes += w->sizes[i];
		}
		b->stats.stored_bytes += bytes;
		b->stats.blocks += some;
		if (done + some == n)
			firn_turn_pass(&b->place_turn);
		for (uint32_t i = done; i < done + some; i++) {
			r = seal(b, w, i);
			if (r < 0)
				return r;
		}
		firn_output_filled(&b->out, w->offsets[done], (uint32_t)bytes);
	}
	return 0;
}

/* Look at each page by itself: is it one word, and if not, is it in the base? */
static void scan(struct firn_builder *b, struct worker *w)
{
	bool digests = b->pack.digests || b->pack.base;
	uint32_t k = 0;

	memset(w->reused, 0, w->npages * sizeof(*w->reused));
	for (uint32_t n = 0; n < w->nruns; n++) {
		const struct firn_pack_run *run = &w->runs[n];

		for (uint32_t i = 0; i < run->npages; i++, k++) {
			const uint8_t *page = w->raw + (size_t)k * b->page_size;
			struct firn_scan *s = &w->scans[k];
			struct firn_digest digest;

			if (!digests) {
				*s = firn_elide_scan(page, b->page_size);
				firn_elider_expect(&b->elider, s->value);
				continue;
			}
			s->is_filled = firn_elide_is_filled(page, b->page_size, &s->value);
			if (s->is_filled)
				continue;
			digest = firn_digest_page(&b->digester, page, b->page_size);
			s->value = digest.v[0];
			if (b->pack.digests)
				b->pack.digests[run->first_place + i] = digest;
			if (b->pack.base)
				w->reused[k] = firn_base_find(b->pack.base, b->page_size,
							      run->start.v + (uint64_t)i * b->page_size, &digest,
							      b->reuse_below, &w->base_run);
			if (!w->reused[k])
				firn_elider_expect(&b->elider, s->value);
		}
	}
}

static int encode_batch(struct firn_builder *b, struct worker *w)
{
	uint32_t n;
	int r;

	r = b->ops.read(b->ctx, w->runs, w->nruns, w->raw);
	if (r)
		return r;
	scan(b, w);
	if (!firn_turn_await(&b->elide_turn, w->number))
		return -ECANCELED;
	r = elide(b, w);
	if (r < 0)
		return r;
	firn_turn_pass(&b->elide_turn);
	n = compress(b, w);
	if (!firn_turn_await(&b->place_turn, w->number))
		return -ECANCELED;
	if (n)
		return place(b, w, n);
	firn_turn_pass(&b->place_turn);
	return 0;
}

static void work(void *arg, uint32_t i, uint32_t thread)
{
	struct firn_builder *b = arg;
	struct worker *w = &b->workers[i];
	int r = 0;

	(void)thread;
	while (r == 0 && take_batch(b, w))
		r = encode_batch(b, w);
	if (r)
		fail(b, r);
}

/* --- The pack ------------------------------------------------------------------------------------ */

static int check_active(struct firn_builder *b)
{
	int err;

	pthread_mutex_lock(&b->out.lock);
	err = b->out.err ? b->out.err : b->active ? 0 : -EINVAL;
	pthread_mutex_unlock(&b->out.lock);
	return err;
}

static void publish(struct firn_builder *b)
{
	pthread_mutex_lock(&b->out.lock);
	b->published = b->stats;
	b->published.end = b->out.reserved;
	pthread_mutex_unlock(&b->out.lock);
}

int firn_builder_add(struct firn_builder *b, const struct firn_pack_run *runs, uint32_t nruns,
		     uint32_t *places)
{
	uint64_t pages = 0;
	uint32_t n;
	int r = check_active(b);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < nruns; i++)
		pages += runs[i].npages;
	if (!pages)
		return 0;
	b->cursor = (struct cursor){ .runs = runs, .nruns = nruns, .places = places };
	firn_turn_begin(&b->elide_turn);
	firn_turn_begin(&b->place_turn);
	n = (uint32_t)firn_min_u64(b->nworkers, (pages + b->batch_pages - 1) / b->batch_pages);
	if (b->ops.run)
		b->ops.run(b->ctx, n, work, b);
	else
		work(b, 0, 0);
	/* A callback that does not make all its calls must not go unnoticed. */
	if (b->cursor.run < nruns || atomic_load(&b->place_turn.now) != b->cursor.batch)
		firn_output_fail(&b->out, -EIO);
	publish(b);
	return check_active(b);
}

int firn_builder_end_slice(struct firn_builder *b)
{
	int r = check_active(b);

	if (r < 0)
		return r;
	if (b->stats.pages > b->sliced_pages)
		b->stats.slices++;
	b->sliced_pages = b->stats.pages;
	firn_elider_end_window(&b->elider, b->next_block * FIRN_BLOCK_PAGES);
	publish(b);
	return 0;
}

int firn_builder_await(struct firn_builder *b, uint64_t end)
{
	return firn_output_await(&b->out, end);
}

static int append(void *ctx, const void *data, uint32_t bytes)
{
	struct firn_builder *b = ctx;
	uint64_t offset;
	int r = firn_output_reserve(&b->out, &bytes, 1, &offset);

	if (r < 0)
		return r;
	firn_output_put(&b->out, offset, data, bytes);
	firn_output_filled(&b->out, offset, bytes);
	return 0;
}

int firn_builder_finish(struct firn_builder *b, const struct firn_builder_index *index,
			uint64_t *ret_bytes)
{
	struct firn_pack_index x =
		firn_pack_make_index(index, FIRN_PACK_COPIED, &b->pack, b->next_block, b->stats.fills);
	/* By the first worker's means. */
	const struct firn_pack_end end = { &b->workers[0].codec, b->workers[0].raw, b->workers[0].scratch,
					   append, b };
	struct firn_pack_footer footer = { 0 };
	int r = check_active(b);

	if (r < 0)
		return r;
	if (firn_pack_index_check(&x, b->page_size, b->out.reserved) < 0)
		return -EINVAL;
	r = firn_builder_end_slice(b);
	if (r < 0)
		return r;
	footer.slices = b->stats.slices;
	footer.zero_pages = b->stats.zero_pages;
	footer.fill_pages = b->stats.fill_pages;
	footer.duplicate_pages = b->stats.duplicate_pages;
	footer.unique_pages = b->stats.unique_pages;
	footer.raw_blocks = b->stats.raw_blocks;
	footer.reused_pages = b->stats.reused_pages;
	if (b->pack.base) {
		footer.base_generation = b->pack.base->generation;
		footer.base_bytes = b->pack.base->bytes;
		footer.base_blocks = b->pack.base->blocks;
		memcpy(footer.base_seal, b->pack.base->seal, sizeof(footer.base_seal));
	}
	r = firn_pack_append_end(&end, &b->header, &x, b->out.reserved, &footer);
	r = r < 0 ? firn_output_fail(&b->out, r) : firn_output_flush(&b->out);
	if (r < 0)
		return r;
	publish(b);
	b->active = false;
	if (ret_bytes)
		*ret_bytes = footer.file_bytes;
	return 0;
}

void firn_builder_get_stats(struct firn_builder *b, struct firn_builder_stats *ret)
{
	pthread_mutex_lock(&b->out.lock);
	*ret = b->published;
	ret->write_calls = b->out.write_calls;
	ret->write_bytes = b->out.written;
	pthread_mutex_unlock(&b->out.lock);
}
