/* SPDX-License-Identifier: MIT */
#include "transfer/armed.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "sys/sys.h"

#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#define PIDFD_SELF_THREAD_GROUP (-10001)
#define LOWEST_ADDRESS 65536ull              /* that an unprivileged mapping may have (vm.mmap_min_addr) */

int firn_armed_init(struct firn_armed *a, pid_t pid, struct firn_armed_memory *m)
{
	pthread_rwlockattr_t attr;
	int err;

	memset(a, 0, sizeof(*a));
	a->uffd = a->on_fault = -1;
	a->pid = pid;
	a->m = m;
	err = pthread_rwlockattr_init(&attr);
	if (err)
		return -err;
	/* The thread that brings events must not wait behind a stream of readers. */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	err = pthread_rwlock_init(&a->layout, &attr);
	pthread_rwlockattr_destroy(&attr);
	if (err)
		return -err;
	err = firn_window_init(&a->window);
	if (err)
		pthread_rwlock_destroy(&a->layout);
	return err;
}

void firn_armed_done(struct firn_armed *a)
{
	firn_window_done(&a->window);
	pthread_rwlock_destroy(&a->layout);
}

int firn_armed_register(struct firn_armed *a, struct firn_range span)
{
	struct uffdio_register r = {
		.range = { span.start, span.end - span.start },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return (int)firn_sys.ioctl(a->uffd, UFFDIO_REGISTER, &r);
}

int firn_armed_unregister(struct firn_armed *a, struct firn_range span)
{
	struct uffdio_range r = { span.start, span.end - span.start };

	return (int)firn_sys.ioctl(a->uffd, UFFDIO_UNREGISTER, &r);
}

/*
 * Ask by lifting a write protection that we never set: the kernel looks first whether the layout changes,
 * then whether the address space is there, and then fails for want of it.
 */
static long ask(struct firn_armed *a)
{
	struct uffdio_writeprotect w = { .range = { LOWEST_ADDRESS, a->link.page_size } };

	return firn_sys.ioctl(a->uffd, UFFDIO_WRITEPROTECT, &w);
}

bool firn_armed_changing(struct firn_armed *a)
{
	return ask(a) == -EAGAIN;
}

bool firn_armed_ended(struct firn_armed *a)
{
	return a->uffd >= 0 && ask(a) == -ESRCH;
}

void firn_armed_wake_all(struct firn_armed *a)
{
	struct firn_range s;

	for (uint32_t n = 0; firn_link_watched(&a->link, n, &s); n++) {
		struct uffdio_range r = { s.start, s.end - s.start };

		firn_sys.ioctl(a->uffd, UFFDIO_WAKE, &r);
	}
	/* Somebody may wait where a mapping grew and we do not know it yet: all addresses, up to the last that
	 * this address space may have, which the kernel does not tell. */
	for (unsigned int bits = 57; bits > 32; bits--) {
		struct uffdio_range r = { LOWEST_ADDRESS, (1ull << bits) - a->link.page_size - LOWEST_ADDRESS };

		if (!firn_sys.ioctl(a->uffd, UFFDIO_WAKE, &r))
			break;
	}
}

static uint64_t drop_bytes(const struct firn_range *s, uint32_t n)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += s[i].end - s[i].start;
	return sum;
}

/* One vectored call on itself (Linux 6.13).  *@ret_done: bytes dropped. */
static int drop_vector(struct firn_inject *i, const struct firn_range *spans, uint32_t n, long *ret_done)
{
	struct firn_call call = {
		SYS_process_madvise,
		{ (uint64_t)PIDFD_SELF_THREAD_GROUP, i->j->scratch, n, MADV_DONTNEED, 0, 0 },
		FIRN_POINT_MADVISE_ENTRY, FIRN_POINT_MADVISE_EXIT,
	};
	struct iovec iov[64];
	int err;

	for (uint32_t o = 0; o < n; o += ARRAY_SIZE(iov)) {
		uint32_t k = (uint32_t)firn_min_u64(n - o, ARRAY_SIZE(iov));

		for (uint32_t j = 0; j < k; j++) {
			iov[j].iov_base = (void *)(uintptr_t)spans[o + j].start;
			iov[j].iov_len = spans[o + j].end - spans[o + j].start;
		}
		err = firn_inject_write(i, o * (uint32_t)sizeof(iov[0]), iov, k * sizeof(iov[0]));
		if (err)
			return err;
	}
	return firn_inject_call(i, &call, ret_done);
}

