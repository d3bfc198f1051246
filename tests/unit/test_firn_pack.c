/* SPDX-License-Identifier: MIT */
/* tools/firn-pack, which shares no code with src/pack, reads what src/pack writes, byte for byte.
 */
#include "pack_fixture.h"

#include <openssl/evp.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define PAGES 700u
#define BLOCKS_CAP 64u

static struct firn_block blocks[BLOCKS_CAP];
static uint64_t fills[64];
static uint32_t places[PAGES];
static char dir[] = "/tmp/firn-pack-test-XXXXXX";
static char tool[4096];

/* Run the tool; its output, both streams, is in @out.  Returns the exit code. */
static FIRN_PRINTF(3, 4) int run_tool(char *out, size_t cap, const char *format, ...)
{
	char command[8192];
	size_t n;
	va_list ap;
	FILE *p;
	int at, status;

	at = snprintf(command, sizeof(command), "exec 2>&1; '%s' ", tool);
	va_start(ap, format);
	vsnprintf(command + at, sizeof(command) - (size_t)at, format, ap);
	va_end(ap);
	p = popen(command, "r");
	assert_non_null(p);
	n = fread(out, 1, cap - 1, p);
	out[n] = 0;
	status = pclose(p);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void write_file(const char *name, const void *data, size_t n)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(data, 1, n, file), n);
	assert_int_equal(fclose(file), 0);
}

static void make_pages(uint8_t *pages, uint32_t ps, uint64_t *seed)
{
	for (uint32_t i = 0; i < PAGES; i++) {
		uint8_t *page = pages + (size_t)i * ps;

		if (i % 9 == 0)
			memset(page, 0, ps);
		else if (i % 9 == 1)
			memset(page, (int)(i % 5 + 1), ps);
		else if (i >= 48 && i < 70)
			fill_random(seed, page, ps);
		else if (i % 9 == 2 && i > 9)
			memcpy(page, page - 7 * ps, ps);
		else
			fill_half(seed, page, ps);
	}
}

/* The first 300 pages are a target with two runs, the others one with a single run. */
static const struct firn_pack_target targets[2] = {
	{ .pid = 11, .start_time = 5, .first_run = 0, .runs = 2, .comm = "first" },
	{ .pid = 12, .start_time = 6, .first_run = 2, .runs = 1, .comm = "second", .group = 3 },
};

static void digest(const uint8_t *pages, uint32_t ps, const struct firn_pack_run *runs,
		   uint32_t nruns, char hex[65])
{
	EVP_MD_CTX *x = EVP_MD_CTX_new();
	unsigned char sum[32];
	unsigned int n;

	assert_int_equal(EVP_DigestInit_ex(x, EVP_sha256(), NULL), 1);
	for (uint32_t r = 0; r < nruns; r++) {
		for (uint32_t i = 0; i < runs[r].npages; i++) {
			uint64_t address = runs[r].start.v + (uint64_t)i * ps;

			EVP_DigestUpdate(x, &address, 8);
			EVP_DigestUpdate(x, pages + (size_t)(runs[r].first_place + i) * ps, ps);
		}
	}
	assert_int_equal(EVP_DigestFinal_ex(x, sum, &n), 1);
	EVP_MD_CTX_free(x);
	for (unsigned int i = 0; i < n; i++)
		snprintf(hex + i * 2, 3, "%02x", sum[i]);
}

