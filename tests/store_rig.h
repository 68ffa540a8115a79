/* SPDX-License-Identifier: Apache-2.0 */
/* One store on the disk in memory, with a model of what was written beside it: the checks compare
 * what the store says with the model, and nothing else. */
#ifndef CASEMATE_TESTS_STORE_RIG_H
#define CASEMATE_TESTS_STORE_RIG_H

#include "fake_disk.h"

#include "core/format.h"
#include "core/ranges.h"
#include "core/store.h"

enum {
	SEGMENT_BYTES = 65536,
	SEGMENT_COUNT = 6,
};
enum {
	RIG_SUPERBLOCK,
	RIG_JOURNAL,
	RIG_IMAGE, /* and the one behind it */
	RIG_SLOTS = RIG_IMAGE + 2,
	RIG_LSNS_MAX = 12288,
	RIG_ITEMS_MAX = 64,
	RIG_SHARD_BYTES_MAX = 8192,
};

struct rig_record {
	uint8_t volume, kind;
	uint8_t span; /* index in the group's table */
	bool appended, done;
	uint64_t block;
};

struct rig {
	struct fake_disk disk;
	struct effects fx;
	struct store_config config;
	struct store *store;
	void *memory;
	struct store_group group; /* as the vault would have it */
	struct store_group acked; /* the newest that was told durable */
	struct store_superblock_write group_write;
	bool group_writing;
	struct store_group group_sent;
	struct rig_record record[RIG_LSNS_MAX];
	lsn_t lsn; /* last drawn */
	struct rig_item {
		struct store_append item;
		struct rig *rig;
		uint8_t *shard;
		bool busy;
	} item[RIG_ITEMS_MAX];
	int opened, out, folded; /* how often told */
	int opened_result, out_err;
	int done_count, done_errors;
	lsn_t folded_to; /* image point when told */
};

/* A formatted store: k 2, m 1, index 1; volume 0 of 96 blocks of 8 KiB, volume 1 of 50 of 16 KiB.
 */
struct rig *rig_new(uint64_t seed, uint64_t segment_bytes, uint32_t segment_count);
void rig_free(struct rig *);
/* A fresh struct store on the files as they are, opened until told. */
void rig_open(struct rig *);
/* One turn: the store's, then the disk takes what it wants. */
void rig_turn(struct rig *);
/* Turns and completions until nothing is left to do. */
void rig_settle(struct rig *);
/* Power cut; the store object is gone. */
void rig_crash(struct rig *);
/* The process dies, the machine does not. */
void rig_kill(struct rig *);
/* After an opening: what is held now has been told, and must be held for ever. */
void rig_promise(struct rig *);

/* A new one of six segments, open; and opening again, by the spans of the group. */
struct rig *rig_fresh(uint64_t seed);
void rig_reopen(struct rig *);

/* Where the n-th batch of segment 0 begins; each was written alone. */
const struct disk_batch *rig_batch_at(const struct rig *, unsigned number, uint64_t *offset);
/* One bit. */
void rig_flip(struct rig *, unsigned file, uint64_t at);

void rig_shard(uint8_t *shard, uint32_t bytes, lsn_t);
struct record rig_record_of(const struct rig *, lsn_t);
/* Draws the next lsn for the block and appends it. 0 or as store_append. */
int rig_append(struct rig *, uint8_t kind, uint8_t volume, uint64_t block);
/* Appends a drawn lsn (again). */
int rig_append_lsn(struct rig *, lsn_t);
void rig_write_group(struct rig *);
/* Highest lsn up to which all are held. */
lsn_t rig_floor(const struct rig *);
/* Records the fold point, then folds, until done. */
void rig_fold(struct rig *, lsn_t fold_point);
/* Reads what the record says into memory that holds until the next call. */
int rig_read(struct rig *, const struct record *, const uint8_t **shard);

/* Everything that was told done is held; each block reads as the newest record held up to the
 * limit; nothing reads as anything else. Exits the test on a difference. */
void rig_check(struct rig *, lsn_t limit);

#endif
