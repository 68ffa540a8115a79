/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of one store share: its state, and the verbs by which they call each other. Only
 * superblock.c, journal*.c, image.c, fold.c and store.c include this. */
#ifndef CASEMATE_CORE_STORE_INNER_H
#define CASEMATE_CORE_STORE_INNER_H

#include "format.h"
#include "ranges.h"
#include "store.h"

#include <errno.h>

enum {
	BATCHES_IN_FLIGHT_MAX = 4,
	HELD_RANGES_MAX = 4096,
	SCRATCH_BYTES = 1024 * 1024,
	FOLD_RUNS_MAX = 4,
	FOLD_RUN_BYTES = SCRATCH_BYTES / FOLD_RUNS_MAX,
	FOLD_RUN_SHARDS_MAX = FOLD_RUN_BYTES / PAGE_BYTES,
	COMMIT_PAGES_IN_FLIGHT_MAX = 16,
	ENTRIES_PER_TURN = 4096, /* looked at by the fold and the purge in one turn */
};
_Static_assert((int)FOLD_RUN_BYTES >= (int)BLOCK_BYTES_MAX, "a run holds the largest shard");
_Static_assert((int)SCRATCH_BYTES >= (int)BATCH_HEADER_BYTES_MAX, "recovery reads whole headers");

/* ---- the table of what the journal holds (journal_table.c) ---- */
#define ENTRY_NONE UINT32_MAX
struct entry {
	struct record record;
	uint64_t sequence; /* of its batch */
	uint32_t segment;
	uint32_t payload_page;	 /* in the segment */
	uint32_t block_next;	 /* older version of the block */
	uint32_t lsn_next;	 /* in the bucket; in the list of free entries */
	uint32_t segment_before; /* in the segment, in order of arrival */
	uint32_t segment_next;
	uint8_t volume; /* NO_VOLUME for kinds without a block */
	bool live;
	bool counts; /* by the spans in use */
	bool folded; /* this fold has brought it to the image */
	bool bad;    /* its shard did not check */
};

struct table {
	struct entry *entry;
	uint32_t capacity;
	uint32_t count;
	uint32_t free;
	uint32_t *bucket; /* by lsn */
	uint32_t bucket_mask;
	uint32_t *order; /* scratch for sorting */
};

struct place {
	uint64_t sequence;
	uint32_t segment;
	uint32_t payload_page;
	uint8_t volume;
};

/* ---- segments ---- */
enum { SEEN_MAX = BATCHES_IN_FLIGHT_MAX };
struct segment {
	uint64_t epoch;	  /* of what it holds; 0: never used */
	uint64_t freed;	  /* durable in the superblock: what it holds up to this epoch is free */
	uint32_t used;	  /* entries in the table */
	uint32_t written; /* records on disk that would come back at recovery */
	uint32_t writing; /* batches in flight */
	uint32_t head, tail;
	/* recovery only */
	struct {
		uint64_t first_sequence, start_sequence, last_sequence;
		uint64_t synced;  /* highest synced mark in it */
		uint64_t mark;	  /* highest synced mark of all segments since the same start */
		uint64_t seen;	  /* good batch headers */
		uint64_t covered; /* end of the last good batch */
		uint64_t bad;	  /* records that did not check, surely below the mark */
		struct {
			uint64_t sequence;
			uint32_t bad;
		} last[SEEN_MAX]; /* the newest batches seen: only these can be above the mark */
	} scan;
};

struct append_list {
	struct store_append *head, *tail;
};
struct superblock_list {
	struct store_superblock_write *head, *tail;
};

struct batch {
	struct io io;
	struct iovec piece[1 + BATCH_RECORDS_MAX];
	struct store *store;
	uint8_t *header; /* BATCH_HEADER_BYTES_MAX */
	struct append_list items;
	struct place place[BATCH_RECORDS_MAX]; /* of the items, in order */
	uint64_t sequence;
	uint32_t segment;
	bool busy;
};

struct journal {
	struct segment *segment;
	uint32_t current;  /* segment being filled; segment_count: none */
	uint64_t position; /* in it */
	uint64_t current_first;
	uint32_t free_count;
	uint64_t epoch;	   /* last one used */
	uint64_t sequence; /* last one used */
	uint64_t start_sequence;
	uint64_t synced;
	struct batch *batch; /* BATCHES_IN_FLIGHT_MAX, by sequence */
	unsigned in_flight;
	struct append_list queue;
	uint32_t queued_count;
	uint64_t queued_bytes; /* payload */
	uint64_t queued_cost;  /* room promised to what is queued */
	uint64_t written;      /* sum of segment.written */
	uint32_t item_bytes_max;
	bool purging, purge_void;
	uint32_t purge_segment, purge_entry;
	bool held_lossy; /* held could not take a range: count again when it is smaller */
};

