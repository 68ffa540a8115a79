/* SPDX-License-Identifier: Apache-2.0 */
/* One group at its primary: client writes draw lsns, are sealed and sent, go to the local device in
 * the same turn, and are answered in lsn order as the mode says (docs/semantics.md).
 *
 * A write over b blocks becomes b block operations. Each passes: its block's turn (one at a time
 * per block) -> the intent of its region is durable -> for a partial write, the block is read from
 * the device and merged -> the window has room -> lsn, seal, send and local write in one turn ->
 * the local write is synced -> the mode is met for every lsn up to it -> answer. The packets stay
 * until the durable point has passed.
 */
#ifndef CASEMATE_CORE_PRIMARY_H
#define CASEMATE_CORE_PRIMARY_H

#include "intent.h"
#include "tools.h"

enum primary_state {
	PRIMARY_OPENING,     /* reads its intent log */
	PRIMARY_WAITING,     /* no peer */
	PRIMARY_GREETING,    /* hello sent */
	PRIMARY_SPANNING,    /* span offered */
	PRIMARY_CATCHING_UP, /* compares the blocks of intents */
	PRIMARY_REPLICATING,
	PRIMARY_REFUSED, /* the vault does not take us: promoted, another set, other geometry */
	PRIMARY_STOPPED, /* the local device or intent log failed */
};

enum {
	PRIMARY_OPERATIONS = 1024,
	PRIMARY_SCRATCH_BLOCKS = 64,
	PRIMARY_READS = 256,
	PRIMARY_FRAGMENTS_MAX = 256, /* of one block over all data columns */
	PRIMARY_COMPARES = 2,
};

struct primary;

enum operation_state {
	OPERATION_FREE,
	OPERATION_BLOCKED,    /* waits for its block */
	OPERATION_INTENDED,   /* waits for its intent */
	OPERATION_READING,    /* reads what it merges into */
	OPERATION_READY,      /* waits for the window */
	OPERATION_WRITING,    /* the local write is under way */
	OPERATION_ANSWERABLE, /* waits for its turn among the lsns */
};

struct operation {
	struct io io;
	struct operation *next;			       /* on one list at a time */
	struct operation *chain;		       /* active ones of one hash bucket */
	struct operation *waiting_head, *waiting_tail; /* for this block */
	struct primary *primary;
	struct request *request;     /* NULL for a copy of a catch-up */
	uint8_t state, volume, kind; /* kind: enum record_kind */
	bool needs_sync, entered;
	uint64_t block;
	uint32_t first, length; /* bytes of the block that change */
	const uint8_t *source;	/* length bytes; NULL for zeros */
	uint8_t *scratch;	/* a whole block, when merged */
	lsn_t lsn;
};
struct operation_list {
	struct operation *head, *tail;
};

struct reading {
	struct io io;
	struct reading *next;
	struct primary *primary;
	struct request *request;
};

/* What is kept of each lsn until it is durable and its intent is left. */
struct sent {
	lsn_t lsn;
	struct wire_shard draft;     /* column and offset are those of the datagram sent last */
	struct operation *operation; /* until answered */
	struct packet_cell **cell;   /* cell_count of them: fragment-major, then columns */
	uint16_t cell_count, fragments;
	bool local_done, has_payload;
	uint32_t shard_bytes;
	uint64_t offset, length; /* of the device, for its intent */
	ns_t sent_at;
};

/* Syncs of a local device are shared: one in flight covers all that completed before it. */
struct device {
	struct io sync;
	bool syncing, asked;
	ns_t asked_at;
	struct operation_list wanted, covered; /* wait for the next sync; for the one in flight */
	lsn_t synced, sync_covers; /* local points: of the last sync, of the one in flight */
	struct primary *primary;
};

struct compare {
	bool open;
	uint32_t ask;
	uint8_t volume;
	uint64_t block;
	uint32_t count;
	ns_t asked;
	struct wire_tags tags; /* the answer being worked on */
	bool answered;
	unsigned at; /* next tag to compare */
	struct io io;
	uint8_t *scratch; /* the device's block */
	bool reading, compared;
	struct primary *primary;
};

