/* SPDX-License-Identifier: Apache-2.0 */
/* One group at its vault: shards arrive, are repaired from parity, go to the journals of n stores
 * and are acknowledged by points. The vault holds no key until it is promoted (docs/semantics.md).
 *
 * A record in memory is ARRIVING until each of its fragments has k columns, ENOUGH while it may
 * still gain the rest without computing, and WHOLE once all n shards are there and checked against
 * the block's CRC; then each store in service appends its own shard, and the record is forgotten
 * when all of them have (or are out).
 */
#ifndef CASEMATE_CORE_VAULT_H
#define CASEMATE_CORE_VAULT_H

#include "crc.h"
#include "points.h"
#include "tools.h"

enum vault_state {
	VAULT_OPENING,	 /* stores recover */
	VAULT_READY,	 /* takes records */
	VAULT_REFUSED,	 /* too few stores, or stores that do not belong together */
	VAULT_PROMOTING, /* fenced; drains, computes, proves */
	VAULT_SERVING,
};

enum record_phase { PHASE_FREE, PHASE_ARRIVING, PHASE_ENOUGH, PHASE_WHOLE, PHASE_STORED };

enum {
	VAULT_FRAGMENTS_MAX = 256,
	VAULT_GATHER = 32, /* blocks being read at once, for serving, repair and scrub */
	/* and as many that disks which do not answer have not given back */
	VAULT_GATHER_ALL = 2 * VAULT_GATHER,
};

struct vault;

/* What every turn looks at comes first, on one cache line. */
struct arriving {
	uint8_t *shard; /* n of them, shard_bytes_max apart, page aligned */
	struct vault *vault;
	struct arriving *next; /* on vault.enough */
	ns_t touched, asked;
	uint8_t phase, volume;
	bool seen; /* record is filled in */
	uint16_t fragments, fragments_enough;
	uint32_t appending; /* mask of stores that have not finished */
	uint32_t waiting;   /* mask of stores whose journal had no room */
	uint32_t shard_bytes, cut_bytes;
	/* masks: stores that are out and whose disk may still read a shard of this or of an earlier
	 * record of the slot; shards whose place is elsewhere, since it was left to such a disk */
	uint32_t left, moved;
	struct record record; /* shard fields are per store */
	uint32_t crc[SHARDS_MAX];
	struct store_append append[SHARDS_MAX];
	uint8_t *elsewhere[SHARDS_MAX];
	uint32_t column[VAULT_FRAGMENTS_MAX]; /* mask of columns present, by fragment */
};

/* A block being read from k stores: for serving, refilling, rebuilding, scrubbing and comparing.
 * gather.c */
struct gather {
	struct gather *next;
	struct vault *vault;
	uint8_t volume;
	struct record record;	   /* the version; shard fields of whichever store named it */
	uint32_t holders;	   /* mask of stores that hold this version */
	uint32_t asked, read, bad; /* masks of stores */
	uint32_t in_flight;	   /* mask */
	/* of each store: its record, or after gather_rebuild the one that it should hold */
	struct store_read shard_read[SHARDS_MAX];
	uint8_t *shard; /* n + 1 of shard_bytes_max, page aligned; the last is spare */
	/* told once, maybe before gather_start returns: 0 with at least k shards in read; with too
	 * few -EIO, -ENODATA, or -ESTALE when the version was folded away meanwhile: find again */
	void (*done)(struct gather *, int result, struct effects *);
	bool want_all; /* read every holder (scrub), not just k */
	bool by_lsn;  /* the version of that lsn in the journals (refill), not the block's newest */
	bool writing; /* append or slot_write is with the store target */
	bool left;    /* its owner goes on with another one; it waits for its operations */
	bool issuing, stale;
	uint8_t stale_retries, stale_finds;
	uint8_t opinion; /* next store whose header may say otherwise */
	/* one shard on its way back to a store */
	uint8_t target;
	bool writes_slot;
	uint32_t repair; /* stores that still want theirs */
	void (*written)(struct gather *, int result, struct effects *);
	struct store_append append;
	struct store_slot_write slot_write;
	void *owner;
	uint64_t internal;
};

struct vault_store {
	struct store *store; /* NULL: absent */
	bool in_service;     /* its floor counts, it takes records */
	bool rebuilding;     /* takes records; its floor does not count yet */
	lsn_t floor;
	/* of the records in memory: how many it has not finished, and the highest it was given */
	unsigned appending;
	lsn_t appended;
	lsn_t unreadable; /* above its floor: what its peers cannot give it */
	/* so many times in a row its disk was found not to answer; it was found to hold the fold
	 * back for good */
	uint8_t slow_looks, stuck_looks;
	struct store_superblock_write write;
	bool writing;
	char subject[NAME_BYTES_MAX + 16];
	void *memory; /* of the store, kept when it is made again */
	struct vault *vault;
};

