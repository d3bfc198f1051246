/* SPDX-License-Identifier: MIT */
/*
 * Pages in, a pack out.  Owns one mapping with all its buffers and tables, and a codec per worker;
 * does no I/O but through the callbacks, and allocates in firn_builder_open only.
 *
 * A unique page is copied to the staging buffer.  A full staging buffer (a batch) becomes stored
 * bytes in two parallel passes: compress (staging -> scratch), which gives each block its size and
 * so its offset, then seal (scratch, or staging for a block that did not shrink -> output buffer),
 * which encrypts each block straight to where it will be written from.
 *
 * Invariants, between calls:
 *   1. staging holds pages of blocks first_block.. only; blocks before that are sealed.
 *   2. out[cur][0, fill) are the bytes of the pack from out_offset on; fill <= out_bytes + slack.
 *   3. out_offset is a multiple of 4096, and everything before it has been handed to write().
 *   4. with wait(): the other output buffer may be under way if pending, and is not touched then.
 *   5. err != 0: nothing is encoded or written any more.
 */
#include "pack/builder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "pack/codec.h"

#define ORIGINALS (2u * FIRN_BUILDER_SLICE_PAGES)       /* load <= 0.5 */
#define FILL_SLOTS (2u * FIRN_FILLS_MAX)
#define PROBES_MAX 64u          /* a hostile target may choose pages whose hashes collide */
#define SAME_MAX 4u             /* candidates with the same hash that are looked at */

/* A unique page of this slice. */
struct original {
	uint64_t cookie;
	uint32_t hash;                  /* upper half of XXH3-64 */
	uint32_t slot;                  /* slot + 1; 0: free */
};

/* A block of the batch on its way. */
struct job {
	uint8_t *out;
	uint32_t raw_bytes;
	uint32_t stored_bytes;
	uint8_t codec;
	int err;
};

struct firn_builder {
	size_t map_bytes;
	uint32_t page_size;
	uint32_t block_bytes;           /* raw */
	uint32_t batch_blocks;
	uint32_t out_bytes;
	uint32_t workers;
	enum firn_cipher cipher;
	struct firn_builder_ops ops;
	void *ctx;

	struct job *jobs;               /* batch_blocks */
	struct original *originals;     /* ORIGINALS */
	uint32_t *fill_slots;           /* FILL_SLOTS: index in the fill table + 1; 0: free */
	uint8_t *staging;               /* batch_blocks * block_bytes */
	uint8_t *scratch;               /* the same */
	uint8_t *out[2];

	bool active;
	bool pending;                   /* a write may be under way */
	bool begun;                     /* pack.generation has been used */
	int err;
	uint32_t cur;                   /* output buffer in use */
	size_t fill;
	uint64_t out_offset;
	uint32_t first_block;
	uint32_t staged;                /* pages */
	uint32_t slice_pages;           /* added in this slice */
	uint32_t slice_originals;
	uint32_t slice_blocks;          /* sealed in this slice */
	uint32_t job_base;
	struct firn_builder_pack pack;
	struct firn_builder_stats stats;
	struct firn_codec codecs[FIRN_BUILDER_WORKERS_MAX];
	struct firn_pack_header header;
};

static size_t take(size_t *total, size_t bytes)
{
	size_t at = *total;

	*total += firn_align_up(bytes, FIRN_PACK_ALIGN);
	return at;
}

/* Present now, so that no page of it has to be found when memory is short. */
static int populate(void *map, size_t bytes)
{
	madvise(map, bytes, MADV_DONTDUMP);     /* other processes' memory; refused: no harm */
	madvise(map, bytes, MADV_HUGEPAGE);
#ifdef MADV_POPULATE_WRITE
	if (madvise(map, bytes, MADV_POPULATE_WRITE) == 0)
		return 0;
	if (errno != EINVAL)
		return -ENOMEM;
#endif
	memset(map, 0, bytes);
	return 0;
}

