/* SPDX-License-Identifier: MIT */
/*
 * One list of families, told in two ways: what JSON has, the text has too.
 */
#include "agent/metrics.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const verb_names[] = { "freeze", "evict", "thaw" };
static const char *const cause_names[] = { "request", "reclaim", "policy", "wake" };

static const double seconds_bounds[FIRN_METRICS_BUCKETS] = {
	0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
};
static const double bytes_bounds[FIRN_METRICS_BUCKETS] = {
	1ull << 20, 1ull << 21, 1ull << 22, 1ull << 23, 1ull << 24, 1ull << 25, 1ull << 26,
	1ull << 27, 1ull << 28, 1ull << 29, 1ull << 30, 1ull << 31, 1ull << 32, 1ull << 34,
};

const char *firn_metrics_cause_name(enum firn_metrics_cause c)
{
	return cause_names[c];
}

void firn_metrics_init(struct firn_metrics *m)
{
	struct timespec t;

	memset(m, 0, sizeof(*m));
	pthread_mutex_init(&m->lock, NULL);
	clock_gettime(CLOCK_REALTIME, &t);
	m->since_ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void observe(struct firn_metrics_histogram *h, const double *bounds, double v)
{
	unsigned int i = 0;

	while (i < FIRN_METRICS_BUCKETS && v > bounds[i])
		i++;
	h->counts[i]++;
	h->sum += v;
}

static void observe_ns(struct firn_metrics_histogram *h, uint64_t ns)
{
	if (ns)
		observe(h, seconds_bounds, (double)ns / 1e9);
}

static void count_reason(struct firn_metrics *m, const char *word)
{
	unsigned int i = 0;

	while (i < m->nreasons && strcmp(m->reasons[i].word, word))
		i++;
	if (i == FIRN_METRICS_REASONS)
		return;
	if (i == m->nreasons)
		snprintf(m->reasons[m->nreasons++].word, sizeof(m->reasons[i].word), "%s", word);
	m->reasons[i].count++;
}

void firn_metrics_note(struct firn_metrics *m, enum firn_metrics_verb verb, enum firn_metrics_cause cause,
		       const struct firn_report *r)
{
	pthread_mutex_lock(&m->lock);
	if (r->err.code) {
		m->failed[verb][cause]++;
		count_reason(m, r->err.reason);
	} else {
		m->done[verb][cause]++;
	}
	m->lost_pages += verb == FIRN_METRICS_THAW ? r->lost : 0;
	if (verb == FIRN_METRICS_THAW) {
		m->read_bytes += r->read_bytes;
		m->faults += r->faults;
		observe_ns(&m->run_s, r->ns[FIRN_PHASE_RUN]);
		observe_ns(&m->whole_s, r->ns[FIRN_PHASE_WHOLE]);
	} else if (!r->err.code) {
		uint64_t bytes = r->pages * (uint64_t)sysconf(_SC_PAGESIZE);

		m->evicted_bytes += bytes;
		m->freed_bytes += r->memory_before > r->memory_after ? r->memory_before - r->memory_after : 0;
		m->written_bytes += r->in_ram ? 0 : r->write_bytes;
		observe_ns(&m->evict_s, r->ns[FIRN_PHASE_TOTAL]);
		observe(&m->evict_bytes, bytes_bounds, (double)bytes);
	}
	pthread_mutex_unlock(&m->lock);
}

/* The families, in order: what follows visits each of them. */
struct teller {
	void (*family)(struct teller *t, const char *name, const char *type, const char *unit, const char *help);
	/* @key, @value: the label and its value; more than one by a second pair; NULL: none. */
	void (*sample)(struct teller *t, const char *key, const char *value, const char *key2, const char *value2,
		       double v);
	void (*histogram)(struct teller *t, const double *bounds, const struct firn_metrics_histogram *h);
	struct json_object *all, *values;
	FILE *out;
	char name[64];
	bool classic, counter;
};

static void gauge(struct teller *t, const char *name, const char *unit, const char *help, double v)
{
	t->family(t, name, "gauge", unit, help);
	t->sample(t, NULL, NULL, NULL, NULL, v);
}

static void counter(struct teller *t, const char *name, const char *unit, const char *help, double v)
{
	t->family(t, name, "counter", unit, help);
	t->sample(t, NULL, NULL, NULL, NULL, v);
}

static void visit(struct teller *t, const struct firn_metrics *m, const struct firn_metrics_now *now)
{
	gauge(t, "started_seconds", "seconds", "When this agent began, Unix time.", (double)m->since_ms / 1e3);
	t->family(t, "operations", "counter", "", "Operations on a target that were done, by verb and by who wanted them.");
	for (int v = 0; v < FIRN_METRICS_VERBS; v++)
		for (int c = 0; c < FIRN_METRICS_CAUSES; c++)
			t->sample(t, "verb", verb_names[v], "cause", cause_names[c], (double)m->done[v][c]);
	t->family(t, "failures", "counter", "", "Operations that were refused or failed, by verb and by who wanted them.");
	for (int v = 0; v < FIRN_METRICS_VERBS; v++)
		for (int c = 0; c < FIRN_METRICS_CAUSES; c++)
			t->sample(t, "verb", verb_names[v], "cause", cause_names[c], (double)m->failed[v][c]);
	t->family(t, "refusals", "counter", "", "Why operations were refused or failed.");
	for (unsigned int i = 0; i < m->nreasons; i++)
		t->sample(t, "reason", m->reasons[i].word, NULL, NULL, (double)m->reasons[i].count);
	counter(t, "evicted_bytes", "bytes", "Memory that evictions took.", (double)m->evicted_bytes);
	counter(t, "freed_bytes", "bytes", "Memory that evictions gave back.", (double)m->freed_bytes);
	counter(t, "written_bytes", "bytes", "Bytes written to the store.", (double)m->written_bytes);
	counter(t, "read_bytes", "bytes", "Bytes read back by targets that are whole again.", (double)m->read_bytes);
	counter(t, "faults", "", "Faults answered.", (double)(m->faults + now->faults));
	counter(t, "lost_pages", "", "Pages that could not be read back.", (double)m->lost_pages);
	t->family(t, "evict_seconds", "histogram", "seconds", "How long freezing or evicting a target took.");
	t->histogram(t, seconds_bounds, &m->evict_s);
	t->family(t, "thaw_run_seconds", "histogram", "seconds", "From asking for a thaw until the target ran.");
	t->histogram(t, seconds_bounds, &m->run_s);
	t->family(t, "thaw_whole_seconds", "histogram", "seconds", "From asking for a thaw until all of the target was back.");
	t->histogram(t, seconds_bounds, &m->whole_s);
	t->family(t, "target_bytes", "histogram", "bytes", "Memory taken from a target by an eviction.");
	t->histogram(t, bytes_bounds, &m->evict_bytes);

	t->family(t, "targets", "gauge", "", "Targets by their state.");
	for (int s = FIRN_TARGET_PLANNED; s < FIRN_TARGET_STATES; s++)
		t->sample(t, "state", firn_target_state_name((enum firn_target_state)s), NULL, NULL, now->targets[s]);
	gauge(t, "out_bytes", "bytes", "Memory of targets that is not in RAM now.", (double)now->out_bytes);
	t->family(t, "pack_bytes", "gauge", "bytes", "What packs take, by their place.");
	t->sample(t, "place", "store", NULL, NULL, (double)now->store_bytes);
	t->sample(t, "place", "ram", NULL, NULL, (double)now->ram_bytes);
	gauge(t, "memory_total_bytes", "bytes", "Memory of the host, or of the agent's scope.", (double)now->memory_total);
	gauge(t, "memory_available_bytes", "bytes", "Memory that could be had without evicting.",
	      (double)now->memory_available);
	if (now->psi) {
		t->family(t, "pressure_percent", "gauge", "percent", "Time lost waiting for memory, of the last 10 s (PSI).");
		t->sample(t, "kind", "some", NULL, NULL, now->some_avg10);
		t->sample(t, "kind", "full", NULL, NULL, now->full_avg10);
	}
	if (now->budget) {
		gauge(t, "budget_bytes", "bytes", "What may be written to the store this day.", (double)now->budget_bytes);
		gauge(t, "budget_used_bytes", "bytes", "What was written of it.", (double)now->budget_used_bytes);
	}
}

/* Numbers without a needless fraction. */
static const char *number(char *buf, size_t size, double v)
{
	if (v >= 0 && v < 9e15 && (double)(uint64_t)v == v)
		snprintf(buf, size, "%llu", (unsigned long long)v);
	else
		snprintf(buf, size, v < 1e6 ? "%.9g" : "%.3f", v);
	return buf;
}

/* Text */

static void text_family(struct teller *t, const char *name, const char *type, const char *unit, const char *help)
{
	t->counter = !strcmp(type, "counter");
	snprintf(t->name, sizeof(t->name), "firn_%s", name);
	fprintf(t->out, "# HELP %s%s %s\n# TYPE %s%s %s\n", t->name, t->counter && t->classic ? "_total" : "", help,
		t->name, t->counter && t->classic ? "_total" : "", type);
	if (*unit && !t->classic)
		fprintf(t->out, "# UNIT %s %s\n", t->name, unit);
}

/* Values are words of ours: nothing to escape but what a reason might hold. */
static void text_value(FILE *out, const char *value)
{
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			fputc('\\', out);
		if (*value != '\n')
			fputc(*value, out);
	}
}