struct vault {
	struct tools *tools;
	const struct core_group *config;
	uint8_t group;	    /* our index */
	uint8_t peer_group; /* the primary's index for it, from its hello */
	uint16_t export_first;
	uint8_t state;
	const char *refusal;
	struct quorum quorum;
	unsigned n;
	uint32_t shard_bytes_max;
	struct stripe *stripe;
	struct crc32c_shift shift[VOLUMES_PER_GROUP_MAX];
	struct vault_store store[SHARDS_MAX];
	uint32_t opening; /* mask of stores still recovering */
	/* what all superblocks say; changed here, then written to the stores in service */
	struct store_group meta;
	uint64_t meta_version,
		meta_durable; /* counts changes; the newest that is durable on enough stores */
	uint64_t meta_on[SHARDS_MAX], meta_sent[SHARDS_MAX];
	uint64_t assembled_version; /* what the best store knew at start: on enough of them */
	uint64_t out_version;	    /* what says that a store is out: durable before the next
				       acknowledgement */
	/* history and points */
	lsn_t highest;	/* highest lsn seen, counting or not */
	lsn_t received; /* every record up to here is on disk or has k shards in memory */
	lsn_t durable, consistent, acknowledged_durable;
	lsn_t complete; /* every record up to here is on k stores: the consistent point, but inside
			 * an open catch-up too */
	struct promise promised; /* what all stores were told last */
	bool span_accepted;	 /* opened by this primary, in this session */
	struct uuid primary_instance;
	struct span span_offered; /* being made durable */
	uint64_t span_version;	  /* meta_version that carries it; 0: none */
	/* meta has a span that is being made durable: the stores, and all points, still go by those
	 * before it */
	bool spans_ahead;
	struct wire_hello hello;
	uint64_t adopt_version; /* meta_version that carries the primary's volume ids */
	ns_t unprotected_since;
	/* records in memory: slot of an lsn is lsn % arriving_count; (base, base + arriving_count)
	 */
	struct arriving *arriving;
	unsigned arriving_count;
	unsigned unfinished; /* ENOUGH or WHOLE */
	struct {
		struct arriving *head, *tail;
	} enough;	  /* those in PHASE_ENOUGH, in the order in which they came to it */
	bool room_wanted; /* some wait for a journal */
	/* places for shards, for those that disks which do not answer still read */
	struct {
		uint8_t **place;
		unsigned count;
		bool wanted; /* there were too few */
	} spare;
	lsn_t base; /* all up to here are done with in memory */
	lsn_t head; /* the primary has sent up to here */
	ns_t points_said;
	uint32_t points_mask; /* stores in service when points were last worked out */
	bool points_changed;
	/* fold */
	bool fold_started,
		void_tail;     /* void_tail: journals may hold records that a span has voided */
	uint64_t fold_version; /* meta_version that carries the target; 0: none under way */
	uint32_t folding;      /* mask of stores at it */
	ns_t fold_began;
	/* gathers (gather.c) */
	struct gather *gather, *gather_free;
	unsigned gathers_taken;
	ns_t looked_at;	    /* vault_watch.c */
	uint8_t full_looks; /* so many times in a row an open catch-up was found not to fit */
	bool full_told;	    /* of the newest span */
	/* refill.c: brings lagging and rebuilt stores up to the consistent point */
	struct {
		bool active;
		uint8_t store;
		lsn_t next, end; /* of this pass */
		unsigned in_flight;
		ns_t pause_until;
		bool noted; /* that a record cannot be read */
		uint64_t filled, unreadable;
	} refill;
	/* promote.c, serve.c */
	struct command *promoting;
	bool fenced;
	ns_t fenced_at;
	uint64_t promote_version;
	struct span promote_span;
	struct promotion proof;
	struct {
		uint8_t phase, volume; /* promote.c; 0: none under way */
		bool accept_loss;
		uint32_t mask;	      /* stores that the proof is about */
		uint64_t block, lost; /* of the look through all blocks */
		uint64_t range_first, range_end;
		lsn_t point;
		struct promotion proof;
		char ranges[160]; /* what is lost, for the answer */
	} promote;
	lsn_t serve_point;
	uint8_t key[VOLUMES_PER_GROUP_MAX][KEY_BYTES];
	struct request_list serving;
	struct request *serving_now;
	/* scrub.c, rebuild.c */
	struct command *scrubbing, *rebuilding;
	struct {
		uint8_t volume;
		uint64_t block;
		unsigned in_flight;
		unsigned slot_writes;  /* in flight; no fold may begin */
		struct gather *parked; /* wait for room, or for the end of a fold */
		uint64_t read, bad, repaired, lost;
	} scrub;
	struct {
		uint8_t store, volume, phase;
		uint32_t incarnation; /* of the store being made */
		uint64_t block;
		unsigned in_flight;
		lsn_t point;	       /* of the fold, when it began */
		lsn_t goal;	       /* what its journal must reach at least */
		uint64_t progress;     /* of its floor and of refill, as last seen */
		ns_t floor_since;      /* then */
		unsigned slot_writes;  /* in flight; no fold may begin */
		struct gather *parked; /* wait for a fold */
		ns_t turn_until;       /* a fold that is due waits so long for the copy */
		uint64_t version;
		uint64_t copied, filled_before;
		ns_t waiting_since;
		int err;
	} rebuild;
	/* figures */
	uint64_t records_received, repaired, duplicates, decoded, refused, reads, read_bytes, opens,
		crc_failed, nacks;
};

