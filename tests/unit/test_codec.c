/* SPDX-License-Identifier: MIT */
/* src/pack/codec.c: what goes in comes out, and nothing else ever does. */
#include "pack_fixture.h"

#include "pack/codec.h"

#define MAX_RAW 65536u

struct piece_case {
	const char *name;
	uint32_t raw_bytes;
	int contents;                   /* 0 zeros, 1 half, 2 random */
};

static const struct piece_case cases[] = {
	{ "one byte", 1, 2 },
	{ "31 bytes", 31, 0 },
	{ "33 bytes", 33, 0 },
	{ "not a multiple of 16, random", 1003, 2 },
	{ "a page of zeros", 4096, 0 },
	{ "a page, half", 4096, 1 },
	{ "three pages, random", 12288, 2 },
	{ "a block, half", MAX_RAW, 1 },
	{ "a block, random", MAX_RAW, 2 },
	{ "a block of zeros", MAX_RAW, 0 },
};

static uint8_t raw[MAX_RAW], out[MAX_RAW + FIRN_TAG_BYTES], back[MAX_RAW];

static void make_raw(const struct piece_case *c)
{
	uint64_t seed = 42;

	memset(raw, 0, sizeof(raw));
	if (c->contents == 1)
		fill_half(&seed, raw, c->raw_bytes);
	else if (c->contents == 2)
		fill_random(&seed, raw, c->raw_bytes);
}

static void test_round_trip(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		struct firn_codec c;

		assert_int_equal(firn_codec_open(&c, all_ciphers[i], test_key, MAX_RAW), 0);
		for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
			struct firn_piece p = {
				.generation = 0x1122334455667788,
				.number = (uint32_t)k,
				.raw_bytes = cases[k].raw_bytes,
			};

			make_raw(&cases[k]);
			memset(out, 0xEE, sizeof(out));
			assert_int_equal(firn_codec_encode(&c, &p, raw, out), 0);
			assert_true(p.stored_bytes <= p.raw_bytes);
			assert_int_equal(p.codec == FIRN_CODEC_RAW, p.stored_bytes == p.raw_bytes);
			if (cases[k].contents == 2)
				assert_int_equal(p.codec, FIRN_CODEC_RAW);
			if (cases[k].raw_bytes >= 4096 && cases[k].contents < 2)
				assert_int_equal(p.codec, FIRN_CODEC_LZ4);
			if (p.stored_bytes + FIRN_TAG_BYTES < sizeof(out))
				assert_int_equal(out[p.stored_bytes + FIRN_TAG_BYTES], 0xEE);
			if (all_ciphers[i] != FIRN_CIPHER_OFF && p.codec == FIRN_CODEC_RAW &&
			    p.raw_bytes > 16)
				assert_memory_not_equal(raw, out, p.stored_bytes);
			memset(back, 0xDD, sizeof(back));
			assert_int_equal(firn_codec_decode(&c, &p, out, back), 0);
			assert_memory_equal(raw, back, p.raw_bytes);
			if (p.raw_bytes < sizeof(back))
				assert_int_equal(back[p.raw_bytes], 0xDD);
		}
		firn_codec_close(&c);
	}
}

/* Two codecs of one key understand each other; another key does not. */
static void test_other_codec(void **state)
{
	uint8_t other_key[FIRN_KEY_BYTES];

	(void)state;
	memcpy(other_key, test_key, sizeof(other_key));
	other_key[31] ^= 1;
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		struct firn_piece p = { .generation = 5, .number = 6, .raw_bytes = MAX_RAW };
		struct firn_codec a, b, other;

		make_raw(&cases[7]);
		assert_int_equal(firn_codec_open(&a, all_ciphers[i], test_key, MAX_RAW), 0);
		assert_int_equal(firn_codec_open(&b, all_ciphers[i], test_key, MAX_RAW), 0);
		assert_int_equal(firn_codec_open(&other, all_ciphers[i], other_key, MAX_RAW), 0);
		assert_int_equal(firn_codec_encode(&a, &p, raw, out), 0);
		assert_int_equal(firn_codec_decode(&b, &p, out, back), 0);
		assert_memory_equal(raw, back, MAX_RAW);
		assert_int_equal(firn_codec_decode(&other, &p, out, back),
				 all_ciphers[i] == FIRN_CIPHER_OFF ? 0 : -EBADMSG);
		firn_codec_close(&a);
		firn_codec_close(&b);
		firn_codec_close(&other);
	}
}

