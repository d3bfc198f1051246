/* SPDX-License-Identifier: MIT */
/*
 * Packs of kind direct: pages that were "written by their owner" are read back; what is damaged or
 * does not fit is refused.
 */
#include "pack_fixture.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <xxhash.h>

#include "engine/eviction.h"
#include "pack/direct.h"
#include "sys/sys.h"

#define PS 4096u
#define PAGES 100u

struct made {
	struct memory_file f;
	uint64_t bytes;
	uint8_t *pages;
	struct firn_pack_run runs[3];
	uint32_t places[PAGES];
	struct firn_block blocks[16];
};

/* As the target would: the runs' pages at @at, by one gathered write. */
static void write_pages(struct memory_file *f, const struct firn_pack_run *runs, uint32_t n, struct firn_poff at)
{
	assert_int_equal(at.v, f->bytes);
	for (uint32_t i = 0; i < n; i++) {
		memcpy(f->data + f->bytes, (const void *)(uintptr_t)runs[i].start.v, runs[i].npages * PS);
		f->bytes += runs[i].npages * PS;
	}
}

static struct firn_builder_index index_of(struct made *m, struct firn_pack_target *target)
{
	*target = (struct firn_pack_target){ .pid = 7, .runs = 3, .comm = "t" };
	return (struct firn_builder_index){
		.targets = target, .ntargets = 1, .runs = m->runs, .nruns = 3, .places = m->places, .nplaces = PAGES,
	};
}

/* 20 and 30 pages in one slice, 50 in the next. */
static void make(struct made *m, uint32_t blocks_cap)
{
	const struct firn_builder_pack pack = {
		.generation = 5, .pid = 7, .blocks = m->blocks, .blocks_cap = blocks_cap,
	};
	struct firn_pack_target target;
	struct firn_builder_index index;
	struct firn_direct *d;
	struct firn_poff at;
	uint64_t seed = 3;

	memset(m, 0, sizeof(*m));
	file_open(&m->f, 4u << 20);
	m->pages = aligned_alloc(PS, PAGES * 2 * PS);
	assert_non_null(m->pages);
	fill_random(&seed, m->pages, PAGES * 2 * PS);
	m->runs[0] = (struct firn_pack_run){ { (uintptr_t)m->pages }, 20, 0 };
	m->runs[1] = (struct firn_pack_run){ { (uintptr_t)m->pages + 40 * PS }, 30, 20 };
	m->runs[2] = (struct firn_pack_run){ { (uintptr_t)m->pages + 90 * PS }, 50, 50 };
	assert_int_equal(firn_direct_open(&d, PS, file_write, &m->f), 0);
	assert_int_equal(firn_direct_begin(d, &pack), 0);
	assert_int_equal(firn_direct_add(d, m->runs, 2, m->places, &at), 0);
	write_pages(&m->f, m->runs, 2, at);
	if (blocks_cap < 8) {
		assert_int_equal(firn_direct_add(d, m->runs + 2, 1, m->places, &at), -ENOSPC);
		assert_int_equal(firn_direct_blocks(d), 4);
		firn_direct_close(d);
		return;
	}
	assert_int_equal(firn_direct_add(d, m->runs + 2, 1, m->places, &at), 0);
	write_pages(&m->f, m->runs + 2, 1, at);
	assert_int_equal(firn_direct_end(d).v, (PAGES + 1) * PS);
	index = index_of(m, &target);
	assert_int_equal(firn_direct_finish(d, &index, &m->bytes), 0);
	assert_int_equal(m->bytes, m->f.bytes);
	assert_int_equal(m->f.writes, 2);       /* the header; index and footer */
	firn_direct_close(d);
}

static void done(struct made *m)
{
	file_close(&m->f);
	free(m->pages);
}

static void test_pages_read_back(void **state)
{
	static uint8_t page[PS];
	struct firn_reader r;
	struct made m;

	(void)state;
	make(&m, 16);
	assert_int_equal(firn_reader_open(&r, NULL, m.bytes, file_read, &m.f), 0);
	assert_int_equal(r.header.kind, FIRN_PACK_DIRECT);
	assert_int_equal(r.footer.slices, 2);
	assert_int_equal(r.footer.unique_pages, PAGES);
	assert_int_equal(firn_reader_verify(&r), 0);
	for (uint32_t i = 0; i < 3; i++)
		for (uint32_t k = 0; k < m.runs[i].npages; k++) {
			const uint8_t *want = (const uint8_t *)(uintptr_t)m.runs[i].start.v + k * PS;

			assert_int_equal(firn_reader_read_page(&r, m.places[m.runs[i].first_place + k], page), 0);
			assert_memory_equal(page, want, PS);
		}
	firn_reader_close(&r);
	done(&m);
}

