/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/metrics.h"

#define MIB (1ull << 20)

static struct firn_report done(void)
{
	struct firn_report r = { 0 };

	r.pages = 512;
	r.memory_before = 4 * MIB;
	r.memory_after = MIB;
	r.write_bytes = 3 * MIB;
	r.read_bytes = 2 * MIB;
	r.faults = 7;
	r.ns[FIRN_PHASE_TOTAL] = 30000000;
	r.ns[FIRN_PHASE_RUN] = 1500000;
	r.ns[FIRN_PHASE_WHOLE] = 60000000000ull;
	return r;
}

static int64_t at(struct json_object *o, const char *path)
{
	char buf[128], *save, *word;

	snprintf(buf, sizeof(buf), "%s", path);
	for (word = strtok_r(buf, "/", &save); word; word = strtok_r(NULL, "/", &save))
		assert_true(json_object_object_get_ex(o, word, &o));
	return json_object_get_int64(o);
}

static bool has_line(const char *text, const char *line)
{
	size_t n = strlen(line);

	for (const char *p = strstr(text, line); p; p = strstr(p + 1, line))
		if ((p == text || p[-1] == '\n') && p[n] == '\n')
			return true;
	return false;
}

static void test_counts(void **state)
{
	struct firn_metrics m;
	struct firn_metrics_now now = { .out_bytes = 5, .budget = true, .budget_bytes = 100, .budget_used_bytes = 7 };
	struct firn_report r = done(), refused = { 0 };
	struct json_object *o;
	char *text;

	(void)state;
	firn_metrics_init(&m);
	firn_metrics_note(&m, FIRN_METRICS_FREEZE, FIRN_METRICS_REQUEST, &r);
	firn_metrics_note(&m, FIRN_METRICS_EVICT, FIRN_METRICS_POLICY, &r);
	firn_metrics_note(&m, FIRN_METRICS_THAW, FIRN_METRICS_WAKE, &r);
	firn_err_set(&refused.err, FIRN_EXIT_REFUSED, 0, "tra\"ced", "no");
	firn_metrics_note(&m, FIRN_METRICS_EVICT, FIRN_METRICS_RECLAIM, &refused);
	firn_metrics_note(&m, FIRN_METRICS_EVICT, FIRN_METRICS_RECLAIM, &refused);
	now.targets[FIRN_TARGET_FROZEN] = 3;

	o = firn_metrics_json(&m, &now);
	assert_int_equal(at(o, "operations/freeze/request"), 1);
	assert_int_equal(at(o, "operations/evict/policy"), 1);
	assert_int_equal(at(o, "operations/thaw/wake"), 1);
	assert_int_equal(at(o, "operations/evict/reclaim"), 0);
	assert_int_equal(at(o, "failures/evict/reclaim"), 2);
	assert_int_equal(at(o, "refusals/tra\"ced"), 2);
	assert_int_equal(at(o, "evicted_bytes"), 2 * 512 * sysconf(_SC_PAGESIZE));
	assert_int_equal(at(o, "freed_bytes"), 6 * MIB);
	assert_int_equal(at(o, "written_bytes"), 6 * MIB);
	assert_int_equal(at(o, "read_bytes"), 2 * MIB);
	assert_int_equal(at(o, "faults"), 7);
	assert_int_equal(at(o, "evict_seconds/count"), 2);
	assert_int_equal(at(o, "targets/frozen"), 3);
	assert_int_equal(at(o, "budget_used_bytes"), 7);
	json_object_put(o);

	text = firn_metrics_text(&m, &now, false);
	assert_true(has_line(text, "firn_operations_total{verb=\"freeze\",cause=\"request\"} 1"));
	assert_true(has_line(text, "firn_refusals_total{reason=\"tra\\\"ced\"} 2"));
	assert_true(has_line(text, "# TYPE firn_evicted_bytes counter"));
	assert_true(has_line(text, "# UNIT firn_evicted_bytes bytes"));
	/* 30 ms: not within 25, within 50. */
	assert_true(has_line(text, "firn_evict_seconds_bucket{le=\"0.025\"} 0"));
	assert_true(has_line(text, "firn_evict_seconds_bucket{le=\"0.05\"} 2"));
	assert_true(has_line(text, "firn_evict_seconds_bucket{le=\"+Inf\"} 2"));
	assert_true(has_line(text, "firn_evict_seconds_sum 0.06"));
	/* A minute is above every bound. */
	assert_true(has_line(text, "firn_thaw_whole_seconds_bucket{le=\"30\"} 0"));
	assert_true(has_line(text, "firn_thaw_whole_seconds_bucket{le=\"+Inf\"} 1"));
	assert_false(strstr(text, "firn_pressure_percent") != NULL);
	assert_string_equal(text + strlen(text) - 6, "# EOF\n");
	free(text);

	text = firn_metrics_text(&m, &now, true);
	assert_true(has_line(text, "# TYPE firn_evicted_bytes_total counter"));
	assert_null(strstr(text, "# UNIT"));
	assert_null(strstr(text, "# EOF"));
	free(text);
}

/* More reasons than there is room for do no harm. */
static void test_many_reasons(void **state)
{
	struct firn_report refused = { 0 };
	struct firn_metrics_now now = { 0 };
	struct firn_metrics m;
	struct json_object *o;

	(void)state;
	firn_metrics_init(&m);
	for (int i = 0; i < 500; i++) {
		snprintf(refused.err.reason, sizeof(refused.err.reason), "reason-%d", i);
		refused.err.code = FIRN_EXIT_REFUSED;
		firn_metrics_note(&m, FIRN_METRICS_FREEZE, FIRN_METRICS_REQUEST, &refused);
	}
	o = firn_metrics_json(&m, &now);
	assert_int_equal(at(o, "failures/freeze/request"), 500);
	assert_int_equal(at(o, "refusals/reason-0"), 1);
	json_object_put(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_many_reasons),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
