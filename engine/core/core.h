/* SPDX-License-Identifier: Apache-2.0 */
/* The seam. One core per lane: events come in as arrays of one kind, effects go out as lists
 * bounded by the objects that exist, time comes in as an argument and the next deadline goes out as
 * a result. No I/O, no clock, no thread, no allocation after core_new. The same code runs under
 * DPDK and io_uring and in the simulator. */
#ifndef CASEMATE_CORE_CORE_H
#define CASEMATE_CORE_CORE_H

#include "aead.h"
#include "effects.h"
#include "memory.h"
#include "points.h"
#include "session_keys.h"
#include "store.h"
#include "stripe.h"

enum { GROUPS_MAX = 8 };
enum ack_mode { ACK_LOCAL, ACK_WIRE, ACK_RECEIVED, ACK_DURABLE };
enum group_role { ROLE_PRIMARY, ROLE_VAULT };

struct core_volume {
	char name[NAME_BYTES_MAX];
	uint64_t size; /* bytes, a multiple of block_bytes */
	uint32_t block_bytes;
	uint16_t device;	/* primary: file number of the local device */
	uint8_t key[KEY_BYTES]; /* primary: the volume key; wiped from the configuration by core_new
				 */
};

struct core_group {
	char name[NAME_BYTES_MAX];
	uint8_t role; /* enum group_role, at start */
	struct geometry geometry;
	uint8_t quorum;
	uint8_t ack;	 /* enum ack_mode */
	bool sync_flush; /* sync: flush instead of every write */
	uint8_t volume_count;
	struct core_volume volume[VOLUMES_PER_GROUP_MAX];
	uint16_t intent_file;	 /* primary */
	uint64_t span_bytes_max; /* primary: sealed under one subkey; 0: 2^40 */
	uint64_t window_bytes;	 /* primary: packets kept until durable; vault: records in memory
				    until stored */
	/* vault: one per shard index. present = the directory was there and its files are open */
	struct {
		bool present;
		struct store_files files;
	} store[SHARDS_MAX];
	uint64_t segment_bytes; /* of a journal; as formatted */
	uint32_t segment_count;
};

struct core_config {
	uint8_t group_count;
	struct core_group group[GROUPS_MAX];
	uint8_t path_count;
	struct {
		uint32_t datagram_bytes_max;
		uint64_t rate_bytes_per_s; /* 0: not paced */
	} path[PATHS_MAX];
	uint16_t lane;
	uint8_t aead;	     /* enum aead_backend */
	uint8_t kernel;	     /* enum stripe_kernel */
	uint8_t entropy[64]; /* seeds the core's generator of identities (span ids); wiped by
				core_new */
	const struct memory *memory; /* outlives the core; NULL: the C library */
};

struct completion {
	struct io *io;
	int32_t result;
};

/* Orders of the control thread. The command is the caller's, and comes back in effects.results. */
enum command_kind {
	COMMAND_STATUS,		 /* fills status */
	COMMAND_PROMOTE,	 /* vault -> serving; key[] per volume */
	COMMAND_SCRUB,		 /* reads and checks every shard; repairs where enough are good */
	COMMAND_REBUILD_PREPARE, /* store index: judged, given up and reserved, or refused; gives
				    the set and the incarnation of the store to be made */
	COMMAND_REBUILD,	 /* store index, reserved, freshly made and opened under files */
	COMMAND_REBUILD_CANCEL,	 /* store index, reserved: it could not be made */
	COMMAND_STORE_LOST,	 /* the store's files lost their names */
	COMMAND_JOURNAL,	 /* up to record_room records from cursor on */
	COMMAND_DRAIN, /* no new requests; answered when all is durable or at once when the peer is
			  gone */
};
struct group_status;
struct journal_line {
	struct record record;
	bool counts;
};
struct command {
	struct command *next;
	uint8_t kind;
	uint8_t group;
	uint8_t store;
	bool accept_loss;
	struct store_files files;
	struct uuid set;
	uint32_t incarnation;
	uint8_t key[VOLUMES_PER_GROUP_MAX][KEY_BYTES]; /* wiped by core once taken */
	struct core_status *status;
	struct journal_line *record;
	unsigned record_count; /* room in, filled out */
	uint64_t cursor;
	int32_t result;		      /* 0 or negative errno */
	char text[512];		      /* why, and the way out */
	unsigned long long number[6]; /* by kind: promote: consistent, acknowledged; scrub: shards
					 read, bad, repaired, blocks lost */
	void *owner;
	uint64_t internal;
};

