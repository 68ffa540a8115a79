/* SPDX-License-Identifier: Apache-2.0 */
/* One store of a group: superblocks, journal and images on one disk or directory, as one state
 * machine without I/O of its own (docs/store-format.md). The vault owns n of them; a store knows
 * nothing of its peers. Durable means: the synced write has completed.
 *
 * Life: store_init -> store_open (recovery, ends in config.opened) -> STORE_READY; any failed write
 * or sync -> STORE_OUT for good. A write to the image or its slots that finds no room on the disk
 * is no failure: nothing was written, the records are in the journal, and the fold waits.
 */
#ifndef CASEMATE_CORE_STORE_H
#define CASEMATE_CORE_STORE_H

#include "effects.h"
#include "record.h"
#include "span.h"

enum { STORE_SEGMENTS_MAX = 1024 };

enum store_state { STORE_CLOSED, STORE_OPENING, STORE_READY, STORE_OUT };

struct store_volume {
	char name[NAME_BYTES_MAX];
	struct uuid id; /* zero: not yet told by the primary */
	uint64_t size;	/* bytes; a multiple of block_bytes */
	uint32_t block_bytes;
	uint8_t wrapped_key[40]; /* WRAPPED_KEY_BYTES; zero until told */
	uint8_t key_check[16];	 /* KEY_CHECK_BYTES */
};

/* What all stores of a group know of it: in each superblock, in full. */
struct store_group {
	char name[NAME_BYTES_MAX];
	struct uuid set; /* the set of stores */
	struct geometry geometry;
	uint8_t quorum;
	uint8_t volume_count;
	struct store_volume volume[VOLUMES_PER_GROUP_MAX];
	uint64_t
		assembly; /* of the vault's starts, the one that says so: higher ones know better */
	lsn_t promised;	  /* up to here at least all was acknowledged as durable when written */
	uint32_t generation; /* the fence: lower ones are refused */
	lsn_t fold_point;    /* F: decided and recorded before any slot changes for it */
	uint32_t promoted;   /* generation under which this site serves; 0 = vault */
	uint64_t powered_ns; /* the vault's powered time when written */
	uint32_t incarnation[SHARDS_MAX]; /* of each store, as last known in service or out */
	uint32_t out;			  /* mask: stores recorded as out (with that incarnation) */
	struct spans spans;
};

/* Numbers of files, opened by the caller through disk.h. */
struct store_files {
	uint16_t superblock, journal;
	uint16_t image[VOLUMES_PER_GROUP_MAX], slots[VOLUMES_PER_GROUP_MAX];
};

/* Answers (done) are never given inside the call that asks, always in a completion or in
 * store_turn.
 */
struct store;
struct store_config {
	uint8_t index;	     /* shard index that this store holds */
	const char *subject; /* for notes: "group vol0 store 3" */
	struct store_files files;
	struct geometry geometry;
	uint8_t volume_count;
	struct {
		uint64_t size;
		uint32_t block_bytes;
	} volume[VOLUMES_PER_GROUP_MAX];
	uint64_t segment_bytes;	  /* whole pages; takes the largest shard and a header page */
	uint32_t segment_count;	  /* 2 to STORE_SEGMENTS_MAX; one is kept in reserve */
	uint32_t batch_bytes_max; /* 256 KiB - 1 MiB */
	/* told once, at the end of recovery: result 0, or -EBADMSG (both superblocks damaged),
	 * -ENOENT (not a store), -EXDEV (a good superblock of another index, geometry, volumes or
	 * journal than configured: store_group_of and store_id say what it is), -EIO, ... */
	void (*opened)(struct store *, int result, struct effects *);
	/* told once, when the store goes out (failed write or sync): err is the negative errno. Not
	 * told for store_abandon. */
	void (*out)(struct store *, int err, struct effects *);
	/* told when a fold has ended and its slots are synced (store_image_point has moved) */
	void (*folded)(struct store *, struct effects *);
	void *owner; /* the vault's */
};

size_t store_bytes(const struct store_config *);
struct store *store_init(void *memory, const struct store_config *);
const struct store_config *store_config_of(const struct store *);