static void text_sample(struct teller *t, const char *key, const char *value, const char *key2, const char *value2,
			double v)
{
	char buf[40];

	fprintf(t->out, "%s%s", t->name, t->counter ? "_total" : "");
	if (key) {
		fprintf(t->out, "{%s=\"", key);
		text_value(t->out, value);
		fputc('"', t->out);
	}
	if (key2) {
		fprintf(t->out, ",%s=\"", key2);
		text_value(t->out, value2);
		fputc('"', t->out);
	}
	fprintf(t->out, "%s %s\n", key ? "}" : "", number(buf, sizeof(buf), v));
}

static void text_histogram(struct teller *t, const double *bounds, const struct firn_metrics_histogram *h)
{
	uint64_t sum = 0;
	char buf[40];

	for (unsigned int i = 0; i < FIRN_METRICS_BUCKETS; i++) {
		sum += h->counts[i];
		fprintf(t->out, "%s_bucket{le=\"%s\"} %llu\n", t->name, number(buf, sizeof(buf), bounds[i]),
			(unsigned long long)sum);
	}
	sum += h->counts[FIRN_METRICS_BUCKETS];
	fprintf(t->out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %s\n%s_count %llu\n", t->name, (unsigned long long)sum,
		t->name, number(buf, sizeof(buf), h->sum), t->name, (unsigned long long)sum);
}

