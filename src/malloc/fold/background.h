/* SPDX-License-Identifier: MIT */
#ifndef FIRN_MALLOC_FOLD_BACKGROUND_H
#define FIRN_MALLOC_FOLD_BACKGROUND_H

/* FIRN_MALLOC_BACKGROUND=1: start the thread that does the work when the program does not come by.  Without the
 * switch, or where no thread can be made, nothing happens.  Thread: the constructor's, a forked child's first. */
void firn_background_start(void);

#endif
