/* SPDX-License-Identifier: MIT */
#include "malloc/stats.h"

struct firn_malloc_counters firn_counters;