static void check_tool(enum firn_cipher cipher, uint32_t ps)
{
	const struct firn_pack_run runs[3] = {
		{ { 0x7f0000000000 }, 100, 0 },
		{ { 0x7f1000000000 }, 200, 100 },
		{ { 0x10000 }, 400, 300 },
	};
	const struct firn_builder_index index = { targets, runs, places, 2, 3, PAGES, 0 };
	struct firn_builder_pack pack = {
		.generation = 0xfedcba9876543210,
		.pid = 11,
		.start_time = 5,
		.created_ns = 1234567890123456789,
		.comm = "first",
		.blocks = blocks,
		.blocks_cap = BLOCKS_CAP,
		.fills = fills,
		.fills_cap = ARRAY_SIZE(fills),
	};
	const char *key = cipher == FIRN_CIPHER_OFF ? "" : "--key";
	const char *key_file = cipher == FIRN_CIPHER_OFF ? "" : "/key",
		   *key_dir = key_file[0] ? dir : "";
	char out[65536], hex[65], line[128];
	uint8_t *pages = malloc((size_t)PAGES * ps);
	struct firn_builder_config config;
	struct memory_file f;
	struct firn_builder *b;
	uint64_t seed = 21 + ps;

	make_pages(pages, ps, &seed);
	file_open(&f, 64 << 20);
	config = file_config(&f, cipher, ps);
	assert_int_equal(firn_builder_open(&b, &config), 0);
	assert_int_equal(firn_builder_begin(b, &pack), 0);
	assert_int_equal(add_pages(b, pages, 90, places), 0);
	assert_int_equal(firn_builder_end_slice(b), 0);
	assert_int_equal(add_pages(b, pages + 90 * (size_t)ps, PAGES - 90, places + 90),
			 0);
	assert_int_equal(firn_builder_finish(b, &index, NULL), 0);
	firn_builder_close(b);
	write_file("pack", f.data, f.bytes);

	assert_int_equal(run_tool(out, sizeof(out), "verify %s/pack %s %s%s", dir, key, key_dir,
				  key_file),
			 0);
	digest(pages, ps, runs, 2, hex);
	snprintf(line, sizeof(line), "target 11: 300 pages, sha256 %s\n", hex);
	assert_non_null(strstr(out, line));
	digest(pages, ps, runs + 2, 1, hex);
	snprintf(line, sizeof(line), "target 12: 400 pages, sha256 %s\n", hex);
	assert_non_null(strstr(out, line));
	assert_non_null(strstr(out, "\nwhole: "));

	assert_int_equal(run_tool(out, sizeof(out), "list %s/pack", dir), 0);
	assert_non_null(strstr(out, "generation   fedcba9876543210\n"));
	assert_non_null(strstr(out, firn_cipher_name(cipher)));
	assert_int_equal(run_tool(out, sizeof(out), "list %s/pack %s %s%s", dir, key, key_dir,
				  key_file),
			 0);
	assert_non_null(
		strstr(out, "target 12 second, started at 6, group 3: 400 pages in 1 runs\n"));

	if (cipher != FIRN_CIPHER_OFF) {
		assert_int_equal(run_tool(out, sizeof(out), "verify %s/pack", dir), 2);
		assert_int_equal(run_tool(out, sizeof(out), "verify %s/pack --key %s/other", dir,
					  dir),
				 1);
		assert_int_equal(run_tool(out, sizeof(out), "verify %s/pack --key-fd 5 5<%s/hex",
					  dir, dir),
				 0);
	}

	/* A bit of a block; a bit of the index; the last page gone. */
	f.data[blocks[1].offset.v + 7] ^= 4;
	write_file("pack", f.data, f.bytes);
	assert_int_equal(run_tool(out, sizeof(out), "verify %s/pack %s %s%s", dir, key, key_dir,
				  key_file),
			 1);
	assert_non_null(strstr(out, "block 1: wrong "));
	f.data[blocks[1].offset.v + 7] ^= 4;
	f.data[((struct firn_pack_footer *)(f.data + f.bytes - 4096))->index_offset + 20] ^= 4;
	write_file("pack", f.data, f.bytes);
	assert_int_equal(run_tool(out, sizeof(out), "verify %s/pack %s %s%s", dir, key, key_dir,
				  key_file),
			 1);
	assert_non_null(strstr(out, "index piece 0: wrong "));
	write_file("pack", f.data, f.bytes - 4096);
	assert_int_equal(run_tool(out, sizeof(out), "verify %s/pack %s %s%s", dir, key, key_dir,
				  key_file),
			 1);
	assert_non_null(strstr(out, "footer: none"));
	file_close(&f);
	free(pages);
}

static void test_tool(void **state)
{
	char out[4096];

	(void)state;
	if (run_tool(out, sizeof(out), "--help") != 0) {
		print_message("%s", out);
		if (strstr(out, "ModuleNotFoundError"))
			skip();
		fail_msg("%s does not run", tool);
	}
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		check_tool(all_ciphers[i], 4096);
		check_tool(all_ciphers[i], 16384);
	}
}

static int set_up(void **state)
{
	uint8_t other[FIRN_KEY_BYTES] = { 1 };
	char hex[66], *at;

	(void)state;
	/* This file is tests/unit/test_firn_pack.c of the tree whose tools/firn-pack is meant. */
	snprintf(tool, sizeof(tool), "%s", __FILE__);
	at = strstr(tool, "tests/unit/");
	if (!at || !mkdtemp(dir))
		return -1;
	snprintf(at, sizeof(tool) - (size_t)(at - tool), "tools/firn-pack");
	if (!strchr(tool, '/') || strncmp(tool, "tools", 5) == 0)
		snprintf(tool, sizeof(tool), "./tools/firn-pack");
	write_file("key", test_key, sizeof(test_key));
	write_file("other", other, sizeof(other));
	for (size_t i = 0; i < sizeof(test_key); i++)
		snprintf(hex + i * 2, 3, "%02x", test_key[i]);
	hex[64] = '\n';
	write_file("hex", hex, 65);
	return 0;
}

static int tear_down(void **state)
{
	static const char *const names[] = { "key", "other", "hex", "pack" };
	char path[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tool),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