/* ---- making one (format): pure; the caller writes and syncs what it is given ---- */
enum { STORE_SUPERBLOCK_BYTES = 16384 }; /* of one copy; the file holds two */
/* What a store that is made says of its group: it is the so many-th in this place. One that takes
 * the place of another says that it is out, until it has been filled: alone it proves nothing. */
void store_group_made(struct store_group *, uint8_t index, uint32_t incarnation);
/* One superblock copy with this sequence number. A new store has two, with different ones: the
 * higher wins, the other place is written next. The journal file is segment_bytes * segment_count
 * of zeros, written and synced. */
void store_superblock_encode(const struct store_group *, const struct uuid *store_id, uint8_t index,
			     uint32_t incarnation, uint64_t segment_bytes, uint32_t segment_count,
			     uint64_t sequence, uint8_t out[STORE_SUPERBLOCK_BYTES]);
/* 0, -ENOENT (no magic), -EBADMSG (damaged), -EPROTONOSUPPORT (version). Any of the outs may be
 * NULL. */
int store_superblock_decode(const uint8_t in[STORE_SUPERBLOCK_BYTES], struct store_group *,
			    struct uuid *store_id, uint8_t *index, uint32_t *incarnation,
			    uint64_t *segment_bytes, uint32_t *segment_count, uint64_t *sequence);
/* The file of slot headers of a new volume: pages numbered from 0, each PAGE_BYTES; every page must
 * be written. */
uint64_t store_slots_file_bytes(uint64_t volume_size, uint32_t block_bytes);
void store_slots_format_page(uint64_t page, uint64_t volume_size, uint32_t block_bytes,
			     uint8_t out[PAGE_BYTES]);
uint64_t store_image_file_bytes(uint64_t volume_size, struct geometry);

/* ---- life ---- */
void store_open(struct store *, struct effects *);
/* While it recovers: its disk is waited for no longer. Told in opened, with this negative errno. */
void store_open_give_up(struct store *, int err, struct effects *);
/* The caller has found the store gone, or another's: nothing more is written to it. */
void store_abandon(struct store *);
enum store_state store_state_of(const struct store *);
/* Since when its oldest operation has been with the disk; NS_NEVER: none is. Those of a store_read
 * and of a store_slot_write are not counted: their io.since says it, and is 0 when it is not there.
 */
ns_t store_oldest(const struct store *);
/* Of one that is out: none of its own operations is under way, and its memory may be used again. */
bool store_idle(const struct store *);
const struct uuid *store_id(const struct store *);
uint32_t store_incarnation(const struct store *);
/* As read at recovery, or last written. Good after opened(0). */
const struct store_group *store_group_of(const struct store *);

/* ---- what it holds; all of it synced ---- */
/* The spans by which records count; recovery and lookups go by these. Borrowed until the next call.
 */
void store_use_spans(struct store *, const struct spans *);
/* lsns held above the image point, of records that count. */
const struct ranges *store_held(const struct store *);
/* All lsns up to here are in the image (folded and synced), or were never drawn. */
lsn_t store_image_point(const struct store *);
/* The highest lsn seen on this store, counting or not. */
lsn_t store_lsn_max(const struct store *);
/* What the group has acknowledged as durable: it stands in each batch that is written from here on,
 * so that whoever finds the batch knows of it. At a start: the furthest that was found, of the
 * newest generation. */
struct promise {
	uint32_t generation;
	lsn_t lsn;
};
void store_promise(struct store *, struct promise);
struct promise store_promised(const struct store *);

/* ---- appending: group commit. The item and its shard memory stay the caller's and untouched until
 * done. ---- */
struct store_append {
	struct store_append *next;
	struct record record; /* shard, shard_bytes, shard_crc filled in by the caller */
	const uint8_t *shard; /* page aligned, shard_bytes; NULL without payload */
	void (*done)(struct store_append *, int result,
		     struct effects *); /* durable, or the store is out */
	void *owner;			/* the caller's */
};
/* How many of them, of this size at least, its disk may be working on at once. */
unsigned store_appends_in_flight_max(uint32_t shard_bytes);
/* -ENOSPC when the journal has no room (nothing is queued); -EIO when the store is not ready. A
 * batch leaves when one is full or none is in flight: store_turn, called once at the end of each
 * turn, closes it. */