int firn_builder_open(struct firn_builder **ret, const struct firn_builder_config *config)
{
	uint32_t ps = config->page_size, workers = config->workers ? config->workers : 1;
	uint32_t out_bytes = config->out_bytes ? config->out_bytes : FIRN_BUILDER_OUT_BYTES;
	uint32_t batch_bytes = config->batch_bytes ? config->batch_bytes : FIRN_BUILDER_BATCH_BYTES;
	uint32_t block_bytes = FIRN_BLOCK_PAGES * ps, piece_bytes, batch_blocks;
	size_t jobs, originals, fill_slots, staging, scratch, out0, out1, out_room, total = 0;
	struct firn_builder *b;
	uint8_t *map;
	int r;

	*ret = NULL;
	if (ps < FIRN_PAGE_SIZE_MIN || ps > FIRN_PAGE_SIZE_MAX || (ps & (ps - 1)) ||
	    workers > FIRN_BUILDER_WORKERS_MAX || out_bytes < 65536 || out_bytes > (1u << 30) ||
	    out_bytes % FIRN_PACK_ALIGN || batch_bytes > (1u << 30) || !config->ops.write)
		return -EINVAL;
	piece_bytes = block_bytes > FIRN_INDEX_PIECE_BYTES ? block_bytes : FIRN_INDEX_PIECE_BYTES;
	batch_blocks = batch_bytes > block_bytes ? batch_bytes / block_bytes : 1;
	/* One piece may overrun; heads, tags, the footer and its padding come on top. */
	out_room = (size_t)out_bytes + piece_bytes + 3 * FIRN_PACK_ALIGN;

	take(&total, sizeof(*b));
	jobs = take(&total, batch_blocks * sizeof(struct job));
	originals = take(&total, ORIGINALS * sizeof(struct original));
	fill_slots = take(&total, FILL_SLOTS * sizeof(uint32_t));
	staging = take(&total, (size_t)batch_blocks * block_bytes);
	scratch = take(&total, (size_t)batch_blocks * block_bytes);
	out0 = take(&total, out_room);
	out1 = config->ops.wait ? take(&total, out_room) : out0;

	map = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		return -ENOMEM;
	if (populate(map, total) < 0) {
		munmap(map, total);
		return -ENOMEM;
	}
	b = (struct firn_builder *)map;
	b->map_bytes = total;
	b->page_size = ps;
	b->block_bytes = block_bytes;
	b->batch_blocks = batch_blocks;
	b->out_bytes = out_bytes;
	b->workers = workers;
	b->cipher = config->cipher;
	b->ops = config->ops;
	b->ctx = config->ctx;
	b->jobs = (struct job *)(map + jobs);
	b->originals = (struct original *)(map + originals);
	b->fill_slots = (uint32_t *)(map + fill_slots);
	b->staging = map + staging;
	b->scratch = map + scratch;
	b->out[0] = map + out0;
	b->out[1] = map + out1;
	for (uint32_t i = 0; i < workers; i++) {
		r = firn_codec_open(&b->codecs[i], config->cipher, config->key, piece_bytes);
		if (r < 0) {
			firn_builder_close(b);
			return r;
		}
	}
	*ret = b;
	return 0;
}

void firn_builder_close(struct firn_builder *b)
{
	if (!b)
		return;
	if (b->pending)
		b->ops.wait(b->ctx);
	for (uint32_t i = 0; i < b->workers; i++)
		firn_codec_close(&b->codecs[i]);
	explicit_bzero(b->staging, (size_t)b->batch_blocks * b->block_bytes);
	explicit_bzero(b->scratch, (size_t)b->batch_blocks * b->block_bytes);
	munmap(b, b->map_bytes);
}

static int fail(struct firn_builder *b, int r)
{
	if (!b->err)
		b->err = r < 0 ? r : -EIO;
	return b->err;
}

static int wait_pending(struct firn_builder *b)
{
	int r = 0;

	if (b->pending) {
		b->pending = false;
		r = b->ops.wait(b->ctx);
	}
	return r ? fail(b, r) : 0;
}