char *firn_metrics_text(struct firn_metrics *m, const struct firn_metrics_now *now, bool classic)
{
	struct teller t = { .family = text_family, .sample = text_sample, .histogram = text_histogram, .classic = classic };
	char *text = NULL;
	size_t size;

	t.out = open_memstream(&text, &size);
	if (!t.out)
		return NULL;
	pthread_mutex_lock(&m->lock);
	visit(&t, m, now);
	pthread_mutex_unlock(&m->lock);
	if (!classic)
		fputs("# EOF\n", t.out);
	if (fclose(t.out)) {
		free(text);
		return NULL;
	}
	return text;
}

/* JSON: a member for each family; labelled ones are objects, label within label. */

static struct json_object *json_number(double v)
{
	char buf[40];

	if (v >= 0 && v < 9e15 && (double)(uint64_t)v == v)
		return json_object_new_int64((int64_t)v);
	return json_object_new_double_s(v, number(buf, sizeof(buf), v));
}

static void json_family(struct teller *t, const char *name, const char *type, const char *unit, const char *help)
{
	(void)type;
	(void)unit;
	(void)help;
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->values = NULL;
}

static struct json_object *member(struct json_object *o, const char *key)
{
	struct json_object *v;

	if (json_object_object_get_ex(o, key, &v))
		return v;
	v = json_object_new_object();
	json_object_object_add(o, key, v);
	return v;
}

static void json_sample(struct teller *t, const char *key, const char *value, const char *key2, const char *value2,
			double v)
{
	struct json_object *at = t->all;

	(void)key;
	if (!value) {
		json_object_object_add(at, t->name, json_number(v));
		return;
	}
	at = member(at, t->name);
	if (key2) {
		at = member(at, value);
		value = value2;
	}
	json_object_object_add(at, value, json_number(v));
}

static void json_histogram(struct teller *t, const double *bounds, const struct firn_metrics_histogram *h)
{
	struct json_object *o = member(t->all, t->name), *buckets = json_object_new_array();
	uint64_t sum = 0;

	for (unsigned int i = 0; i <= FIRN_METRICS_BUCKETS; i++) {
		struct json_object *b;

		sum += h->counts[i];
		if (i == FIRN_METRICS_BUCKETS)
			break;
		b = json_object_new_object();
		json_object_object_add(b, "le", json_number(bounds[i]));
		json_object_object_add(b, "count", json_object_new_int64((int64_t)sum));
		json_object_array_add(buckets, b);
	}
	json_object_object_add(o, "buckets", buckets);
	json_object_object_add(o, "sum", json_number(h->sum));
	json_object_object_add(o, "count", json_object_new_int64((int64_t)sum));
}

struct json_object *firn_metrics_json(struct firn_metrics *m, const struct firn_metrics_now *now)
{
	struct teller t = { .family = json_family, .sample = json_sample, .histogram = json_histogram };

	t.all = json_object_new_object();
	if (!t.all)
		return NULL;
	pthread_mutex_lock(&m->lock);
	/* Also where there was none. */
	member(t.all, "refusals");
	visit(&t, m, now);
	pthread_mutex_unlock(&m->lock);
	return t.all;
}