/* A copy of the figures, taken on the lane. */
struct store_status {
	uint8_t state; /* enum store_state; STORE_CLOSED when absent */
	bool in_service;
	bool full; /* its disk has no room for the image: the fold waits */
	uint32_t incarnation;
	lsn_t floor;
	lsn_t image_point;
	uint64_t journal_used, journal_total;
	uint64_t damage;
};
struct group_status {
	char name[NAME_BYTES_MAX];
	uint8_t role;
	const char *state; /* one word: opening, waiting, catching-up, replicating, stalled,
			      stopped, vault, promoting, serving, refused */
	bool protected_now;
	ns_t unprotected_since;
	uint32_t generation;
	struct span span;
	lsn_t lsn;	    /* primary: last drawn; vault: highest seen */
	lsn_t acknowledged; /* primary */
	lsn_t received, durable, consistent, fold;
	uint64_t window_used, window_total; /* bytes */
	uint64_t intent_bytes;
	uint64_t writes, reads, flushes, write_bytes, read_bytes;
	uint64_t records_sent, records_resent, records_received, repaired, duplicates, decoded,
		refused;
	uint64_t seals, opens;
	struct store_status store[SHARDS_MAX];
};
struct path_status {
	bool alive;
	uint64_t tx_packets, tx_bytes, rx_packets, rx_bytes, rx_bad, rx_replayed;
	ns_t rtt;
};
struct core_status {
	bool linked;
	ns_t linked_since;
	uint8_t path_count, group_count;
	struct path_status path[PATHS_MAX];
	uint64_t rx_unknown_session, rx_malformed, rekeys;
	uint64_t memory_bytes;
	struct group_status group[GROUPS_MAX];
};

struct events {
	struct packet *packet; /* borrowed for the step; written to */
	unsigned packet_count;
	const struct completion *completion;
	unsigned completion_count;
	struct request *const *request;
	unsigned request_count;
	struct cell *const *sent; /* cells that the ports no longer hold */
	unsigned sent_count;
	struct command *const *command;
	unsigned command_count;
	const struct session_keys *session; /* a new session with the peer, or NULL */
};

struct core;
/* gives: a core, or NULL with errno (that of the source of memory; ENOTSUP: the back end).
 * packet memory is huge-page memory of the port where there is one: core_packet_memory_bytes() of
 * it, page aligned, zeroed, the caller's for life. Secrets in config are wiped. */
uint64_t core_packet_memory_bytes(const struct core_config *);
struct core *core_new(struct core_config *, void *packet_memory);
void core_free(struct core *); /* wipes */

void core_step(struct core *, const struct events *, struct effects *);
/* When to call again though nothing happens. */
ns_t core_deadline(const struct core *);
/* How many client requests the core would take now without queueing beyond its bound. */
unsigned core_request_room(const struct core *);
/* Whether the volume (export index over all groups in order) can be offered to clients now, and
 * whether it is read-only. */
bool core_export_ready(const struct core *, unsigned export, bool *read_only);
/* The session is wanted: no peer, or its keys grow old. The control thread then runs a handshake.
 */
bool core_wants_session(const struct core *);
/* Whether a datagram is for core (a data-plane type of ours) rather than for the handshake. */
bool core_takes_datagram(const uint8_t *datagram, uint32_t length);

#endif
