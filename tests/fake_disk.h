/* SPDX-License-Identifier: Apache-2.0 */
/* A small disk in memory for tests: what is written is cached first and durable later, operations
 * complete late and in any order, and a crash keeps any subset of the sectors that were not yet
 * durable. Failures are injected by kind of operation and count. */
#ifndef CASEMATE_TESTS_FAKE_DISK_H
#define CASEMATE_TESTS_FAKE_DISK_H

#include "core/effects.h"

enum { FAKE_FILES_MAX = 8, FAKE_PENDING_MAX = 512, FAKE_SECTOR_BYTES = 512 };

struct fake_write;
struct fake_file {
	uint8_t *cached;  /* what a read shows */
	uint8_t *durable; /* what a crash leaves at least, below the writes in the log */
	uint64_t bytes;
	struct fake_write *log; /* oldest first */
};

struct fake_fault {
	int kind;	/* enum io_kind; -1: none */
	unsigned after; /* so many of the kind succeed first */
	int32_t result; /* the negative errno, or a short count */
	unsigned times; /* how many fail; 0: none */
	int file;	/* only of this file; -1: any */
};

struct fake_disk {
	struct fake_file file[FAKE_FILES_MAX];
	struct fake_pending {
		struct io *io;
		uint8_t *data; /* of a write, as it was when submitted */
		uint64_t submitted;
	} pending[FAKE_PENDING_MAX];
	unsigned pending_count;
	uint64_t clock; /* counts submissions and completions */
	uint64_t random;
	struct fake_fault fault;
	uint64_t count[IO_ZERO + 1]; /* completed, by kind */
	bool in_order;		     /* complete first in, first out */
	int slow_file;		     /* completes rarely while others are pending; -1: none */
};

void fake_disk_init(struct fake_disk *, uint64_t seed);
void fake_disk_fini(struct fake_disk *);
void fake_disk_file(struct fake_disk *, unsigned file, uint64_t bytes);
/* Takes what a turn wants done. */
void fake_disk_submit(struct fake_disk *, struct effects *);
/* Completes one operation; false when none is pending. */
bool fake_disk_complete(struct fake_disk *, struct effects *);
/* Whether nothing is pending but operations of the slow file. */
bool fake_disk_only_slow(const struct fake_disk *);
/* Power cut: of what was not durable any subset of sectors stays; nothing completes any more. */
void fake_disk_crash(struct fake_disk *);
/* The process dies, the machine lives: what was written is still in the cache and no more durable
 * than before; of what was in flight any subset of sectors has been written. */
void fake_disk_kill(struct fake_disk *);
/* Everything written is durable: a quiet shutdown, also of operations in flight. */
void fake_disk_settle(struct fake_disk *);
/* Both images, for planting and looking. */
void fake_disk_poke(struct fake_disk *, unsigned file, uint64_t offset, const void *,
		    uint64_t bytes);
uint64_t fake_disk_random(struct fake_disk *);

#endif
