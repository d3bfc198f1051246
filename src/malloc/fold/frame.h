/* SPDX-License-Identifier: MIT */
/*
 * Frames: pages of memory files (stores) that virtual pages are folded onto, and how many virtual pages each
 * of them has.  A store is made in the helper, and its descriptor closed there; what keeps it are the private
 * mappings of the folded pages, and one shared one, the window, through which frames are given back.
 */
#ifndef FIRN_MALLOC_FOLD_FRAME_H
#define FIRN_MALLOC_FOLD_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FIRN_FRAME_NONE UINT32_MAX
#define FIRN_STORE_NONE UINT32_MAX
#define FIRN_STORE_PAGES_MAX 16384u     /* frames of a store */

/* Reserve the tables.  Thread: holds the pass lock, as for all below that do not say otherwise.  0 or -ENOMEM. */
int firn_frames_open(void);

/* In the helper: a store of @npages frames.  *@ret_first: number of its first frame, a multiple of 64.
 * *@ret_fd: the caller closes it.  Returns the store, or FIRN_STORE_NONE: then nothing was made, and
 * *@ret_error is -errno. */
uint32_t firn_store_open(uint32_t npages, uint32_t *ret_first, int *ret_fd, int *ret_error);

/* A virtual page maps @frame from now on.  @shift: the run of frames it is part of.  @needs: it has objects
 * there, and so the frame holds bytes. */
void firn_frame_map(uint32_t frame, unsigned int shift, bool needs);

/* A virtual page needs @frame no more: its last object went, it was written, or it moved.  Any thread. */
void firn_frame_drop(uint32_t frame);

/* A virtual page that mapped @frame maps something else now.  Any thread. */
void firn_frame_unmap(uint32_t frame);

/* Virtual pages that need @frame. */
unsigned int firn_frame_count(uint32_t frame);

/* First of the run of frames that @frame is part of, and log2 of its length. */
uint32_t firn_frame_run(uint32_t frame, unsigned int *ret_shift);

/* A word of the folder's own for each run of frames, by its first. */
uint32_t *firn_frame_note(uint32_t first);

/* Are there frames that nobody needs, or stores that nobody maps? */
bool firn_frames_untidy(void);

/* In the helper: does no forked process map what we map?  Look after the pages were remapped, then tidy. */
bool firn_frames_exclusive(void);

/*
 * Choose what tidying may give back.  Before the sentinel is looked at: a frame that nobody needs by now is not
 * mapped by a process that is forked from now on, however it is forked, and one that was forked before is seen.
 */
void firn_frames_choose(void);

/* Unmap stores that nothing maps; where @exclusive, give back the frames that were chosen.  Stops at @until_ns,
 * and says whether there is more.  Returns pages given back. */
size_t firn_frames_tidy(bool exclusive, uint64_t until_ns, bool *ret_more);

/* In a forked child: what is mapped is the parent's as well, and is never punched. */
void firn_frames_forked(void);

#endif
