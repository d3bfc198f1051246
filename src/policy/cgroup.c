/* SPDX-License-Identifier: MIT */
#include "policy/cgroup.h"

#include <string.h>

#define ID_LENGTH 64u

static bool ends_in(const char *part, size_t len, const char *end)
{
	size_t n = strlen(end);

	return len > n && !memcmp(part + len - n, end, n);
}

static bool begins_with(const char *part, size_t len, const char *begin)
{
	size_t n = strlen(begin);

	return len > n && !memcmp(part, begin, n);
}

/* The next part of a path, from *@path on; its length, 0 at the end. */
static size_t next_part(const char **path, const char **ret)
{
	size_t len;

	while (**path == '/')
		++*path;
	*ret = *path;
	len = strcspn(*path, "/");
	*path += len;
	return len;
}

static const char *give(const char *part, size_t len, char *buf, size_t size)
{
	if (len >= size)
		len = 0;
	memcpy(buf, part, len);
	buf[len] = 0;
	return buf;
}

/* The first unit from *@path on, which it moves behind it. */
static size_t find_unit(const char **path, const char **ret)
{
	size_t len;

	while ((len = next_part(path, ret)))
		if (ends_in(*ret, len, ".service") || ends_in(*ret, len, ".scope"))
			return len;
	return 0;
}

const char *firn_cgroup_unit(const char *path, char *buf, size_t size)
{
	const char *part;
	size_t len = find_unit(&path, &part);

	return give(part, len, buf, size);
}

const char *firn_cgroup_user_unit(const char *path, char *buf, size_t size)
{
	const char *part;
	size_t len = find_unit(&path, &part);

	if (len && begins_with(part, len, "user@"))
		len = find_unit(&path, &part);
	else
		len = 0;
	return give(part, len, buf, size);
}

/* 64 hexadecimal digits at the end of a part, but for ".scope". */
static size_t find_id(const char *part, size_t len, const char **ret)
{
	const char *id;

	if (ends_in(part, len, ".scope"))
		len -= strlen(".scope");
	if (len < ID_LENGTH)
		return 0;
	id = part + len - ID_LENGTH;
	for (unsigned int i = 0; i < ID_LENGTH; i++)
		if (!((id[i] >= '0' && id[i] <= '9') || (id[i] >= 'a' && id[i] <= 'f')))
			return 0;
	/* docker-ID, cri-containerd-ID, or kubelet's "pod...:cri-containerd:ID". */
	if (id > part && id[-1] != '-' && id[-1] != ':')
		return 0;
	/* Beside the container, not in it. */
	if (id - part >= (ptrdiff_t)strlen("conmon-") && !memcmp(id - strlen("conmon-"), "conmon-", strlen("conmon-")))
		return 0;
	*ret = id;
	return ID_LENGTH;
}

static size_t find_name(const char *part, size_t len, const char **ret)
{
	static const struct {
		const char *begin, *end;
	} names[] = {
		{ "lxc.payload.", "" },
		{ "systemd-nspawn@", ".service" },
		{ "machine-", ".scope" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		size_t begin = strlen(names[i].begin), end = strlen(names[i].end);

		if (begins_with(part, len, names[i].begin) && len > begin + end && ends_in(part, len, names[i].end)) {
			*ret = part + begin;
			return len - begin - end;
		}
	}
	return 0;
}

const char *firn_cgroup_container(const char *path, char *buf, size_t size)
{
	const char *part, *found = "", *in_part;
	size_t len, found_len = 0, n;

	while ((len = next_part(&path, &part))) {
		n = find_id(part, len, &in_part);
		if (!n)
			n = find_name(part, len, &in_part);
		if (n) {
			found = in_part;
			found_len = n;
		}
	}
	return give(found, found_len, buf, size);
}