static int drop_one(struct firn_inject *i, struct firn_range s, long *ret)
{
	struct firn_call call = {
		SYS_madvise, { s.start, s.end - s.start, MADV_DONTNEED, 0, 0, 0 },
		FIRN_POINT_MADVISE_ENTRY, FIRN_POINT_MADVISE_EXIT,
	};

	return firn_inject_call(i, &call, ret);
}

int firn_armed_drop(struct firn_armed *a, struct firn_inject *i, const struct firn_range *spans, uint32_t n)
{
	long r = 0;
	int err;

	memcpy(a->m->drops, spans, n * sizeof(*spans));
	a->m->drop_next = 0;
	a->m->drop_count = n;
	__atomic_store_n(&a->m->dropping, 1, __ATOMIC_SEQ_CST);
	err = drop_vector(i, spans, n, &r);
	/* An older kernel, or a part only: the rest one by one.  Dropping twice is harmless. */
	if (!err && (r < 0 || (uint64_t)r < drop_bytes(spans, n))) {
		uint64_t done = r > 0 ? (uint64_t)r : 0;

		for (uint32_t k = 0; !err && k < n; k++) {
			uint64_t len = spans[k].end - spans[k].start;

			if (done >= len) {
				done -= len;
				continue;
			}
			done = 0;
			err = drop_one(i, spans[k], &r);
			if (!err && r < 0)
				err = (int)r;
		}
	}
	firn_armed_dropped(a);
	return err;
}

void firn_armed_dropped(struct firn_armed *a)
{
	/* The target goes on as soon as its events are read; whoever read them holds the lock until they
	 * are applied.  Before that, they must still be known as ours. */
	pthread_rwlock_wrlock(&a->layout);
	__atomic_store_n(&a->m->dropping, 0, __ATOMIC_SEQ_CST);
	pthread_rwlock_unlock(&a->layout);
}

bool firn_armed_is_own_drop(struct firn_armed *a, struct firn_range span)
{
	struct firn_armed_memory *m = a->m;

	if (!__atomic_load_n(&m->dropping, __ATOMIC_SEQ_CST))
		return false;
	for (uint32_t k = m->drop_next; k < m->drop_count; k++) {
		if (m->drops[k].start == span.start && m->drops[k].end == span.end) {
			m->drop_next = k + 1;
			return true;
		}
	}
	return false;
}

void firn_armed_count_reads(struct firn_armed *a, const struct firn_block_reader *r)
{
	__atomic_fetch_add(&a->m->read_calls, r->read_calls, __ATOMIC_RELAXED);
	__atomic_fetch_add(&a->m->read_bytes, r->read_bytes, __ATOMIC_RELAXED);
	__atomic_fetch_add(&a->m->blocks_read, r->blocks_read, __ATOMIC_RELAXED);
}

/* The verdict on an ioctl that failed with @err (negative) for a reason of the target's. */
static enum firn_installed verdict(struct firn_armed *a, long err)
{
	switch (err) {
	case -ESRCH:
		atomic_store(&a->gone, true);
		return FIRN_INSTALL_GONE;
	case -ENOMEM:
		return FIRN_INSTALL_NO_MEMORY;
	default:        /* EAGAIN; ENOENT and EINVAL: the mapping changed and its event is on its way */
		return FIRN_INSTALL_AGAIN;
	}
}

static void wake(struct firn_armed *a, uint64_t address, uint64_t len)
{
	struct uffdio_range r = { address, len };

	firn_sys.ioctl(a->uffd, UFFDIO_WAKE, &r);
}

/*
 * UFFDIO_COPY of @n pages whose links are IN_FLIGHT.  Pages that got there are RESIDENT afterwards, the
 * others EVICTED again and their waiters woken, so that they ask anew.
 */