/* A decoder reads what a codec wrote, several with one scratch; it writes nothing, and allocates when it is opened only. */
static void test_decoder(void **state)
{
	static uint8_t scratch[MAX_RAW];
	struct firn_codec decoders[ARRAY_SIZE(all_ciphers)];
	unsigned long before;

	(void)state;
	assert_int_equal(firn_codec_scratch_bytes(MAX_RAW), MAX_RAW);
	assert_true(firn_codec_scratch_bytes(1) >= 8192);
	assert_int_equal(firn_codec_open_decoder(&decoders[1], FIRN_CIPHER_AES_256_OCB, NULL, MAX_RAW, scratch), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++)
		assert_int_equal(firn_codec_open_decoder(&decoders[i], all_ciphers[i], test_key, MAX_RAW,
							 i == 2 ? NULL : scratch), 0);
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
			struct firn_piece p = { .generation = 5, .number = 6, .raw_bytes = MAX_RAW };
			struct firn_codec c, *d = &decoders[i];
			uint8_t tag[FIRN_TAG_BYTES];

			make_raw(&cases[7]);
			assert_int_equal(firn_codec_open(&c, all_ciphers[i], test_key, MAX_RAW), 0);
			assert_int_equal(firn_codec_encode(&c, &p, raw, out), 0);
			assert_int_equal(firn_codec_sign(&c, 9, raw, 4096, raw, 4072, tag), 0);
			firn_codec_close(&c);
			before = allocations;
			assert_int_equal(firn_codec_decode(d, &p, out, back), 0);
			assert_memory_equal(raw, back, MAX_RAW);
			out[0] ^= 1;
			assert_int_equal(firn_codec_decode(d, &p, out, back), -EBADMSG);
			out[0] ^= 1;
			assert_int_equal(firn_codec_check(d, 9, raw, 4096, raw, 4072, tag), 0);
			tag[0] ^= 1;
			assert_int_equal(firn_codec_check(d, 9, raw, 4096, raw, 4072, tag), -EBADMSG);
			assert_int_equal(firn_codec_sign(d, 9, raw, 4096, raw, 4072, tag), -EINVAL);
			assert_int_equal(firn_codec_seal(d, &p, raw, out), -EINVAL);
			assert_int_equal(firn_codec_encode(d, &p, raw, out), -EINVAL);
			if (!FIRN_TEST_SANITIZED)
				assert_int_equal(allocations - before, 0);
		}
	}
	scratch[0] = 1;
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++)
		firn_codec_close(&decoders[i]);
	assert_int_equal(scratch[0], 0);        /* wiped, and the owner's still */
}

