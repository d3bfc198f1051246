/* SPDX-License-Identifier: MIT */
/*
 * C++ operators new and delete, by the names that their mangling gives them.  The library is not linked with
 * a C++ runtime: where memory is out, the program's own is looked up, for its new_handler and to throw.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>

#include "malloc/api.h"
#include "malloc/config.h"

typedef void (*handler_fn)(void);

/* A function of the C++ runtime that the program uses, if it has one. */
static void *runtime(const char *name)
{
	static const char *const libraries[] = { "libstdc++.so.6", "libc++abi.so.1", "libc++.so.1" };
	void *f = dlsym(RTLD_DEFAULT, name), *library;

	/* Loaded by a plug-in, for itself alone. */
	for (size_t i = 0; !f && i < sizeof(libraries) / sizeof(libraries[0]); i++) {
		library = dlopen(libraries[i], RTLD_LAZY | RTLD_NOLOAD);
		if (!library)
			continue;
		f = dlsym(library, name);
		dlclose(library);
	}
	return f;
}

static handler_fn new_handler(void)
{
	handler_fn (*get)(void) = (handler_fn (*)(void))runtime("_ZSt15get_new_handlerv");

	return get ? get() : NULL;
}

/* Standard: call the handler as long as there is one, and try again; it may throw, end the process, or find
 * memory.  Without a handler throw std::bad_alloc. */
static void *out_of_memory(size_t n, size_t align)
{
	handler_fn handler;
	void (*throw)(void);
	void *p;

	while ((handler = new_handler())) {
		handler();
		p = firn_door_aligned(n, align);
		if (p)
			return p;
	}
	throw = (void (*)(void))runtime("_ZSt17__throw_bad_allocv");
	if (throw)
		throw();
	firn_die("out of memory: operator new of %lu bytes, and no C++ library to throw std::bad_alloc", n);
}

/* The runtime's own operator catches what a handler throws, which C cannot; it calls ours for the memory. */
static void *out_of_memory_nothrow(size_t n, size_t align, const void *nothrow, const char *name)
{
	void *next;

	if (!new_handler())
		return NULL;
	next = dlsym(RTLD_NEXT, name);
	if (!next)
		return NULL;
	if (align)
		return ((void *(*)(size_t, size_t, const void *))next)(n, align, nothrow);
	return ((void *(*)(size_t, const void *))next)(n, nothrow);
}

static inline void *new_aligned(size_t n, size_t align)
{
	void *p = align & (align - 1) ? NULL : firn_door_aligned(n, align);

	if (firn_likely(p != NULL))
		return p;
	if (!align || align & (align - 1))
		align = ~((size_t)-1 >> 1);     /* no such memory */
	return out_of_memory(n, align);
}

#define NEW(name)                                                        \
	FIRN_PUBLIC void *name(size_t n);                                \
	FIRN_PUBLIC void *name(size_t n)                                 \
	{                                                                \
		void *p = firn_door_alloc(n);                            \
                                                                         \
		return firn_likely(p != NULL) ? p : out_of_memory(n, 1); \
	}
#define NEW_NOTHROW(name)                                                                                     \
	FIRN_PUBLIC void *name(size_t n, const void *nothrow);                                                \
	FIRN_PUBLIC void *name(size_t n, const void *nothrow)                                                 \
	{                                                                                                     \
		void *p = firn_door_alloc(n);                                                                 \
                                                                                                              \
		return firn_likely(p != NULL) ? p : out_of_memory_nothrow(n, 0, nothrow, #name);              \
	}
#define NEW_ALIGNED(name)                               \
	FIRN_PUBLIC void *name(size_t n, size_t align); \
	FIRN_PUBLIC void *name(size_t n, size_t align)  \
	{                                               \
		return new_aligned(n, align);           \
	}
#define NEW_ALIGNED_NOTHROW(name)                                                                             \
	FIRN_PUBLIC void *name(size_t n, size_t align, const void *nothrow);                                  \
	FIRN_PUBLIC void *name(size_t n, size_t align, const void *nothrow)                                   \
	{                                                                                                     \
		void *p = align & (align - 1) ? NULL : firn_door_aligned(n, align);                           \
                                                                                                              \
		return firn_likely(p != NULL) ? p : out_of_memory_nothrow(n, align, nothrow, #name);          \
	}
#define DELETE(name)                        \
	FIRN_PUBLIC void name(void *p);     \
	FIRN_PUBLIC void name(void *p)      \
	{                                   \
		firn_door_free(p);          \
	}
#define DELETE_NOTHROW(name)                                     \
	FIRN_PUBLIC void name(void *p, const void *nothrow);     \
	FIRN_PUBLIC void name(void *p, const void *nothrow)      \
	{                                                        \
		(void)nothrow;                                   \
		firn_door_free(p);                               \
	}
#define DELETE_SIZED(name)                            \
	FIRN_PUBLIC void name(void *p, size_t n);     \
	FIRN_PUBLIC void name(void *p, size_t n)      \
	{                                             \
		firn_door_free_sized(p, n);           \
	}
#define DELETE_ALIGNED(name)                              \
	FIRN_PUBLIC void name(void *p, size_t align);     \
	FIRN_PUBLIC void name(void *p, size_t align)      \
	{                                                 \
		(void)align;                              \
		firn_door_free(p);                        \
	}
#define DELETE_SIZED_ALIGNED(name)                                  \
	FIRN_PUBLIC void name(void *p, size_t n, size_t align);     \
	FIRN_PUBLIC void name(void *p, size_t n, size_t align)      \
	{                                                           \
		(void)align;                                        \
		firn_door_free_sized(p, n);                         \
	}
#define DELETE_ALIGNED_NOTHROW(name)                                           \
	FIRN_PUBLIC void name(void *p, size_t align, const void *nothrow);     \
	FIRN_PUBLIC void name(void *p, size_t align, const void *nothrow)      \
	{                                                                      \
		(void)align;                                                   \
		(void)nothrow;                                                 \
		firn_door_free(p);                                             \
	}

/* A name begins with _Zn w or a (one, an array) for new, _Zd l or a for delete; m is size_t. */
NEW(_Znwm)
NEW(_Znam)
NEW_NOTHROW(_ZnwmRKSt9nothrow_t)
NEW_NOTHROW(_ZnamRKSt9nothrow_t)
NEW_ALIGNED(_ZnwmSt11align_val_t)
NEW_ALIGNED(_ZnamSt11align_val_t)
NEW_ALIGNED_NOTHROW(_ZnwmSt11align_val_tRKSt9nothrow_t)
NEW_ALIGNED_NOTHROW(_ZnamSt11align_val_tRKSt9nothrow_t)
DELETE(_ZdlPv)
DELETE(_ZdaPv)
DELETE_NOTHROW(_ZdlPvRKSt9nothrow_t)
DELETE_NOTHROW(_ZdaPvRKSt9nothrow_t)
DELETE_SIZED(_ZdlPvm)
DELETE_SIZED(_ZdaPvm)
DELETE_ALIGNED(_ZdlPvSt11align_val_t)
DELETE_ALIGNED(_ZdaPvSt11align_val_t)
DELETE_SIZED_ALIGNED(_ZdlPvmSt11align_val_t)
DELETE_SIZED_ALIGNED(_ZdaPvmSt11align_val_t)
DELETE_ALIGNED_NOTHROW(_ZdlPvSt11align_val_tRKSt9nothrow_t)
DELETE_ALIGNED_NOTHROW(_ZdaPvSt11align_val_tRKSt9nothrow_t)