/* gives: a vault, or NULL when memory is out. */
struct vault *vault_new(struct tools *, struct core_group *, uint8_t group, uint16_t export_first);
void vault_fini(struct vault *);
void vault_start(struct vault *, struct effects *);
bool vault_ready(const struct vault *); /* serving: its volumes can be read */

void vault_hello_received(struct vault *, const struct wire_hello *, struct effects *);
void vault_open_received(struct vault *, const struct wire_open *, struct effects *);
void vault_head_received(struct vault *, const struct wire_head *, struct effects *);
void vault_shard_received(struct vault *, const struct wire_shard *, const uint8_t *payload,
			  uint32_t payload_bytes, struct effects *);
void vault_compare_received(struct vault *, const struct wire_compare *, struct effects *);
void vault_request(struct vault *, struct request *, struct effects *);
void vault_command(struct vault *, struct command *, struct effects *);
void vault_turn(struct vault *, struct effects *);
ns_t vault_deadline(const struct vault *, ns_t now);
void vault_status(const struct vault *, struct group_status *);

/* ---- between the files of this room ---- */
static inline const char *vault_subject(const struct vault *vault)
{
	return vault->config->name;
}
/* Until it knows what the group is, and while slots of its image are written. */
bool rebuild_holds_fold(const struct vault *);
/* Slots are being written from peers: a fold waits, none may begin. */
static inline bool vault_fold_held(const struct vault *vault)
{
	return rebuild_holds_fold(vault) || vault->scrub.slot_writes;
}
/* The index of a record's volume, or -1. */
static inline int vault_volume_of(const struct vault *vault, const struct uuid *id)
{
	for (unsigned i = 0; i < vault->config->volume_count; i++)
		if (uuid_equal(&vault->meta.volume[i].id, id))
			return (int)i;
	return -1;
}
uint32_t vault_in_service(const struct vault *); /* mask */
bool vault_catch_up_open(const struct vault *);	 /* the newest span is one that has not ended */
/* It continues nothing: there is no consistent point at all, and its records fold at once. */
bool vault_initial_copy(const struct vault *);
uint32_t vault_present(const struct vault *); /* mask: READY, not rebuilding */
void vault_refuse(struct vault *, const char *why, struct effects *);
void vault_answer(struct command *, int result,
		  struct effects *); /* command.text is the caller's to fill before */
/* meta was changed: writes it to all stores in service. Gives the version to wait for in
 * meta_durable. */
uint64_t vault_meta_changed(struct vault *, struct effects *);
void vault_store_out(struct vault *, unsigned index, int err, struct effects *);
/* Opens (again) the store at this index; its recovery tells. */
struct store *vault_store_make(struct vault *, unsigned index, const struct store_files *);
/* vault_known.c: at the start, of the stores that could be read */
/* The group as the store that knows most has it; NULL when none can be read. */
const struct store_group *vault_meta_best(const struct vault *);
/* What superblocks of the history in meta, not only the best one, say was acknowledged. */
lsn_t vault_promised_known(const struct vault *);
/* A number above that of each earlier start that a store tells of. */
uint64_t vault_assembly_next(const struct vault *);
/* Sets in meta which incarnation of each store is in service, and which are out. */
void vault_incarnations_settle(struct vault *);
/* vault_receive.c */
bool receive_new(struct vault *);
void receive_reset(struct vault *, lsn_t base);
void receive_turn(struct vault *, struct effects *);
bool receive_idle(const struct vault *); /* nothing whole waits for a store */
void receive_drop_partial(struct vault *);
/* All but what is on its way to a store. */
void receive_drop_waiting(struct vault *);
/* Whether the journal of the store takes this record and then still has room for every record that
 * the store lacks below it (docs/semantics.md "Fold"). */
bool receive_fits(const struct vault *, unsigned index, lsn_t);
/* A store that is being filled takes a record above the base from memory, once it is whole there.
 * False: it has no room for it. */
