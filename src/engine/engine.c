/* SPDX-License-Identifier: MIT */
#include "engine/engine.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/paths.h"
#include "engine/internal.h"
#include "procmem/proc.h"
#include "sys/sys.h"

int firn_engine_open(struct firn_engine **ret, const struct firn_engine_config *config, struct firn_err *e)
{
	struct firn_engine *en = calloc(1, sizeof(*en));
	int err;

	if (!en)
		return firn_err_set(e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory to begin");
	en->config = *config;
	en->page_size = (uint32_t)sysconf(_SC_PAGESIZE);
	pthread_mutex_init(&en->lock, NULL);
	pthread_mutex_init(&en->builder_lock, NULL);
	pthread_cond_init(&en->changed, NULL);
	en->uffd_device = firn_uffd_open_device(&en->uffd_features);
	if (en->uffd_device < 0) {
		err = en->uffd_device;
		if (err == -EOPNOTSUPP)
			firn_err_set(e, FIRN_EXIT_KERNEL, -err, "uffd-features",
				     "this kernel's userfaultfd lacks layout events: Linux 6.1 or newer is needed");
		else
			firn_err_set(e, FIRN_EXIT_KERNEL, -err, "no-userfaultfd",
				     FIRN_UFFD_DEVICE " cannot be opened (%s): Linux 6.1 or newer with CONFIG_USERFAULTFD, and root, are needed",
				     strerror(-err));
		free(en);
		return err;
	}
	firn_child_set_engine(en);
	err = firn_pager_start(&en->pager, &firn_engine_pager_ops, config->key, en->page_size);
	if (err) {
		firn_fd_close(&en->uffd_device);
		free(en);
		return firn_err_set(e, FIRN_EXIT_FAILED, -err, "pager", "the pagers cannot be started: %s", strerror(-err));
	}
	*ret = en;
	return 0;
}

void firn_engine_close(struct firn_engine *en)
{
	pthread_mutex_lock(&en->lock);
	while (en->moving)
		pthread_cond_wait(&en->changed, &en->lock);
	pthread_mutex_unlock(&en->lock);
	firn_kept_close(en);
	firn_pager_stop(en->pager);
	firn_fd_close(&en->uffd_device);
	pthread_mutex_destroy(&en->lock);
	pthread_mutex_destroy(&en->builder_lock);
	pthread_cond_destroy(&en->changed);
	free(en);
}

void firn_sweep_ended(struct firn_engine *en, const char *suffix)
{
	DIR *dir = opendir(en->config.private_dir);
	struct dirent *d;

	if (!dir)
		return;
	while ((d = readdir(dir))) {
		unsigned long long start = 0;
		char path[1024], *end;
		uint64_t now;
		long pid = strtol(d->d_name, &end, 10);

		if (end == d->d_name || *end != '-')
			continue;
		start = strtoull(end + 1, &end, 10);
		if (strcmp(end, suffix) || (!firn_proc_start_time((pid_t)pid, &now) && now == start) ||
		    firn_path_join(path, sizeof(path), en->config.private_dir, d->d_name))
			continue;
		firn_sys.unlink(path);
	}
	closedir(dir);
}