/* Every bit of the tag and of the stored bytes, every field of the piece, every shorter length. */
static void test_tampering(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		struct firn_codec c;

		assert_int_equal(firn_codec_open(&c, all_ciphers[i], test_key, MAX_RAW), 0);
		for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
			struct firn_piece p = { .generation = 5,
						.number = 6,
						.raw_bytes = cases[k].raw_bytes };
			struct firn_piece bad;
			uint32_t step;

			make_raw(&cases[k]);
			assert_int_equal(firn_codec_encode(&c, &p, raw, out), 0);
			step = p.stored_bytes > 4096 ? 997 : 1;
			for (uint32_t bit = 0; bit < FIRN_TAG_BYTES * 8; bit++) {
				out[p.stored_bytes + bit / 8] ^= 1 << bit % 8;
				assert_int_equal(firn_codec_decode(&c, &p, out, back), -EBADMSG);
				out[p.stored_bytes + bit / 8] ^= 1 << bit % 8;
			}
			for (uint32_t at = 0; at < p.stored_bytes; at += step) {
				out[at] ^= 1 << at % 8;
				assert_int_equal(firn_codec_decode(&c, &p, out, back), -EBADMSG);
				out[at] ^= 1 << at % 8;
			}
			for (uint32_t n = 0; n < p.stored_bytes; n += step) {
				bad = p;
				bad.stored_bytes = n;
				assert_int_equal(firn_codec_decode(&c, &bad, out, back), -EBADMSG);
				if (p.codec == FIRN_CODEC_RAW) {
					bad.raw_bytes = n;
					assert_int_equal(firn_codec_decode(&c, &bad, out, back),
							 -EBADMSG);
				}
			}
			for (uint32_t bit = 0; bit < sizeof(p) * 8; bit++) {
				bad = p;
				((uint8_t *)&bad)[bit / 8] ^= 1 << bit % 8;
				if (bad.stored_bytes + (uint64_t)FIRN_TAG_BYTES > sizeof(out))
					bad.stored_bytes = p.stored_bytes - 1;
				assert_int_equal(firn_codec_decode(&c, &bad, out, back), -EBADMSG);
			}
			assert_int_equal(firn_codec_decode(&c, &p, out, back), 0);
			assert_memory_equal(raw, back, p.raw_bytes);
		}
		firn_codec_close(&c);
	}
}

/* A tag vouches for the bytes, not for their being LZ4: such a piece is still only an error. */
static void test_malformed_lz4(void **state)
{
	uint64_t seed = 7;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		struct firn_codec c;

		assert_int_equal(firn_codec_open(&c, all_ciphers[i], test_key, MAX_RAW), 0);
		for (uint32_t n = 1; n < 3000; n += 7) {
			struct firn_piece p = {
				.generation = 1,
				.number = n,
				.raw_bytes = 4096,
				.stored_bytes = n,
				.codec = FIRN_CODEC_LZ4,
			};

			fill_random(&seed, raw, n);
			assert_int_equal(firn_codec_seal(&c, &p, raw, out), 0);
			back[p.raw_bytes] = 0xDD;
			assert_int_equal(firn_codec_decode(&c, &p, out, back), -EBADMSG);
			assert_int_equal(back[p.raw_bytes], 0xDD);
		}
		firn_codec_close(&c);
	}
}

static void test_seal_in_place(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		struct firn_piece p = { .generation = 1, .raw_bytes = 4111, .stored_bytes = 4111 };
		struct firn_codec c;

		make_raw(&cases[8]);
		assert_int_equal(firn_codec_open(&c, all_ciphers[i], test_key, MAX_RAW), 0);
		memcpy(out, raw, p.raw_bytes);
		assert_int_equal(firn_codec_seal(&c, &p, out, out), 0);
		assert_int_equal(firn_codec_decode(&c, &p, out, back), 0);
		assert_memory_equal(raw, back, p.raw_bytes);
		firn_codec_close(&c);
	}
}

static void test_sign(void **state)
{
	uint8_t a[4096], b[4072], tag[FIRN_TAG_BYTES];
	uint64_t seed = 3;

	(void)state;
	fill_random(&seed, a, sizeof(a));
	fill_random(&seed, b, sizeof(b));
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		struct firn_codec c;

		assert_int_equal(firn_codec_open(&c, all_ciphers[i], test_key, MAX_RAW), 0);
		assert_int_equal(firn_codec_sign(&c, 9, a, sizeof(a), b, sizeof(b), tag), 0);
		assert_int_equal(firn_codec_check(&c, 9, a, sizeof(a), b, sizeof(b), tag), 0);
		assert_int_equal(firn_codec_check(&c, 8, a, sizeof(a), b, sizeof(b), tag),
				 -EBADMSG);
		a[4095] ^= 1;
		assert_int_equal(firn_codec_check(&c, 9, a, sizeof(a), b, sizeof(b), tag),
				 -EBADMSG);
		a[4095] ^= 1;
		b[0] ^= 1;
		assert_int_equal(firn_codec_check(&c, 9, a, sizeof(a), b, sizeof(b), tag),
				 -EBADMSG);
		b[0] ^= 1;
		for (uint32_t bit = 0; bit < FIRN_TAG_BYTES * 8; bit++) {
			tag[bit / 8] ^= 1 << bit % 8;
			assert_int_equal(firn_codec_check(&c, 9, a, sizeof(a), b, sizeof(b), tag),
					 -EBADMSG);
			tag[bit / 8] ^= 1 << bit % 8;
		}
		assert_int_equal(firn_codec_check(&c, 9, a, sizeof(a), b, sizeof(b), tag), 0);
		firn_codec_close(&c);
	}
}