/* ---- image ---- */
struct image_volume {
	uint64_t block_count, page_count;
	uint64_t block_base, page_base; /* in the arrays over all volumes */
	uint32_t shard_bytes;
};
/* An operation of the store itself, where many are in flight. */
struct store_io {
	struct io io;
	struct store *store;
	bool busy;
};
enum commit_step { COMMIT_IDLE, COMMIT_IMAGES, COMMIT_PAGES, COMMIT_SLOTS };
struct image {
	struct image_volume volume[VOLUMES_PER_GROUP_MAX];
	uint64_t block_count, page_count;
	struct disk_slot_page *page;
	uint32_t *block_head; /* newest journal entry of each block */
	uint32_t *page_use;   /* journal entries of the blocks of each page */
	uint64_t *dirty;      /* bitmap of pages */
	struct {
		enum commit_step step;
		uint32_t images; /* volumes whose image was written since it was synced */
		uint32_t slots;	 /* volumes whose slot pages were written */
		unsigned pending;
		bool left;  /* pages found no room: they are marked still */
		bool again; /* pages are marked again: their other copy is bad */
		uint64_t cursor;
		struct store_io sync[VOLUMES_PER_GROUP_MAX];
		struct store_io page[COMMIT_PAGES_IN_FLIGHT_MAX];
		void (*finished)(struct store *, struct effects *);
	} commit;
	/* slot writes: waiting for the end of a fold; shard in the image; slot being written */
	struct io_list queue, written, committing;
	unsigned slot_writes; /* not yet answered */
	unsigned queued;      /* of them, waiting */
};

/* ---- fold ---- */
enum fold_step {
	FOLD_IDLE,
	FOLD_RECORD,
	FOLD_WAIT,
	FOLD_COPY,
	FOLD_COMMIT,
	FOLD_PURGE,
	FOLD_SUPERBLOCK
};
struct fold_run;
struct fold_read {
	struct io io;
	struct fold_run *run;
	unsigned first, count; /* shards of the run */
};
struct fold_run {
	struct store *store;
	struct io write;
	uint8_t *buffer;
	struct fold_read read[FOLD_RUN_SHARDS_MAX];
	uint32_t entry[FOLD_RUN_SHARDS_MAX];
	unsigned read_count, reads_left, count;
	uint8_t volume;
	uint64_t block;
	bool busy;
};
struct fold {
	enum fold_step step;
	lsn_t point;
	uint8_t volume; /* cursor */
	uint64_t block;
	bool late; /* a record at or below the point arrived meanwhile: copy again */
	unsigned busy;
	struct fold_run *run; /* FOLD_RUNS_MAX */
	struct store_superblock_write superblock;
};

/* ---- recovery ---- */
/* A transfer of one piece of memory. */
struct transfer {
	uint8_t kind;
	uint16_t file;
	uint64_t offset;
	void *memory;
	uint64_t length;
};
struct recovery {
	struct io io;
	struct store_io sync[2 + 2 * VOLUMES_PER_GROUP_MAX];
	unsigned pending; /* syncs */
	bool reading;
	int err;
	void (*then)(struct store *, struct effects *); /* when the scratch is filled */
	struct transfer wanted;
	bool by_page; /* the whole could not be read */
	uint64_t page;
	uint32_t segment;
	uint64_t position;
	bool first_page_idle; /* of the segment */
	uint32_t entry;
	uint8_t volume;
	uint64_t foreign;
};

struct store {
	struct store_config config;
	enum store_state state;
	int err;
	struct uuid id;
	uint32_t incarnation;
	struct store_group group;  /* durable */
	struct store_group asked;  /* the newest asked for */
	struct store_group riding; /* being written */
	struct spans spans;
	lsn_t image_point;
	lsn_t lsn_max;
	struct promise promise; /* the furthest: found at recovery, or told since */
	uint64_t damage;
	uint64_t records_lost; /* of it, what recovery missed in the journal */
	struct ranges held;
	uint8_t *scratch;

	struct {
		struct io io;
		struct disk_superblock *disk; /* being written */
		uint64_t sequence;	      /* last one written or being written */
		unsigned place;		      /* 0 or 1: the older copy, written next */
		bool busy, freeing;	      /* freeing: wanted for its segments alone */
		struct superblock_list waiting, riding;
		struct store_superblock_write for_room;
	} superblock;

	struct { /* writes to image and slots that found no room on the disk */
		struct io_list waiting;
		ns_t again_at;
		bool wanted; /* from the first of them until a commit has ended */
	} room;

	struct table table;
	struct journal journal;
	struct image image;
	struct fold fold;
	struct recovery recovery;
	struct io_list deferred; /* answers known at the call, given at the end of the turn */
};

