/* SPDX-License-Identifier: MIT */
/* Says whose malloc it uses, and as whom it runs; is compiled by its test, which gives it a user. */
#include "m.h"

int main(void)
{
	char line[512];
	FILE *maps = fopen("/proc/self/maps", "r");
	bool mapped = false;

	CHECK(maps);
	while (fgets(line, sizeof(line), maps))
		mapped |= strstr(line, "libfirnmalloc") != NULL;
	fclose(maps);
	CHECK_EQ(mapped, m_firn());
	printf("%s %d\n", m_firn() ? "firn" : "libc", (int)geteuid());
	return 0;
}