bool receive_offer(struct vault *, unsigned index, lsn_t);
/* Whether a record above the base is in memory no more, and does not come again. */
bool receive_forgot(const struct vault *, lsn_t);
/* The store is out: no record waits for it, nor for what its disk still works on. */
void receive_store_gone(struct vault *, unsigned index);
ns_t receive_reorder_ns(const struct vault *); /* how long a late datagram is waited for */
/* vault_points.c */
void points_turn(struct vault *, struct effects *);
void points_say(struct vault *, struct effects *);
ns_t points_deadline(const struct vault *);
lsn_t points_consistent_now(const struct vault *, uint32_t mask);
lsn_t points_complete_now(const struct vault *, uint32_t mask);
lsn_t points_floor(const struct vault *, unsigned index);
/* How many lsns that were drawn, from its floor to before this one, the store does not hold. */
uint64_t points_lacking(const struct vault *, unsigned index, lsn_t before);
/* The proof for the stores in service; while a catch-up is open, floors count up to its start only.
 */
struct promotion points_promotion_of(const struct vault *, lsn_t consistent);
/* What superblocks and batches say from now on of what was acknowledged as durable. */
lsn_t points_promised(const struct vault *);
void vault_fold_turn(struct vault *, struct effects *);
/* Whether the next fold would begin, if nobody held it. */
bool vault_fold_due(const struct vault *);
/* Up to here the group could fold but for the floors of its stores. */
lsn_t vault_fold_limit(const struct vault *);
/* Takes spans out of the table that end at or below what every image has. */
void vault_spans_forget(struct vault *);
/* gather.c: reading one version of a block from its holders */
bool gather_new(struct vault *);
/* The newest version that counts of a block with lsn <= limit over the stores in mask: fills record
 * and holders. 0, -ENOENT (never written), -ENODATA (too few hold it; one is enough of a kind
 * without payload, k else). An older version never stands in for a newer one. */
int gather_find(const struct vault *, uint8_t volume, uint64_t block, lsn_t limit, uint32_t mask,
		struct record *, uint32_t *holders);
struct gather *gather_take(struct vault *); /* NULL: all busy */
/* Reads the version in record from its holders (volume, record, holders and done are filled in). */
void gather_start(struct gather *, struct effects *);
/* What was read did not come out right: reads all holders now, so that gather_rebuild can tell
 * which shard lies; then by the header of another holder, where one says otherwise. False when no
 * way is left. */
bool gather_start_again(struct gather *, struct effects *);
void gather_give(struct gather *);
static inline uint8_t *gather_shard(const struct gather *gather, unsigned index)
{
	return gather->shard + (uint64_t)index * gather->vault->shard_bytes_max;
}
/* Rebuilds the shards of mask want, and all data shards, from those read, and checks the block's
 * CRC, always. A shard that lies (its own CRC is right, the block's is not) is told from the others
 * when more than k were read: it is then in bad and rebuilt too. 0 or -EIO. */
int gather_rebuild(struct gather *, uint32_t want);
/* Gives one store its shard, after gather_rebuild(its bit) or of a kind without payload: through
 * its journal, or straight into its slot. written is told once; -ENOSPC: no room in the journal. */
void gather_append(struct gather *, unsigned index, struct effects *);
void gather_write_slot(struct gather *, unsigned index, struct effects *);
void gather_orphan_store(struct vault *, unsigned index);
/* Gathers that wait for the disk of a store that is out are begun again, without it, in other
 * memory. */
void gather_leave_disks(struct vault *, struct effects *);
/* vault_watch.c: waits that would not end. */
void watch_turn(struct vault *, struct effects *);
void watch_reset(struct vault *);	  /* another span has begun */
bool watch_stalled(const struct vault *); /* a catch-up does not fit the journals */
/* refill.c, rebuild.c, scrub.c, promote.c, serve.c: their part of a turn */
void refill_turn(struct vault *, struct effects *);
/* The three orders of a rebuild. */
void rebuild_prepare(struct vault *, struct command *, struct effects *);
void rebuild_start(struct vault *, struct command *, struct effects *);
void rebuild_cancel(struct vault *, struct command *, struct effects *);
void rebuild_opened(struct vault *, int result,
		    struct effects *); /* the new store has been recovered */
void rebuild_failed(struct vault *, int err, struct effects *);
void rebuild_turn(struct vault *, struct effects *);
/* Whether this new store gets what it lacks, and folds with the others. */
bool rebuild_fills(const struct vault *, unsigned index);
/* Whether its image is being copied. */
bool rebuild_copies(const struct vault *);
void scrub_start(struct vault *, struct command *, struct effects *);
void scrub_turn(struct vault *, struct effects *);
void promote_start(struct vault *, struct command *, struct effects *);
void promote_turn(struct vault *, struct effects *);
void serve_turn(struct vault *, struct effects *);

#endif
