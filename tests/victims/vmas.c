/* SPDX-License-Identifier: MIT */
/* 20,000 mappings of alternating protections, two pages each, PROT_NONE with contents among them. */
#include "victim.h"

int main(int argc, char **argv)
{
	static const int prots[] = { PROT_READ | PROT_WRITE, PROT_NONE, PROT_READ | PROT_WRITE, PROT_READ };
	unsigned int n = 20000;
	char *base;

	v_start(argc, argv, 0, 65536);
	if (v_option("--few"))
		n = 200;
	base = v_map(n * 2ul, PROT_READ | PROT_WRITE, 0);
	for (unsigned int i = 0; i < n; i++) {
		char *a = base + i * 2ul * V_PAGE;
		int prot = prots[i % 4];

		for (int k = 0; k < 2; k++) {
			struct v_page *p = v_add(a + (unsigned int)k * V_PAGE, v_any_kind());

			p->flags = prot == PROT_NONE ? V_NOACCESS : prot == PROT_READ ? V_READONLY : 0;
		}
		if (prot != (PROT_READ | PROT_WRITE) && mprotect(a, 2 * V_PAGE, prot))
			v_die("mprotect: %s", strerror(errno));
	}
	v_ready();
	return v_loop(NULL);
}