/* ---- store.c ---- */
/* A write or sync failed: out for good. */
void store_fail(struct store *, int err, struct effects *);
/* Whether this says that the disk is full and no more. */
static inline bool is_no_room(int err)
{
	return err == -ENOSPC || err == -EDQUOT;
}
/* Says, once, that the disk is full: something is tried again after a while. */
void store_room_note(struct store *, int err, struct effects *);
/* Takes a write that found no room, as it is, and tries it again after a while. False: it did not
 * fail for that, or the store is out. */
bool store_room_wait(struct store *, struct io *, int err, struct effects *);
/* Puts an io that carries its answer in internal[1] on the list for the end of the turn. */
void store_defer(struct store *, struct io *);
/* A finished transfer: 0, or the negative errno of what happened instead. */
static inline int io_error(const struct io *io, int32_t result)
{
	if (result < 0)
		return result;
	bool transfer = io->kind == IO_READ || io->kind == IO_WRITE || io->kind == IO_WRITE_DURABLE;
	return transfer && (uint64_t)result != io->length ? -EIO : 0;
}
void io_prepare(struct io *, const struct transfer *,
		void (*done)(struct io *, int32_t, struct effects *));

/* ---- superblock.c ---- */
/* Asks for a write of the newest group; waiter may be one of the store's own. */
void superblock_ask(struct store *, struct store_superblock_write *, struct effects *);
void superblock_fail(struct store *, int err, struct effects *);
/* Picks the newest good copy of the two in the scratch. 0 or as `opened` says. */
int superblock_load(struct store *);

/* ---- journal_table.c ---- */
void table_init(struct store *);
/* lsns in order matter not. The table has room (asserted). */
uint32_t table_insert(struct store *, const struct record *, const struct place *);
void table_remove(struct store *, uint32_t index);
/* The entry with this place in history; ENTRY_NONE. */
uint32_t table_find(const struct store *, const struct uuid *span, lsn_t);
/* By the spans in use: which entries count, and what is held. */
void table_recount(struct store *);
static inline bool kind_has_block(uint8_t kind)
{
	return kind == RECORD_DATA || kind == RECORD_ZERO || kind == RECORD_DISCARD;
}

/* ---- journal.c ---- */
void journal_turn(struct store *, struct effects *);
/* The index of the record's volume; NO_VOLUME when it has none, or no such block. */
uint8_t record_volume(const struct store *, const struct record *);
void journal_fail(struct store *, int err, struct effects *);
static inline bool segment_free(const struct segment *segment)
{
	return segment->epoch <= segment->freed;
}
/* What a superblock written now may name as free. */
uint64_t journal_freeable_epoch(const struct store *, uint32_t segment);
/* Lets go of the current segment when nothing in it is needed, so that it can be freed. */
void journal_leave_empty_segment(struct store *);
/* The superblock that names these is durable. */
void journal_freed(struct store *, const uint64_t freed_epoch[]);
/* Takes out what the image has, in slices. */
void journal_purge_start(struct store *, bool void_too);
bool journal_purge(struct store *);

/* ---- journal_recover.c ---- */
void recovery_start(struct store *, struct effects *);
/* Ends in opened(). */
void recovery_end(struct store *, int result, struct effects *);

/* ---- image.c ---- */
void image_init(struct store *);
struct disk_slot *image_slot(const struct store *, uint8_t volume, uint64_t block);
/* In memory; image_commit makes it durable. */
void image_slot_set(struct store *, uint8_t volume, uint64_t block, const struct record *,
		    uint8_t kind);
void image_mark(struct store *, uint8_t volume, uint64_t block);
/* Syncs the images touched, writes the slot pages marked, syncs them. One at a time. */
void image_commit(struct store *, void (*finished)(struct store *, struct effects *),
		  struct effects *);
void image_turn(struct store *, struct effects *);
void image_fail(struct store *, int err, struct effects *);
/* Takes the pair of copies of a page as read; counts damage. */
void image_take_page(struct store *, uint8_t volume, uint64_t page,
		     const uint8_t pair[2 * PAGE_BYTES]);
static inline uint64_t image_slots_in_page(const struct image_volume *volume, uint64_t page)
{
	return min_u64(SLOTS_PER_PAGE, volume->block_count - page * SLOTS_PER_PAGE);
}

/* ---- fold.c ---- */
void fold_turn(struct store *, struct effects *);
/* Writes what this fold brought of the page's blocks into its slots, in memory. */
void fold_apply_page(struct store *, uint8_t volume, uint64_t page);
/* The journal entry of the block that this fold has to bring to the image; ENTRY_NONE. */
uint32_t fold_target(const struct store *, uint8_t volume, uint64_t block, lsn_t point);

#endif
