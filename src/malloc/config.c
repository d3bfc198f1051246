/* SPDX-License-Identifier: MIT */
#include "malloc/config.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "malloc/os.h"

#define PREFIX "FIRN_MALLOC_"

struct firn_malloc_config firn_config = {
	.fold = true,
	.period_ms = 500,
	.age = 2,
	.decay_ms = 200,
	.region_bytes = 16,
	.vma_percent = 25,
	.cpu_percent = 2,
	.stop_ms = 1000,
	.core = true,
};

struct line {
	char text[256];
	size_t n;
};

static void put(struct line *l, const char *s)
{
	while (*s && l->n < sizeof(l->text) - 1)
		l->text[l->n++] = *s++;
}

static void put_number(struct line *l, unsigned long v, unsigned int base)
{
	char digits[24];
	int i = sizeof(digits) - 1;

	digits[i] = '\0';
	do
		digits[--i] = "0123456789abcdef"[v % base];
	while (v /= base);
	put(l, digits + i);
}

static void say(const char *format, va_list list)
{
	struct line l = { .n = 0 };
	const char *p = format;

	put(&l, "firn-malloc: ");
	while (*p) {
		bool wide = false;
		char one[2] = { *p, '\0' };

		if (*p++ != '%') {
			put(&l, one);
			continue;
		}
		while (*p == 'l' || *p == 'z') {
			wide = true;
			p++;
		}
		switch (*p ? *p++ : '%') {
		case 's':
			put(&l, va_arg(list, const char *));
			break;
		case 'p':
			put(&l, "0x");
			put_number(&l, (unsigned long)va_arg(list, void *), 16);
			break;
		case 'x':
			put_number(&l, wide ? va_arg(list, unsigned long) : va_arg(list, unsigned int), 16);
			break;
		case 'u':
			put_number(&l, wide ? va_arg(list, unsigned long) : va_arg(list, unsigned int), 10);
			break;
		default:
			put(&l, "%");
			break;
		}
	}
	l.text[l.n++] = '\n';
	firn_os.call(SYS_write, 2, (long)l.text, (long)l.n, 0, 0, 0);
}

void firn_say(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	say(format, list);
	va_end(list);
}

void firn_die(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	say(format, list);
	va_end(list);
	abort();
}

/* A decimal number up to @max, and nothing else. */
static bool number(const char *s, uint32_t max, uint32_t *ret)
{
	uint64_t v = 0;

	if (!*s)
		return false;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return false;
		v = v * 10 + (uint64_t)(*s - '0');
		if (v > max)
			return false;
	}
	*ret = (uint32_t)v;
	return true;
}

static bool flag(const char *s, bool *ret)
{
	if ((s[0] != '0' && s[0] != '1') || s[1])
		return false;
	*ret = s[0] == '1';
	return true;
}

static bool tier(const char *s, enum firn_barrier_tier *ret)
{
	static const struct {
		const char *name;
		enum firn_barrier_tier tier;
	} names[] = {
		{ "auto", FIRN_BARRIER_AUTO },
		{ "none", FIRN_BARRIER_NONE },
		{ "wp", FIRN_BARRIER_WP },
		{ "tracer", FIRN_BARRIER_TRACER },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(s, names[i].name))
			continue;
		*ret = names[i].tier;
		return true;
	}
	return false;
}

static bool region(const char *s, uint32_t *ret)
{
	uint32_t v;

	if (!number(s, 2048, &v) || v < 16 || (v & (v - 1)))
		return false;
	*ret = v;
	return true;
}

static bool percent(const char *s, uint32_t max, uint32_t *ret)
{
	uint32_t v;

	if (!number(s, max, &v) || !v)
		return false;
	*ret = v;
	return true;
}

/* What is wrong with @name=@value: what is allowed; NULL where nothing is. */
static const char *set(const char *name, const char *value)
{
	struct firn_malloc_config *c = &firn_config;

	if (!strcmp(name, "FOLD"))
		return flag(value, &c->fold) ? NULL : "0 or 1";
	if (!strcmp(name, "BARRIER"))
		return tier(value, &c->barrier) ? NULL : "auto, none, wp or tracer";
	if (!strcmp(name, "PERIOD_MS"))
		return number(value, 3600000, &c->period_ms) ? NULL : "0 to 3600000";
	if (!strcmp(name, "AGE"))
		return number(value, 255, &c->age) ? NULL : "0 to 255";
	if (!strcmp(name, "DECAY_MS"))
		return number(value, 3600000, &c->decay_ms) ? NULL : "0 to 3600000";
	if (!strcmp(name, "REGION"))
		return region(value, &c->region_bytes) ? NULL : "a power of two from 16 to 2048";
	if (!strcmp(name, "VMA_PERCENT"))
		return percent(value, 90, &c->vma_percent) ? NULL : "1 to 90";
	if (!strcmp(name, "CPU_PERCENT"))
		return percent(value, 100, &c->cpu_percent) ? NULL : "1 to 100";
	if (!strcmp(name, "STOP_MS"))
		return number(value, 3600000, &c->stop_ms) ? NULL : "0 to 3600000";
	if (!strcmp(name, "CORE"))
		return flag(value, &c->core) ? NULL : "0 or 1";
	if (!strcmp(name, "SECCOMP"))
		return flag(value, &c->seccomp) ? NULL : "0 or 1";
	if (!strcmp(name, "STATS"))
		return flag(value, &c->stats) ? NULL : "0 or 1";
	if (!strcmp(name, "BACKGROUND"))
		return flag(value, &c->background) ? NULL : "0 or 1";
	return "";
}

/* Valgrind puts libraries of its own into the program; it ends one that makes a process as the folder does. */
static bool under_valgrind(const char *entry)
{
	return !strncmp(entry, "LD_PRELOAD=", 11) && strstr(entry, "vgpreload_");
}

void firn_config_read(char **environment)
{
	bool valgrind = false;

	for (char **e = environment; e && *e; e++) {
		char name[24];
		const char *value, *allowed;
		size_t n;

		valgrind |= under_valgrind(*e);
		if (strncmp(*e, PREFIX, sizeof(PREFIX) - 1))
			continue;
		value = strchr(*e, '=');
		if (!value)
			continue;
		n = (size_t)(value - *e) - (sizeof(PREFIX) - 1);
		if (n >= sizeof(name))
			n = sizeof(name) - 1;
		memcpy(name, *e + sizeof(PREFIX) - 1, n);
		name[n] = '\0';
		allowed = set(name, ++value);
		if (!allowed)
			continue;
		if (*allowed)
			firn_say(PREFIX "%s=%s: must be %s, ignored", name, value, allowed);
		else
			firn_say(PREFIX "%s: no such switch, ignored", name);
	}
	if (valgrind)
		firn_config.fold = false;
}