struct primary {
	struct tools *tools;
	const struct core_group *config; /* keys are wiped from it */
	uint8_t group;
	uint16_t export_first;
	uint8_t state;
	ns_t state_since;
	uint8_t key[VOLUMES_PER_GROUP_MAX][KEY_BYTES];
	struct intent *intent;
	bool intent_lost;      /* unreadable: everything is compared */
	struct io intent_sync; /* at the start, with those of the devices */
	unsigned start_syncs;  /* that have not completed */
	int32_t start_err;
	struct stripe *stripe;
	uint32_t generation;
	/* history */
	struct span span;
	bool span_open;	     /* records may be drawn */
	uint64_t span_bytes; /* sealed in it */
	bool span_chosen;    /* span is what we offer (again, after the vault restarts) */
	lsn_t lsn_next;
	/* window: slot of an lsn is lsn % window_count; [released + 1, lsn_next) are kept */
	struct sent *window;
	unsigned window_count;
	uint32_t cells_per_record;
	lsn_t released, local_point, device_synced, answered;
	lsn_t received, durable, consistent, credit; /* the vault's, for this span's history */
	lsn_t held; /* what the vault has named durable in this life: it must never lack that */
	lsn_t resend_next, resend_end;
	lsn_t forced_lsn; /* newest with FUA */
	ns_t head_said, progress_at;
	uint32_t head_backoff;
	/* requests and operations */
	struct request_list admitted, flushing;
	unsigned admitted_count;
	struct operation *operation;
	struct operation_list operation_free, intended, ready;
	struct operation *bucket[1024];
	struct reading *reading, *reading_free;
	struct request_list reads_waiting;
	uint8_t **scratch_free;
	unsigned scratch_free_count;
	struct device device[VOLUMES_PER_GROUP_MAX];
	/* greeting and spans */
	struct uuid vault_instance;
	ns_t asked_at;
	int32_t refusal;
	/* catch-up */
	struct compare compare[PRIMARY_COMPARES];
	uint32_t ask_next;
	uint64_t region_cursor;
	bool region_open, regions_done;
	uint8_t region_volume;
	uint64_t region_block, region_end;
	lsn_t end_lsn;	   /* of the record that closes the catch-up; 0 before it is drawn */
	uint32_t greeting; /* number of the last one */
	bool caught_up;	   /* it is durable; the span that makes it count is not yet */
	uint64_t copies, compared;
	ns_t unprotected_since, met_at; /* met_at: linked_since of the link when we last greeted */
	bool protected_now;
	/* figures */
	uint64_t writes, reads, flushes, write_bytes, read_bytes, seals, records_sent,
		records_resent, refused;
};

/* gives: a primary, or NULL when memory is out. Cells needed are in primary_cells(). */
struct primary *primary_new(struct tools *, struct core_group *, uint8_t group,
			    uint16_t export_first, uint32_t payload_bytes_max);
unsigned primary_cells(const struct core_group *, uint32_t payload_bytes_max);
void primary_fini(struct primary *);
void primary_start(struct primary *, struct effects *);
bool primary_ready(const struct primary *);

void primary_request(struct primary *, struct request *, struct effects *);
unsigned primary_request_room(const struct primary *);
/* A message of the vault about this group. */
void primary_state_received(struct primary *, const struct wire_state *, struct effects *);
void primary_opened_received(struct primary *, const struct wire_opened *, struct effects *);
void primary_points_received(struct primary *, const struct wire_points *, struct effects *);
void primary_tags_received(struct primary *, const struct wire_tags *, struct effects *);
/* Once at the end of each turn. */
void primary_turn(struct primary *, struct effects *);
ns_t primary_deadline(const struct primary *, ns_t now);
void primary_status(const struct primary *, struct group_status *);
bool primary_drained(const struct primary *);

/* ---- between the files of this room ---- */
void primary_stop(struct primary *, const char *why, int err, struct effects *);
void primary_enter(struct primary *, enum primary_state, struct effects *);
const char *primary_subject(const struct primary *);
/* primary_write.c */
void write_turn(struct primary *, struct effects *);
void requests_flushed(struct primary *, struct effects *);
void write_fail_all(struct primary *, struct effects *);
struct operation *operation_take(struct primary *);
void operation_admit(struct primary *, struct operation *, struct effects *);
void operation_answered(struct primary *, struct operation *, struct effects *);
uint8_t *scratch_take(struct primary *);
void scratch_give(struct primary *, uint8_t *);
void device_sync_turn(struct primary *, struct effects *);
/* primary_remote.c */
bool window_has_room(const struct primary *);
bool span_full(const struct primary *);
struct sent *window_slot(const struct primary *, lsn_t);
void window_commit(struct primary *, struct operation *, struct effects *);
void window_commit_end(struct primary *, struct effects *);
void window_local_done(struct primary *, lsn_t);
void window_turn(struct primary *, struct effects *);
lsn_t window_mode_point(const struct primary *);
void window_resend_from(struct primary *, lsn_t durable);
/* catchup.c */
void catchup_start(struct primary *, struct effects *);
void catchup_turn(struct primary *, struct effects *);

#endif