int store_append(struct store *, struct store_append *);
void store_turn(struct store *,
		struct effects *); /* also of one that is out: it answers the rest */
/* Whether there is work that waits for no completion: call store_turn again soon. */
bool store_wants_turn(const struct store *);
uint64_t store_journal_bytes_used(const struct store *);
/* Of its bytes or of the records that it may hold: those without payload hardly take bytes. */
bool store_journal_half_full(const struct store *);
uint64_t store_journal_bytes_total(const struct store *);
/* So many records it would take for sure, each of the largest size and in a batch of its own. */
uint64_t store_journal_room(const struct store *);

/* ---- superblock: alternately written, one at a time; done(result) once the newest asked for is
 * durable ---- */
struct store_superblock_write {
	struct store_superblock_write *next;
	const struct store_group *group; /* copied at the call */
	void (*done)(struct store_superblock_write *, int result, struct effects *);
	struct store *store; /* set by the call */
};
void store_write_group(struct store *, struct store_superblock_write *, struct effects *);

/* ---- fold: the newest record that counts of each block, up to the fold point, goes to the image.
 * The caller has recorded the point on all stores (store_write_group), and folds a store only when
 * it holds all records up to it. A record whose shard does not check becomes a hole. ---- */
void store_fold(struct store *, lsn_t fold_point, struct effects *);
bool store_folding(const struct store *);
/* The disk is full (or the quota used up): what the fold wants to write is tried again every
 * second.
 */
bool store_wants_room(const struct store *);

/* ---- looking up and reading ---- */
/* The newest version that counts of the block with lsn <= limit, journal first, then image. 0 and
 * *record; -ENOENT never written; -EBADMSG the slot header is damaged (a hole: ask the peers);
 * -ESTALE the version asked for was folded over (limit is below a fold point). */
int store_find(const struct store *, uint8_t volume, uint64_t block, lsn_t limit, struct record *);
/* Reads the shard of a record that store_find or store_next gave, and checks its CRC. buffer: page
 * aligned, shard_bytes. */
struct store_read {
	struct io io;
	struct record record;
	uint8_t *buffer;
	struct store *store;
	void (*done)(struct store_read *, int result,
		     struct effects *); /* 0, -EBADMSG (CRC), -ESTALE (folded or recycled meanwhile:
					   find again), -EIO */
	void *owner;
	uint64_t internal[2]; /* the store's own */
};
void store_read(struct store *, struct store_read *, struct effects *);
/* Any journal record with this lsn that counts. 0 or -ENOENT. */
int store_find_lsn(const struct store *, lsn_t, struct record *);
/* The next journal record in order of position, counting or not: for dumps. cursor starts at 0. 0
 * or -ENOENT. */
int store_next(const struct store *, uint64_t *cursor, struct record *, bool *counts);
/* Damage seen at recovery or since: journal records at or below the synced mark that did not check,
 * and slot pages. */
uint64_t store_damage_count(const struct store *);
/* Of the damage, what recovery has found missing from the journal: the floor may have been higher
 * once. Damage that keeps its place - a shard, a slot - has lowered no floor. */
bool store_lost_records(const struct store *);

/* ---- rebuild: a slot written from peers, outside the journal; done when the slot and header are
 * synced ---- */
struct store_slot_write {
	struct record record;
	const uint8_t *shard;
	struct io io;
	struct store *store;
	void (*done)(struct store_slot_write *, int result, struct effects *);
	void *owner;
	uint64_t internal[2];
};
/* Used for image repair and rebuild; ordinary writes go through the journal. Waits while a fold is
 * under way. Kind 0 in the record (with volume and block) says "never written". -ENOSPC: there is
 * no room for it on the disk; the store stays, but for this slot. */
void store_write_slot(struct store *, struct store_slot_write *, struct effects *);
/* The rebuilt store now holds everything up to this lsn in its image. Recorded by the next
 * store_write_group. */
void store_set_image_point(struct store *, lsn_t);

#endif