/* Write the first @len bytes of the output buffer; what lies behind them starts the next one. */
static int write_out(struct firn_builder *b, size_t len)
{
	const uint8_t *full = b->out[b->cur];
	int r;

	r = wait_pending(b);
	if (r < 0)
		return r;
	r = b->ops.write(b->ctx, full, len, (struct firn_poff){ b->out_offset });
	if (r)
		return fail(b, r);
	b->stats.write_calls++;
	b->stats.write_bytes += len;
	if (b->ops.wait) {
		b->pending = true;
		b->cur ^= 1;
	}
	b->out_offset += len;
	b->fill -= len;
	if (b->fill)
		memmove(b->out[b->cur], full + len, b->fill);
	return 0;
}

/* Make room behind fill for one more piece. */
static int make_room(struct firn_builder *b)
{
	int r = 0;

	while (r == 0 && b->fill >= b->out_bytes)
		r = write_out(b, b->out_bytes);
	return r;
}

/* Write everything, zero padded to 4096, and see it through. */
static int drain(struct firn_builder *b)
{
	size_t padded;
	int r;

	while (b->fill > b->out_bytes) {
		r = write_out(b, b->out_bytes);
		if (r < 0)
			return r;
	}
	padded = firn_align_up(b->fill, FIRN_PACK_ALIGN);
	if (padded) {
		memset(b->out[b->cur] + b->fill, 0, padded - b->fill);
		b->fill = padded;
		r = write_out(b, padded);
		if (r < 0)
			return r;
	}
	return wait_pending(b);
}