static void test_table_full(void **state)
{
	struct made m;

	(void)state;
	make(&m, 7);
	done(&m);
}

static void test_failed_writes(void **state)
{
	struct firn_pack_target target;
	struct firn_builder_index index;
	struct firn_direct *d;
	struct firn_poff at;
	struct made m;
	uint64_t bytes = 0;

	(void)state;
	make(&m, 16);
	for (unsigned int n = 1; n <= 2; n++) {
		const struct firn_builder_pack pack = { .generation = 6, .blocks = m.blocks, .blocks_cap = 16 };

		m.f.bytes = m.f.writes = 0;
		m.f.fail_at = n;
		assert_int_equal(firn_direct_open(&d, PS, file_write, &m.f), 0);
		assert_int_equal(firn_direct_begin(d, &pack), n == 1 ? -ENOSPC : 0);
		if (n == 2) {
			assert_int_equal(firn_direct_add(d, m.runs, 3, m.places, &at), 0);
			write_pages(&m.f, m.runs, 3, at);
			index = index_of(&m, &target);
			assert_int_equal(firn_direct_finish(d, &index, &bytes), -ENOSPC);
		}
		assert_int_equal(bytes, 0);
		firn_direct_close(d);
	}
	done(&m);
}

/* A header that says direct and encrypted, or an entry that is compressed or not aligned, is no direct pack's. */
static void test_what_is_refused(void **state)
{
	struct firn_pack_header h;
	struct firn_block b = { { 4096 }, 2 * PS, 2, FIRN_CODEC_RAW, 0 };
	struct made m;

	(void)state;
	make(&m, 16);
	memcpy(&h, m.f.data, sizeof(h));
	assert_int_equal(firn_pack_header_check(&h), 0);
	h.cipher = FIRN_CIPHER_AES_256_OCB;
	h.checksum = XXH3_64bits(&h, offsetof(struct firn_pack_header, checksum));
	assert_int_equal(firn_pack_header_check(&h), -EBADMSG);
	done(&m);

	assert_true(firn_block_valid(&b, FIRN_PACK_DIRECT, PS, 3 * PS));
	assert_false(firn_block_valid(&b, FIRN_PACK_COPIED, PS, 3 * PS));       /* no room for a tag */
	b.offset.v += 16;
	assert_false(firn_block_valid(&b, FIRN_PACK_DIRECT, PS, 4 * PS));
	assert_true(firn_block_valid(&b, FIRN_PACK_COPIED, PS, 4 * PS));
	b = (struct firn_block){ { 4096 }, PS, 2, FIRN_CODEC_LZ4, 0 };
	assert_false(firn_block_valid(&b, FIRN_PACK_DIRECT, PS, 4 * PS));
	assert_true(firn_block_valid(&b, FIRN_PACK_COPIED, PS, 4 * PS));
}

static struct firn_sys real;

static long open_no_direct(const char *path, int flags, int mode)
{
	return flags & O_DIRECT ? -EINVAL : real.open(path, flags, mode);
}

/* A store without O_DIRECT; a target that may not write so much. */
static void test_plan(void **state)
{
	struct firn_engine en = { .config.store_dir = "/var/tmp", .page_size = PS };
	struct rlimit was, less;
	struct firn_err e = { 0 };

	(void)state;
	real = firn_sys;
	firn_sys.open = open_no_direct;
	assert_true(firn_direct_plan(&en, getpid(), 10, &e) < 0);
	assert_int_equal(e.code, FIRN_EXIT_STORE);
	assert_string_equal(e.reason, "store-not-direct");
	firn_sys = real;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	less = was;
	less.rlim_cur = FIRN_PACK_ALIGN + 9 * PS;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &less), 0);
	memset(&e, 0, sizeof(e));
	assert_int_equal(firn_direct_plan(&en, getpid(), 9, &e), 0);
	assert_true(firn_direct_plan(&en, getpid(), 10, &e) < 0);
	assert_int_equal(e.code, FIRN_EXIT_REFUSED);
	assert_string_equal(e.reason, "file-size-limit");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages_read_back),
		cmocka_unit_test(test_table_full),
		cmocka_unit_test(test_failed_writes),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_plan),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