static enum firn_installed copy_pages(struct firn_armed *a, const struct firn_run *run, uint32_t index, uint32_t n,
				      const char *src)
{
	struct firn_link *l = &a->link;
	uint64_t at = run->start + ((uint64_t)(index - run->first) << l->page_shift);
	uint32_t done = 0, at_once = n;

	while (done < n) {
		uint32_t now = at_once < n - done ? at_once : n - done;
		struct uffdio_copy c = {
			.dst = at + ((uint64_t)done << l->page_shift),
			.src = (uint64_t)(uintptr_t)(src + ((size_t)done << l->page_shift)),
			.len = (uint64_t)now << l->page_shift,
		};
		long err = firn_sys.ioctl(a->uffd, UFFDIO_COPY, &c);
		uint32_t copied;

		/* On failure the count says how far it came; it is negative where it came nowhere. */
		copied = c.copy > 0 ? (uint32_t)((uint64_t)c.copy >> l->page_shift) : 0;
		if (!err)
			copied = now;
		for (uint32_t k = 0; k < copied; k++) {
			uint32_t was = firn_link_get(l, index + done + k);

			firn_link_move(l, index + done + k, was, firn_link_make(FIRN_PAGE_RESIDENT, 0));
		}
		done += copied;
		if (!err)
			continue;
		/* Pages that lay in one mapping lie in two by now (mprotect says nothing to us): page by page. */
		if ((err == -ENOENT || err == -EINVAL) && now > 1) {
			at_once = 1;
			continue;
		}
		if (err == -EEXIST) {
			/* Somebody was quicker; whoever waits may go on. */
			uint32_t was = firn_link_get(l, index + done);

			firn_link_move(l, index + done, was, firn_link_make(FIRN_PAGE_RESIDENT, 0));
			wake(a, at + ((uint64_t)done << l->page_shift), l->page_size);
			done++;
			continue;
		}
		if (copied && err == -EAGAIN)
			continue;
		for (uint32_t k = done; k < n; k++) {
			uint32_t was = firn_link_get(l, index + k);

			firn_link_move(l, index + k, was,
				       firn_link_make(FIRN_PAGE_EVICTED, firn_link_place(was)));
		}
		wake(a, at + ((uint64_t)done << l->page_shift), (uint64_t)(n - done) << l->page_shift);
		return verdict(a, err);
	}
	return FIRN_INSTALLED;
}

/* Is page @index still wanted, and in block @block?  Then *@ret_page is its page there. */
static bool wanted(const struct firn_link *l, uint32_t index, uint32_t block, uint32_t *ret_link, uint32_t *ret_page)
{
	*ret_link = firn_link_get(l, index);
	*ret_page = firn_link_place(*ret_link) % FIRN_BLOCK_PAGES;
	return firn_link_state(*ret_link) == FIRN_PAGE_EVICTED &&
	       firn_link_place(*ret_link) / FIRN_BLOCK_PAGES == block;
}

enum firn_installed firn_armed_install(struct firn_armed *a, const struct firn_run *run, uint32_t index,
				       uint32_t max, uint32_t block, const void *raw, uint32_t *ret_links)
{
	struct firn_link *l = &a->link;
	uint32_t end = (uint32_t)firn_min_u64(run->first + run->npages, (uint64_t)index + max);
	uint32_t n = 0, first_page = 0, link, page;

	/* Take as many as lie together both in the target and in the block; whoever else meets them
	 * leaves them to us. */
	while (index + n < end && wanted(l, index + n, block, &link, &page) && (!n || page == first_page + n)) {
		if (!firn_link_move(l, index + n, link,
				    firn_link_make(FIRN_PAGE_IN_FLIGHT, firn_link_place(link))))
			break;
		if (!n)
			first_page = page;
		n++;
	}
	*ret_links = n ? n : 1;
	if (!n)
		return FIRN_INSTALLED;
	return copy_pages(a, run, index, n, (const char *)raw + ((size_t)first_page << l->page_shift));
}