static void run(struct firn_builder *b, uint32_t n,
		void (*fn)(void *arg, uint32_t i, uint32_t worker))
{
	if (b->ops.run && n > 1) {
		b->ops.run(b->ctx, n, fn, b);
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		fn(b, i, 0);
}

static void compress_job(void *arg, uint32_t i, uint32_t worker)
{
	struct firn_builder *b = arg;
	struct job *j = &b->jobs[i];
	size_t at = (size_t)i * b->block_bytes;

	if (worker >= b->workers) {
		j->err = -EINVAL;
		return;
	}
	j->stored_bytes = firn_codec_compress(&b->codecs[worker], b->staging + at, j->raw_bytes,
					      b->scratch + at, &j->codec);
	j->err = 0;
}

static void seal_job(void *arg, uint32_t i, uint32_t worker)
{
	struct firn_builder *b = arg;
	struct job *j = &b->jobs[b->job_base + i];
	size_t at = (size_t)(b->job_base + i) * b->block_bytes;
	struct firn_piece p = {
		.generation = b->pack.generation,
		.number = b->first_block + b->job_base + i,
		.raw_bytes = j->raw_bytes,
		.stored_bytes = j->stored_bytes,
		.codec = j->codec,
	};
	uint32_t sealed = j->stored_bytes + FIRN_TAG_BYTES;

	if (worker >= b->workers) {
		j->err = -EINVAL;
		return;
	}
	j->err = firn_codec_seal(&b->codecs[worker], &p,
				 (j->codec == FIRN_CODEC_RAW ? b->staging : b->scratch) + at,
				 j->out);
	memset(j->out + sealed, 0, firn_block_span_bytes(j->stored_bytes) - sealed);
}

/* A callback that does not make all its calls must not go unnoticed. */
static void expect_jobs(struct firn_builder *b, uint32_t first, uint32_t n)
{
	for (uint32_t i = first; i < first + n; i++)
		b->jobs[i].err = -EIO;
}

static int jobs_result(struct firn_builder *b, uint32_t first, uint32_t n)
{
	for (uint32_t i = first; i < first + n; i++) {
		if (b->jobs[i].err)
			return fail(b, b->jobs[i].err);
	}
	return 0;
}

/* Seal as many blocks as begin before the end of the output buffer, from @first on. */
static int seal_some(struct firn_builder *b, uint32_t first, uint32_t nblocks, uint32_t *ret_next)
{
	size_t pos = b->fill;
	uint32_t i;
	int r;

	for (i = first; i < nblocks && pos < b->out_bytes; i++) {
		struct job *j = &b->jobs[i];

		j->out = b->out[b->cur] + pos;
		pos += firn_block_span_bytes(j->stored_bytes);
	}
	expect_jobs(b, first, i - first);
	b->job_base = first;
	run(b, i - first, seal_job);
	r = jobs_result(b, first, i - first);
	if (r < 0)
		return r;
	for (uint32_t k = first; k < i; k++) {
		const struct job *j = &b->jobs[k];

		b->pack.blocks[b->first_block + k] = (struct firn_block){
			.offset = { b->out_offset + (uint64_t)(j->out - b->out[b->cur]) },
			.stored_bytes = j->stored_bytes,
			.raw_pages = (uint8_t)(j->raw_bytes / b->page_size),
			.codec = j->codec,
		};
		b->stats.raw_blocks += j->codec == FIRN_CODEC_RAW;
	}
	b->stats.stored_bytes += pos - b->fill;
	b->fill = pos;
	*ret_next = i;
	return 0;
}

/* Encode what is staged, whole blocks and a last partial one. */
static int encode_batch(struct firn_builder *b)
{
	uint32_t nblocks = (b->staged + FIRN_BLOCK_PAGES - 1) / FIRN_BLOCK_PAGES, next = 0;
	int r;

	for (uint32_t i = 0; i < nblocks; i++)
		b->jobs[i].raw_bytes = b->block_bytes;
	if (b->staged % FIRN_BLOCK_PAGES)
		b->jobs[nblocks - 1].raw_bytes = b->staged % FIRN_BLOCK_PAGES * b->page_size;
	expect_jobs(b, 0, nblocks);
	run(b, nblocks, compress_job);
	r = jobs_result(b, 0, nblocks);
	if (r < 0)
		return r;
	while (next < nblocks) {
		r = make_room(b);
		if (r < 0)
			return r;
		r = seal_some(b, next, nblocks, &next);
		if (r < 0)
			return r;
	}
	b->first_block += nblocks;
	b->slice_blocks += nblocks;
	b->stats.blocks += nblocks;
	b->staged = 0;
	return 0;
}

static uint32_t host_machine(void)
{
#if defined(__x86_64__)
	return 62;
#elif defined(__aarch64__)
	return 183;
#else
	return 0;
#endif
}

static void forget_originals(struct firn_builder *b)
{
	if (b->slice_originals)
		memset(b->originals, 0, ORIGINALS * sizeof(*b->originals));
	b->slice_originals = 0;
}

int firn_builder_begin(struct firn_builder *b, const struct firn_builder_pack *pack)
{
	struct firn_pack_header *h = &b->header;
	int r;

	b->active = false;
	r = wait_pending(b);
	b->err = 0;
	if (r < 0)
		return r;
	if ((!pack->blocks && pack->blocks_cap) || (!pack->fills && pack->fills_cap))
		return -EINVAL;
	/* Its nonces may be used up: trying again under it would undo the encryption of both. */
	if (b->begun && pack->generation == b->pack.generation)
		return -EINVAL;
	b->begun = true;
	b->pack = *pack;
	if (b->pack.blocks_cap > FIRN_BLOCKS_MAX)
		b->pack.blocks_cap = FIRN_BLOCKS_MAX;
	if (b->pack.fills_cap > FIRN_FILLS_MAX)
		b->pack.fills_cap = FIRN_FILLS_MAX;
	forget_originals(b);
	if (b->stats.fills)
		memset(b->fill_slots, 0, FILL_SLOTS * sizeof(*b->fill_slots));
	memset(&b->stats, 0, sizeof(b->stats));
	b->first_block = b->staged = b->slice_pages = b->slice_blocks = 0;

	memset(h, 0, sizeof(*h));
	memcpy(h->magic, FIRN_PACK_MAGIC, sizeof(h->magic));
	h->version = FIRN_PACK_VERSION;
	h->header_bytes = sizeof(*h);
	h->kind = FIRN_PACK_COPIED;
	h->cipher = (uint8_t)b->cipher;
	h->codec = FIRN_CODEC_LZ4;
	h->block_pages = FIRN_BLOCK_PAGES;
	h->page_size = b->page_size;
	h->machine = pack->machine ? pack->machine : host_machine();
	h->pid = pack->pid;
	h->generation = pack->generation;
	h->start_time = pack->start_time;
	h->created_ns = pack->created_ns;
	memcpy(h->boot_id, pack->boot_id, sizeof(h->boot_id));
	memcpy(h->comm, pack->comm, sizeof(h->comm));
	h->checksum = XXH3_64bits(h, offsetof(struct firn_pack_header, checksum));
	b->cur = 0;
	memcpy(b->out[0], h, sizeof(*h));
	b->fill = sizeof(*h);
	b->out_offset = 0;
	b->active = true;
	return 0;
}

/* Is the page one word over and over?  Leaves at the first that differs. */
static bool is_filled(const uint64_t *words, uint32_t page_size)
{
	return words[0] == words[1] && words[0] == words[page_size / 16] &&
	       words[0] == words[page_size / 8 - 1] && !memcmp(words, words + 1, page_size - 8);
}

/* The fill table's index of @word, entering it where it is new.  Returns false when it cannot. */
static bool find_fill(struct firn_builder *b, uint64_t word, uint32_t *ret)
{
	uint32_t at = (uint32_t)((word * 0x9E3779B97F4A7C15u) >> 40);

	for (uint32_t probe = 0; probe < PROBES_MAX; probe++) {
		uint32_t *slot = &b->fill_slots[(at + probe) % FILL_SLOTS];

		if (!*slot) {
			if (b->stats.fills >= b->pack.fills_cap)
				return false;
			b->pack.fills[b->stats.fills] = word;
			*slot = ++b->stats.fills;
			*ret = *slot - 1;
			return true;
		}
		if (b->pack.fills[*slot - 1] == word) {
			*ret = *slot - 1;
			return true;
		}
	}
	return false;
}

static bool is_same(struct firn_builder *b, const struct original *o, bool has_cookie,
		    const uint8_t *page)
{
	uint32_t slot = o->slot - 1, staged_from = b->first_block * FIRN_BLOCK_PAGES;

	if (slot >= staged_from)
		return !memcmp(b->staging + (size_t)(slot - staged_from) * b->page_size, page,
			       b->page_size);
	if (!b->ops.same || !has_cookie)
		return false;
	b->stats.same_calls++;
	return b->ops.same(b->ctx, o->cookie, page) == 1;
}

/*
 * The slot of an equal page of this slice.  Otherwise false, and *@ret_free is where this page may
 * be entered, NULL for nowhere.
 */
static bool find_original(struct firn_builder *b, uint64_t hash, bool has_cookie,
			  const uint8_t *page, uint32_t *ret_slot, struct original **ret_free)
{
	uint32_t candidates = 0;

	*ret_free = NULL;
	for (uint32_t probe = 0; probe < PROBES_MAX; probe++) {
		struct original *o = &b->originals[((uint32_t)hash + probe) % ORIGINALS];

		if (!o->slot) {
			if (b->slice_originals < FIRN_BUILDER_SLICE_PAGES)
				*ret_free = o;
			return false;
		}
		if (o->hash != hash >> 32)
			continue;
		if (is_same(b, o, has_cookie, page)) {
			*ret_slot = o->slot - 1;
			return true;
		}
		if (++candidates == SAME_MAX)
			return false;
	}
	return false;
}

static int add_page(struct firn_builder *b, const uint8_t *page, const uint64_t *cookie,
		    uint32_t *place)
{
	const uint64_t *words = (const uint64_t *)page;
	struct original *free_entry;
	uint32_t value;
	uint64_t hash;
	int r;

	if (is_filled(words, b->page_size)) {
		if (!words[0]) {
			b->stats.zero_pages++;
			*place = firn_place(FIRN_PLACE_ZERO, 0);
			return 0;
		}
		if (find_fill(b, words[0], &value)) {
			b->stats.fill_pages++;
			*place = firn_place(FIRN_PLACE_FILL, value);
			return 0;
		}
	}

	hash = XXH3_64bits(page, b->page_size);
	if (find_original(b, hash, cookie, page, &value, &free_entry)) {
		b->stats.duplicate_pages++;
		*place = firn_place(FIRN_PLACE_SLOT, value);
		return 0;
	}

	if (b->staged == b->batch_blocks * FIRN_BLOCK_PAGES) {
		r = encode_batch(b);
		if (r < 0)
			return r;
	}
	value = b->first_block * FIRN_BLOCK_PAGES + b->staged;
	if (value / FIRN_BLOCK_PAGES >= b->pack.blocks_cap)
		return fail(b, -ENOSPC);
	memcpy(b->staging + (size_t)b->staged * b->page_size, page, b->page_size);
	b->staged++;
	if (free_entry) {
		*free_entry = (struct original){
			.cookie = cookie ? *cookie : 0,
			.hash = (uint32_t)(hash >> 32),
			.slot = value + 1,
		};
		b->slice_originals++;
	}
	b->stats.unique_pages++;
	*place = firn_place(FIRN_PLACE_SLOT, value);
	return 0;
}

static int check_active(const struct firn_builder *b)
{
	return b->err ? b->err : b->active ? 0 : -EINVAL;
}

int firn_builder_add_pages(struct firn_builder *b, const void *pages, uint32_t n,
			   const uint64_t *cookies, uint32_t *places)
{
	int r = check_active(b);

	for (uint32_t i = 0; r == 0 && i < n; i++) {
		r = add_page(b, (const uint8_t *)pages + (size_t)i * b->page_size,
			     cookies ? &cookies[i] : NULL, &places[i]);
		if (r == 0) {
			b->stats.pages++;
			b->slice_pages++;
		}
	}
	return r;
}

static void count_slice(struct firn_builder *b)
{
	forget_originals(b);
	b->stats.slices += b->slice_pages != 0;
	b->slice_pages = b->slice_blocks = 0;
}

int firn_builder_end_slice(struct firn_builder *b)
{
	int r = check_active(b);

	if (r == 0 && b->staged)
		r = encode_batch(b);
	if (r == 0 && b->slice_blocks)
		r = drain(b);
	if (r == 0)
		count_slice(b);
	return r;
}

/* Where in the index's sections the next piece begins. */
struct index_cursor {
	uint32_t section;
	uint64_t done_bytes;            /* of that section */
};

/* Copy up to @room bytes of the index, in the order of its sections. */
static uint32_t gather_index(const struct firn_pack_index *x, struct index_cursor *c, uint8_t *to,
			     uint32_t room)
{
	const struct {
		const void *data;
		uint64_t bytes;
	} sections[] = {
		{ x->targets, x->ntargets * (uint64_t)sizeof(*x->targets) },
		{ x->runs, x->nruns * (uint64_t)sizeof(*x->runs) },
		{ x->blocks, x->nblocks * (uint64_t)sizeof(*x->blocks) },
		{ x->fills, x->nfills * (uint64_t)sizeof(*x->fills) },
		{ x->places, x->nplaces * (uint64_t)sizeof(*x->places) },
	};
	uint32_t done = 0;

	while (c->section < ARRAY_SIZE(sections) && done < room) {
		uint32_t n = (uint32_t)firn_min_u64(sections[c->section].bytes - c->done_bytes,
						    room - done);

		if (c->section < ARRAY_SIZE(sections) - 1 || x->place_stride == sizeof(uint32_t)) {
			if (n)
				memcpy(to + done,
				       (const uint8_t *)sections[c->section].data + c->done_bytes,
				       n);
		} else {
			/* Sections and pieces are multiples of four bytes. */
			for (uint32_t i = 0; i < n; i += sizeof(uint32_t)) {
				uint32_t place = firn_pack_index_place(
					x, (uint32_t)((c->done_bytes + i) / sizeof(uint32_t)));

				memcpy(to + done + i, &place, sizeof(place));
			}
		}
		done += n;
		c->done_bytes += n;
		if (c->done_bytes == sections[c->section].bytes) {
			c->section++;
			c->done_bytes = 0;
		}
	}
	return done;
}

/* Append the index to the output.  Staging and scratch are free: everything staged is encoded. */
static int append_index(struct firn_builder *b, const struct firn_pack_index *x,
			struct firn_pack_footer *f)
{
	struct index_cursor cursor = { 0, 0 };
	uint32_t n;
	int r;

	f->index_offset = b->out_offset + b->fill;
	f->index_raw_bytes = firn_pack_index_bytes(x);
	while ((n = gather_index(x, &cursor, b->staging, FIRN_INDEX_PIECE_BYTES)) > 0) {
		struct firn_piece p = {
			.generation = b->pack.generation,
			.number = FIRN_INDEX_FIRST_NUMBER + f->index_pieces,
			.raw_bytes = n,
		};
		struct firn_index_piece head = { .raw_bytes = n };
		uint8_t *out;
		size_t span;

		r = make_room(b);
		if (r < 0)
			return r;
		out = b->out[b->cur] + b->fill;
		r = firn_codec_encode(&b->codecs[0], &p, b->staging, out + sizeof(head));
		if (r < 0)
			return fail(b, r);
		head.stored_bytes = p.stored_bytes;
		head.codec = p.codec;
		memcpy(out, &head, sizeof(head));
		span = sizeof(head) + firn_block_span_bytes(p.stored_bytes);
		memset(out + sizeof(head) + p.stored_bytes + FIRN_TAG_BYTES, 0,
		       span - sizeof(head) - p.stored_bytes - FIRN_TAG_BYTES);
		b->fill += span;
		f->index_bytes += span;
		f->index_pieces++;
	}
	return 0;
}

static int append_footer(struct firn_builder *b, const struct firn_pack_index *x,
			 struct firn_pack_footer *f)
{
	size_t at = firn_align_up(b->fill, FIRN_PACK_ALIGN);
	int r;

	memcpy(f->magic, FIRN_FOOTER_MAGIC, sizeof(f->magic));
	f->version = FIRN_PACK_VERSION;
	f->generation = b->pack.generation;
	f->file_bytes = b->out_offset + at + sizeof(*f);
	f->targets = x->ntargets;
	f->runs = x->nruns;
	f->blocks = x->nblocks;
	f->fills = x->nfills;
	f->places = x->nplaces;
	f->slices = b->stats.slices + (b->slice_pages != 0);
	f->zero_pages = b->stats.zero_pages;
	f->fill_pages = b->stats.fill_pages;
	f->duplicate_pages = b->stats.duplicate_pages;
	f->unique_pages = b->stats.unique_pages;
	f->raw_blocks = b->stats.raw_blocks;
	r = firn_codec_sign(&b->codecs[0], b->pack.generation, &b->header, sizeof(b->header), f,
			    offsetof(struct firn_pack_footer, seal), f->seal);
	if (r < 0)
		return fail(b, r);
	f->checksum = XXH3_64bits(f, offsetof(struct firn_pack_footer, checksum));
	memset(b->out[b->cur] + b->fill, 0, at - b->fill);
	memcpy(b->out[b->cur] + at, f, sizeof(*f));
	b->fill = at + sizeof(*f);
	return 0;
}

int firn_builder_finish(struct firn_builder *b, const struct firn_builder_index *index,
			uint64_t *ret_bytes)
{
	struct firn_pack_footer footer = { 0 };
	struct firn_pack_index x = {
		.targets = index->targets,
		.runs = index->runs,
		.blocks = b->pack.blocks,
		.fills = b->pack.fills,
		.places = index->places,
		.ntargets = index->ntargets,
		.nruns = index->nruns,
		.nfills = b->stats.fills,
		.nplaces = index->nplaces,
		.place_stride = index->place_stride ? index->place_stride : sizeof(uint32_t),
	};
	int r = check_active(b);

	if (r == 0 && b->staged)
		r = encode_batch(b);
	if (r < 0)
		return r;
	x.nblocks = b->first_block;
	if (firn_pack_index_check(&x, b->page_size, b->out_offset + b->fill) < 0)
		return -EINVAL;
	r = append_index(b, &x, &footer);
	if (r == 0)
		r = append_footer(b, &x, &footer);
	if (r == 0)
		r = drain(b);
	if (r < 0)
		return r;
	count_slice(b);
	b->active = false;
	if (ret_bytes)
		*ret_bytes = footer.file_bytes;
	return 0;
}

void firn_builder_get_stats(const struct firn_builder *b, struct firn_builder_stats *ret)
{
	*ret = b->stats;
}
