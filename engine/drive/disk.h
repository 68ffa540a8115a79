/* SPDX-License-Identifier: Apache-2.0 */
/* The disks of one lane, on its io_uring (disk_uring.c) or simulated (tests/sim), chosen by the
 * linker. */
#ifndef CASEMATE_DRIVE_DISK_H
#define CASEMATE_DRIVE_DISK_H

#include "core/core.h"

struct disk;
/* gives; NULL with errno. entries: operations in flight at most. */
struct disk *disk_new(unsigned entries);
void disk_free(struct disk *);
/* How many operations can hang with their disks without holding up those of the others. With fewer
 * than there are entries, disks that hang may slow down those that do not; 0: as the kernel likes.
 */
unsigned disk_workers(const struct disk *);

enum { DISK_FILES_MAX = 1024 };
/* Opens for direct I/O where the file system has it (else buffered, *buffered set: the caller says
 * so in the log). Gives a file number >= 0 or a negative errno. size: the least that the file must
 * have, else -ENODATA. Takes an advisory lock (OFD, exclusive): -EBUSY when another
 * process has it. May be called from the control thread before the lane runs, and by the lane
 * later. */
int disk_file_open(struct disk *, const char *path, uint64_t size, bool *buffered);
void disk_file_close(struct disk *, uint16_t file);
/* Whether it is a regular file that had all its space when it was opened: then a discard takes none
 * of it away, and a later write finds room. */
bool disk_file_is_reserved(const struct disk *, uint16_t file);
/* The descriptor, for fstat by the control thread. */
int disk_file_descriptor(const struct disk *, uint16_t file);

/* Lets the kernel keep this memory at hand, for transfers of one piece in it: 0, or -ENOMEM where
 * the limit on locked memory forbids (all works without). Once, before the lane runs; the memory
 * outlives the disk. */
int disk_register_memory(struct disk *, void *base, uint64_t bytes);

/* Takes the operations; what the ring has no room for waits inside. */
void disk_submit(struct disk *, struct io_list *);
unsigned disk_reap(struct disk *, struct completion *, unsigned max);
unsigned disk_in_flight(const struct disk *);
/* Sleeps until something completes (disk, client socket, wake-up) or the time has passed. */
void disk_wait(struct disk *, ns_t timeout);
/* From any thread: ends a disk_wait. */
void disk_wake(struct disk *);

/* Client sockets share the ring: operations whose user data has bit 0 set are handed to this one.
 */
struct io_uring;
struct io_uring *disk_ring(struct disk *);
void disk_set_foreign(struct disk *,
		      void (*completed)(void *context, uint64_t user_data, int32_t result,
					uint32_t flags),
		      void *context);

struct disk_counters {
	uint64_t submitted, failed;
	uint64_t fixed;		/* transfers from or to registered memory */
	uint64_t cut_short;	/* transfers that were continued, or read beyond the end */
	uint64_t again;		/* issued again: interrupted or out of kernel memory */
	uint64_t synced_apart;	/* durable writes that took a sync of their own */
	uint64_t zeros_written; /* discards and zeroes that the file system could not do */
};
void disk_counters(const struct disk *, struct disk_counters *);

#endif
