/* SPDX-License-Identifier: MIT */
/* One mapping beyond 2 GiB: lengths and offsets that do not fit an int. */
#include "victim.h"

int main(int argc, char **argv)
{
	v_start(argc, argv, 2560, 0);
	v_add_range(v_map(v_mib * 256, PROT_READ | PROT_WRITE, 0), v_mib * 256);
	v_ready();
	return v_loop(NULL);
}
