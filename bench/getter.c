// SPDX-License-Identifier: MIT
/* The client of the benchmarks' redis-server: fills it, and GETs keys at random, one request at a time.
 *
 * Every value is 1 KiB, half of it random bytes, and every answer is compared whole.
 *
 *   getter SOCKET KEYS    serve commands, one a line, from standard input; "COMMAND NS WRONG" answers each:
 *     fill                SET all keys
 *     one|hundred|next    GET 1, 99, 20,000 keys at random: each time other ones
 *     verify              GET every 50th key
 *                         It says "ready 0 0" first and ends with its standard input.
 * Exit status: 0, 1 the server cannot be reached or went away, 2 usage.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { VALUE_BYTES = 1024, BATCH = 256, SET_BYTES = VALUE_BYTES + 64, FIRST = 7, ANSWER = FIRST + VALUE_BYTES + 2 };

static int server;
static uint64_t keys, seed = 2;

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void lost(void)
{
	perror("getter: redis-server");
	exit(1);
}

static void tell(const char *data, size_t length)
{
	while (length) {
		ssize_t n = write(server, data, length);

		if (n <= 0)
			lost();
		data += n;
		length -= (size_t)n;
	}
}

static void hear(char *data, size_t length)
{
	while (length) {
		ssize_t n = read(server, data, length);

		if (n <= 0)
			lost();
		data += n;
		length -= (size_t)n;
	}
}

static void value_of(uint64_t key, char *value)
{
	uint64_t words[VALUE_BYTES / 8];

	for (unsigned int i = 0; i < VALUE_BYTES / 8; i++)
		words[i] = mix((key + 1) * 0x9e3779b97f4a7c15u +
			       (i < VALUE_BYTES / 16 ? i + 1 : 0) * 0xd1342543de82ef95u);
	memcpy(value, words, sizeof(words));
}

static uint64_t fill(void)
{
	static char batch[BATCH * SET_BYTES], ok[BATCH * 5];
	uint64_t wrong = 0;

	for (uint64_t key = 0; key < keys;) {
		size_t length = 0, count = 0;

		for (; count < BATCH && key < keys; count++, key++) {
			length += (size_t)sprintf(batch + length, "*3\r\n$3\r\nSET\r\n$13\r\nuser:%08" PRIu64 "\r\n$%d\r\n",
						  key, VALUE_BYTES);
			value_of(key, batch + length);
			length += VALUE_BYTES;
			length += (size_t)sprintf(batch + length, "\r\n");
		}
		tell(batch, length);
		hear(ok, count * 5);
		for (size_t i = 0; i < count; i++)
			wrong += memcmp(ok + i * 5, "+OK\r\n", 5) != 0;
	}
	return wrong;
}

static bool right(uint64_t key)
{
	char text[64], answer[ANSWER], value[VALUE_BYTES];

	tell(text, (size_t)sprintf(text, "*2\r\n$3\r\nGET\r\n$13\r\nuser:%08" PRIu64 "\r\n", key));
	hear(answer, FIRST);            /* "$1024\r\n"; an error or a missing key is shorter than an answer */
	if (memcmp(answer, "$1024\r\n", FIRST) != 0)
		return false;
	hear(answer + FIRST, ANSWER - FIRST);
	value_of(key, value);
	return !memcmp(answer + FIRST, value, VALUE_BYTES);
}

static uint64_t gets(unsigned int count)
{
	uint64_t wrong = 0;

	while (count--)
		wrong += !right(mix(seed++) % keys);
	return wrong;
}

static uint64_t obey(const char *command)
{
	uint64_t wrong = 0;

	if (!strcmp(command, "fill"))
		return fill();
	if (!strcmp(command, "one"))
		return gets(1);
	if (!strcmp(command, "hundred"))
		return gets(99);
	if (!strcmp(command, "next"))
		return gets(20000);
	for (uint64_t key = 0; key < keys; key += 50)
		wrong += !right(key);
	return wrong;
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char command[32];

	if (argc != 3 || strlen(argv[1]) >= sizeof(address.sun_path))
		return 2;
	strcpy(address.sun_path, argv[1]);
	keys = strtoull(argv[2], NULL, 10);
	server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!keys || server < 0 || connect(server, (struct sockaddr *)&address, sizeof(address)))
		lost();
	printf("ready 0 0\n");
	fflush(stdout);
	while (scanf("%31s", command) == 1) {
		uint64_t start = now_ns(), wrong = obey(command);

		printf("%s %" PRIu64 " %" PRIu64 "\n", command, now_ns() - start, wrong);
		fflush(stdout);
	}
	return 0;
}