static void test_parameters(void **state)
{
	struct firn_piece p = { .raw_bytes = 4097 };
	struct firn_codec c;
	enum firn_cipher cipher;

	(void)state;
	assert_int_equal(firn_codec_open(&c, FIRN_CIPHER_AES_256_OCB, NULL, 4096), -EINVAL);
	firn_codec_close(&c);
	assert_int_equal(firn_codec_open(&c, (enum firn_cipher)9, test_key, 4096), -EINVAL);
	assert_int_equal(firn_codec_open(&c, FIRN_CIPHER_OFF, NULL, 0), -EINVAL);
	assert_int_equal(firn_codec_open(&c, FIRN_CIPHER_OFF, NULL, (1u << 20) + 1), -EINVAL);
	assert_int_equal(firn_codec_open(&c, FIRN_CIPHER_OFF, NULL, 4096), 0);
	assert_int_equal(firn_codec_encode(&c, &p, raw, out), -EINVAL);
	p.raw_bytes = 0;
	assert_int_equal(firn_codec_encode(&c, &p, raw, out), -EINVAL);
	firn_codec_close(&c);
	firn_codec_close(&c);
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		assert_int_equal(firn_cipher_from_name(firn_cipher_name(all_ciphers[i]), &cipher),
				 0);
		assert_int_equal(cipher, all_ciphers[i]);
	}
	assert_int_equal(firn_cipher_from_name("aes-128-gcm", &cipher), -EINVAL);
	assert_null(firn_cipher_name((enum firn_cipher)3));
}

static void test_no_allocation(void **state)
{
	(void)state;
	if (FIRN_TEST_SANITIZED)
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		struct firn_piece p = { .generation = 1, .raw_bytes = MAX_RAW };
		uint8_t tag[FIRN_TAG_BYTES];
		struct firn_codec c;
		unsigned long before;

		make_raw(&cases[7]);
		assert_int_equal(firn_codec_open(&c, all_ciphers[i], test_key, MAX_RAW), 0);
		before = allocations;
		assert_int_equal(firn_codec_encode(&c, &p, raw, out), 0);
		assert_int_equal(firn_codec_decode(&c, &p, out, back), 0);
		out[0] ^= 1;
		assert_int_equal(firn_codec_decode(&c, &p, out, back), -EBADMSG);
		out[0] ^= 1;
		assert_int_equal(firn_codec_decode(&c, &p, out, back), 0);
		assert_int_equal(firn_codec_sign(&c, 9, raw, 4096, raw, 4072, tag), 0);
		assert_int_equal(firn_codec_check(&c, 9, raw, 4096, raw, 4072, tag), 0);
		assert_int_equal(allocations - before, 0);
		firn_codec_close(&c);
		assert_true(before > 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_other_codec),
		cmocka_unit_test(test_decoder),
		cmocka_unit_test(test_tampering),
		cmocka_unit_test(test_malformed_lz4),
		cmocka_unit_test(test_seal_in_place),
		cmocka_unit_test(test_sign),
		cmocka_unit_test(test_parameters),
		cmocka_unit_test(test_no_allocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
