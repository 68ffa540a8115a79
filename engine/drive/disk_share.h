/* SPDX-License-Identifier: Apache-2.0 */
/* The operations that a ring may have in flight, shared equally by the disks that its files lie
 * on: one that hangs keeps its share and no more, and the others go on. */
#ifndef CASEMATE_DRIVE_DISK_SHARE_H
#define CASEMATE_DRIVE_DISK_SHARE_H

#include "core/effects.h"

#include <stdatomic.h>

enum { DISK_SHARES_MAX = 64 }; /* disks; further ones have the last share together */

struct disk_share {
	unsigned slots;	       /* of the ring */
	unsigned turn;	       /* lane: rw; who is asked next */
	unsigned waiting;      /* lane: rw; operations of all disks */
	atomic_uint used;      /* disks with open files; who opens and closes: rw, lane: r */
	atomic_uint seen;      /* entries of the table ever used; likewise */
	struct disk_share_of { /* one disk */
		uint64_t id;   /* who opens and closes: rw; so are its files */
		unsigned files;
		struct io_list waiting; /* lane: rw */
		unsigned in_flight;	/* lane: rw */
	} of[DISK_SHARES_MAX];
};

void disk_share_init(struct disk_share *, unsigned slots);
/* A file on the disk of this id is open: gives the number of its share. */
unsigned disk_share_open(struct disk_share *, uint64_t id);
/* Nothing of the file waits or is in flight. */
void disk_share_close(struct disk_share *, unsigned number);

/* takes */
void disk_share_wait(struct disk_share *, unsigned number, struct io *);
/* Whether disk_share_next has something. */
bool disk_share_ready(const struct disk_share *);
/* gives: the oldest operation of some disk that has room in its share, which is in flight from now
 * on; NULL. */
struct io *disk_share_next(struct disk_share *);
void disk_share_done(struct disk_share *, unsigned number);

#endif