enum firn_installed firn_armed_install_one(struct firn_armed *a, const struct firn_run *run, uint32_t index,
					   uint32_t block, const void *page)
{
	struct firn_link *l = &a->link;
	uint32_t link, number;

	if (!wanted(l, index, block, &link, &number) ||
	    !firn_link_move(l, index, link, firn_link_make(FIRN_PAGE_IN_FLIGHT, firn_link_place(link))))
		return FIRN_INSTALLED;
	return copy_pages(a, run, index, 1, page);
}

enum firn_installed firn_armed_install_fill(struct firn_armed *a, const struct firn_run *run, uint32_t index,
					    void *page)
{
	struct firn_link *l = &a->link;
	uint32_t link = firn_link_get(l, index);
	uint64_t at = run->start + ((uint64_t)(index - run->first) << l->page_shift), word, *w = page;
	struct uffdio_copy c = { .dst = at, .src = (uint64_t)(uintptr_t)page, .len = l->page_size };
	long err;

	if (firn_link_state(link) != FIRN_PAGE_FILL)
		return FIRN_INSTALLED;
	word = a->pack->fills[firn_link_place(link)];
	for (uint32_t k = 0; k < l->page_size / 8; k++)
		w[k] = word;
	err = firn_sys.ioctl(a->uffd, UFFDIO_COPY, &c);
	if (err == -EEXIST) {
		wake(a, at, l->page_size);
		err = 0;
	}
	if (err)
		return verdict(a, err);
	firn_link_move(l, index, link, firn_link_make(FIRN_PAGE_RESIDENT, 0));
	return FIRN_INSTALLED;
}

enum firn_installed firn_armed_install_zero(struct firn_armed *a, struct firn_range span)
{
	struct uffdio_zeropage z = { .range = { span.start, span.end - span.start } };
	long err = firn_sys.ioctl(a->uffd, UFFDIO_ZEROPAGE, &z);

	if (err == -EEXIST) {
		wake(a, span.start, span.end - span.start);
		return FIRN_INSTALLED;
	}
	return err ? verdict(a, err) : FIRN_INSTALLED;
}

int firn_armed_poison(struct firn_armed *a, uint64_t address, uint32_t npages)
{
	struct firn_link *l = &a->link;
	int first = 0;

	for (uint32_t k = 0; k < npages; k++) {
		uint64_t at = address + ((uint64_t)k << l->page_shift);
		struct firn_uffdio_poison p = { .range = { at, l->page_size } };
		struct firn_run run;
		uint32_t index;
		long err;

		if (firn_link_find(l, at, &run, &index) == FIRN_FOUND_LINK) {
			uint32_t was = firn_link_get(l, index);

			/* LOST already: a former agent may not have come to poison it. */
			if (firn_link_state(was) != FIRN_PAGE_EVICTED && firn_link_state(was) != FIRN_PAGE_LOST)
				continue;
			if (firn_link_state(was) == FIRN_PAGE_EVICTED &&
			    firn_link_move(l, index, was, firn_link_make(FIRN_PAGE_LOST, firn_link_place(was))))
				__atomic_fetch_add(&a->m->lost_pages, 1, __ATOMIC_RELAXED);
		} else {
			__atomic_fetch_add(&a->m->lost_pages, 1, __ATOMIC_RELAXED);
		}
		err = a->features & FIRN_UFFD_FEATURE_POISON ? firn_sys.ioctl(a->uffd, FIRN_UFFDIO_POISON, &p) :
							       -EOPNOTSUPP;
		if (err && err != -EEXIST && !first)
			first = (int)err;
	}
	return first;
}

void firn_armed_lose(struct firn_armed *a, uint64_t address, const char *why)
{
	int err = firn_armed_poison(a, address, 1);
	uint64_t n = a->m->lost_pages;

	/* A pack that is gone loses every page: the first few say it, then every doubling. */
	if (n > 16 && (n & (n - 1)))
		return;
	firn_log("process %d: page %#llx of pack %016llx cannot be read back (%s): %s; %llu so far", a->pid,
		 (unsigned long long)address, a->pack ? (unsigned long long)a->pack->m->generation : 0, why,
		 err ? "it is held back, whoever touches it waits" : "it is poisoned, whoever touches it gets SIGBUS",
		 (unsigned long long)n);
}
