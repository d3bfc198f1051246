/* SPDX-License-Identifier: MIT */
/*
 * A reader of our own: libinih cuts lines at 200 bytes and names at 50, takes " ;" within a value for a comment, passes
 * over what follows a section's bracket, and tells the line of the first error alone.
 */
#include "agent/ini.h"

#include <string.h>

static bool blank(char c)
{
	return c == ' ' || c == '\t';
}

/* @s without blanks around it; cuts behind. */
static char *trim(char *s)
{
	char *end = s + strlen(s);

	while (end > s && blank(end[-1]))
		*--end = 0;
	while (blank(*s))
		s++;
	return s;
}

static bool has_control(const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)line[i];

		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return true;
	}
	return false;
}

static void read_line(char *line, size_t len, uint32_t number, const struct firn_ini_calls *calls, void *arg)
{
	char *equals, *key, *value;

	if (len && line[len - 1] == '\r')
		len--;
	if (len > FIRN_INI_LINE) {
		calls->bad(arg, number, "the line is longer than 4096 bytes: shorten it, or split a rule in two");
		return;
	}
	if (has_control(line, len)) {
		calls->bad(arg, number, "there is a control character: take it away");
		return;
	}
	line[len] = 0;
	line = trim(line);
	if (!*line || *line == '#' || *line == ';')
		return;
	if (*line == '[') {
		size_t n = strlen(line);

		if (line[n - 1] != ']') {
			calls->bad(arg, number, "a section is [name], with nothing behind it: write it so");
			return;
		}
		line[n - 1] = 0;
		calls->section(arg, number, trim(line + 1));
		return;
	}
	equals = strchr(line, '=');
	if (!equals) {
		calls->bad(arg, number, "this is no section, key or comment: write key = value");
		return;
	}
	*equals = 0;
	key = trim(line);
	value = trim(equals + 1);
	if (!*key)
		calls->bad(arg, number, "there is no key before '=': write key = value");
	else
		calls->key(arg, number, key, value);
}

void firn_ini_read(char *text, size_t len, const struct firn_ini_calls *calls, void *arg)
{
	uint32_t number = 0;

	/* A byte order mark is no part of the first line. */
	if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) {
		text += 3;
		len -= 3;
	}
	while (len) {
		char *newline = memchr(text, '\n', len);
		size_t n = newline ? (size_t)(newline - text) : len;

		number++;
		if (newline) {
			read_line(text, n, number, calls, arg);
			n++;
		} else {
			/* The last line has no newline in whose place its end could be written. */
			char copy[FIRN_INI_LINE + 2];

			if (n > FIRN_INI_LINE)
				calls->bad(arg, number, "the line is longer than 4096 bytes: shorten it, or split a rule in two");
			else
				read_line(memcpy(copy, text, n), n, number, calls, arg);
		}
		text += n;
		len -= n;
	}
}
