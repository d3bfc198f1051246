/* SPDX-License-Identifier: MIT */
#include "pack/ends.h"

#include <string.h>
#include <xxhash.h>

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

void firn_pack_make_header(struct firn_pack_header *h, const struct firn_builder_pack *pack,
			   enum firn_pack_kind kind, enum firn_cipher cipher, uint32_t page_size)
{
	memset(h, 0, sizeof(*h));
	memcpy(h->magic, FIRN_PACK_MAGIC, sizeof(h->magic));
	h->version = FIRN_PACK_VERSION;
	h->header_bytes = sizeof(*h);
	h->kind = (uint8_t)kind;
	h->cipher = (uint8_t)cipher;
	h->codec = kind == FIRN_PACK_DIRECT ? FIRN_CODEC_RAW : FIRN_CODEC_LZ4;
	h->block_pages = FIRN_BLOCK_PAGES;
	h->page_size = page_size;
	h->machine = pack->machine ? pack->machine : host_machine();
	h->pid = pack->pid;
	h->generation = pack->generation;
	h->start_time = pack->start_time;
	h->created_ns = pack->created_ns;
	memcpy(h->boot_id, pack->boot_id, sizeof(h->boot_id));
	memcpy(h->comm, pack->comm, sizeof(h->comm));
	h->checksum = XXH3_64bits(h, offsetof(struct firn_pack_header, checksum));
}

struct firn_pack_index firn_pack_make_index(const struct firn_builder_index *given,
					    enum firn_pack_kind kind,
					    const struct firn_builder_pack *pack, uint32_t nblocks,
					    uint32_t nfills)
{
	return (struct firn_pack_index){
		.kind = kind,
		.targets = given->targets,
		.runs = given->runs,
		.blocks = pack->blocks,
		.fills = pack->fills,
		.places = given->places,
		.ntargets = given->ntargets,
		.nruns = given->nruns,
		.nblocks = nblocks,
		.nfills = nfills,
		.nplaces = given->nplaces,
		.digests = pack->digests,
		.ndigests = pack->digests ? given->nplaces : 0,
		.base_blocks = pack->base ? pack->base->blocks : 0,
		.place_stride = given->place_stride ? given->place_stride : sizeof(uint32_t),
	};
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
		{ x->digests, x->ndigests * (uint64_t)sizeof(*x->digests) },
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

static int append(const struct firn_pack_end *e, const void *data, uint32_t bytes, uint64_t *at)
{
	*at += bytes;
	return e->append(e->ctx, data, bytes);
}

static int append_index(const struct firn_pack_end *e, const struct firn_pack_index *x, uint64_t *at,
			struct firn_pack_footer *f)
{
	struct index_cursor cursor = { 0, 0 };
	uint32_t n;
	int r = 0;

	f->index_offset = *at;
	f->index_raw_bytes = firn_pack_index_bytes(x);
	while (r == 0 && (n = gather_index(x, &cursor, e->raw, FIRN_INDEX_PIECE_BYTES)) > 0) {
		struct firn_piece p = {
			.generation = f->generation,
			.number = FIRN_INDEX_FIRST_NUMBER + f->index_pieces,
			.raw_bytes = n,
		};
		struct firn_index_piece head = { .raw_bytes = n };
		uint8_t *out = e->stored + sizeof(head);
		uint32_t span;

		r = firn_codec_encode(e->codec, &p, e->raw, out);
		if (r < 0)
			return r;
		head.stored_bytes = p.stored_bytes;
		head.codec = p.codec;
		memcpy(e->stored, &head, sizeof(head));
		span = (uint32_t)firn_block_span_bytes(p.stored_bytes);
		memset(out + p.stored_bytes + FIRN_TAG_BYTES, 0,
		       span - p.stored_bytes - FIRN_TAG_BYTES);
		span += (uint32_t)sizeof(head);
		r = append(e, e->stored, span, at);
		f->index_bytes += span;
		f->index_pieces++;
	}
	return r;
}

int firn_pack_append_end(const struct firn_pack_end *e, const struct firn_pack_header *h,
			 const struct firn_pack_index *x, uint64_t at, struct firn_pack_footer *f)
{
	static const uint8_t zeros[FIRN_PACK_ALIGN];
	uint64_t aligned;
	int r;

	f->generation = h->generation;
	r = append_index(e, x, &at, f);
	aligned = firn_align_up(at, FIRN_PACK_ALIGN);
	if (r == 0 && aligned > at)
		r = append(e, zeros, (uint32_t)(aligned - at), &at);
	if (r < 0)
		return r;
	memcpy(f->magic, FIRN_FOOTER_MAGIC, sizeof(f->magic));
	f->version = FIRN_PACK_VERSION;
	f->file_bytes = at + sizeof(*f);
	f->targets = x->ntargets;
	f->runs = x->nruns;
	f->blocks = x->nblocks;
	f->fills = x->nfills;
	f->places = x->nplaces;
	f->digests = x->ndigests;
	r = firn_codec_sign(e->codec, h->generation, h, sizeof(*h), f,
			    offsetof(struct firn_pack_footer, seal), f->seal);
	if (r < 0)
		return r;
	f->checksum = XXH3_64bits(f, offsetof(struct firn_pack_footer, checksum));
	return append(e, f, sizeof(*f), &at);
}
