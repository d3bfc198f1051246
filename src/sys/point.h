/* SPDX-License-Identifier: MIT */
/*
 * Named steps at which a test may kill the agent.  `firnd --list-points` prints them.
 */
#ifndef FIRN_SYS_POINT_H
#define FIRN_SYS_POINT_H

#define FIRN_POINTS(X)                                          \
	X(PLAN_DONE, "freeze.planned")                          \
	X(STOPPED, "freeze.stopped")                            \
	X(CAVE, "inject.cave")                                  \
	X(PARK_REGS, "inject.park.regs")                        \
	X(PARK_MASK, "inject.park.mask")                        \
	X(MMAP_ENTRY, "inject.mmap.entry")                      \
	X(MMAP_EXIT, "inject.mmap.exit")                        \
	X(SCRATCH, "inject.scratch")                            \
	X(CALL_REGS, "inject.call.regs")                        \
	X(CALL_MASK, "inject.call.mask")                        \
	X(PRCTL_ENTRY, "inject.prctl.entry")                    \
	X(PRCTL_EXIT, "inject.prctl.exit")                      \
	X(SOCKETPAIR_ENTRY, "inject.socketpair.entry")          \
	X(SOCKETPAIR_EXIT, "inject.socketpair.exit")            \
	X(RECVMSG_ENTRY, "inject.recvmsg.entry")                \
	X(RECVMSG_EXIT, "inject.recvmsg.exit")                  \
	X(IOCTL_ENTRY, "inject.ioctl.entry")                    \
	X(IOCTL_EXIT, "inject.ioctl.exit")                      \
	X(FCNTL_ENTRY, "inject.fcntl.entry")                    \
	X(FCNTL_EXIT, "inject.fcntl.exit")                      \
	X(CLOSE_ENTRY, "inject.close.entry")                    \
	X(CLOSE_EXIT, "inject.close.exit")                      \
	X(PWRITEV_ENTRY, "inject.pwritev.entry")                \
	X(PWRITEV_EXIT, "inject.pwritev.exit")                  \
	X(MADVISE_ENTRY, "inject.madvise.entry")                \
	X(MADVISE_EXIT, "inject.madvise.exit")                  \
	X(MUNMAP_ENTRY, "inject.munmap.entry")                  \
	X(MUNMAP_EXIT, "inject.munmap.exit")                    \
	X(UNPARK_MASK, "inject.unpark.mask")                    \
	X(UNPARK_REGS, "inject.unpark.regs")                    \
	X(END_MASK, "inject.end.mask")                          \
	X(END_REGS, "inject.end.regs")                          \
	X(WALKED, "freeze.walked")                              \
	X(UFFD_OPEN, "freeze.uffd")                             \
	X(GATHERED, "freeze.gathered")                          \
	X(WRITTEN, "freeze.written")                            \
	X(ARMED, "freeze.armed")                                \
	X(DROPPED, "freeze.dropped")                            \
	X(LEAVING, "freeze.leaving")                            \
	X(LEFT, "freeze.left")                                  \
	X(HOLD_SAID, "hold.said")                               \
	X(HOLD_LEFT, "hold.left")                               \
	X(GROUP_HELD, "group.held")                             \
	X(GROUP_EVICTED, "group.evicted")                       \
	X(GROUP_KEPT, "group.kept")                             \
	X(GROUP_RUN, "group.run")                               \
	X(EV_FAULT, "pager.read.fault")                         \
	X(EV_REMOVE, "pager.read.remove")                       \
	X(EV_REMAP, "pager.read.remap")                         \
	X(EV_UNMAP, "pager.read.unmap")                         \
	X(EV_FORK, "pager.read.fork")                           \
	X(EV_APPLIED, "pager.applied")                          \
	X(FAULT_FOUND, "fault.found")                           \
	X(FAULT_READ, "fault.read")                             \
	X(FAULT_COPIED, "fault.copied")                         \
	X(CHILD_MADE, "fork.child")                             \
	X(THAW_STOPPED, "thaw.stopped")                         \
	X(CONT_MASK, "thaw.cont.mask")                          \
	X(CONT_SENT, "thaw.cont.sent")                          \
	X(THAW_SET, "thaw.set")                                 \
	X(THAW_RUNNING, "thaw.running")                         \
	X(THAW_BLOCK, "thaw.block")                             \
	X(THAW_WHOLE, "thaw.whole")                             \
	X(THAW_DISARMED, "thaw.disarmed")                       \
	X(THAW_CLOSED, "thaw.closed")                           \
	X(THAW_LEFT, "thaw.left")                               \
	X(WATCHED, "wake.watched")                              \
	X(WOKEN, "wake.woken")                                  \
	X(BASE_LOADED, "base.loaded")                          \
	X(BASE_KEPT, "base.kept")                              \
	X(BASE_DROPPED, "base.dropped")                        \
	X(MOVE_PIECE, "move.piece")                             \
	X(MOVE_COPIED, "move.copied")                           \
	X(MOVE_SAID, "move.said")                               \
	X(MOVE_CHANGED, "move.changed")

enum firn_point {
#define X(id, name) FIRN_POINT_##id,
	FIRN_POINTS(X)
#undef X
	FIRN_POINT_COUNT
};

/* The point's name.  Any thread. */
const char *firn_point_name(enum firn_point point);

/* Ask that the process end itself by SIGKILL when it passes "name" or "name:n" (the n-th time).
 * Returns 0, or -EINVAL for a name that is not a point.  Before any thread starts. */
int firn_point_kill_at(const char *spec);

/* Ask that whoever passes "name:ms" sleeps for so many milliseconds there: a race made certain.
 * Returns and thread as above. */
int firn_point_sleep_at(const char *spec);

/* Pass a named step. */
void firn_point(enum firn_point point);

#endif
