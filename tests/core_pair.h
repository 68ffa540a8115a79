/* SPDX-License-Identifier: Apache-2.0 */
/* A primary's core and a vault's core joined in memory: datagrams are handed over in the cells they
 * were sealed in, disks are memory, time is a number. One thing happens per call, so that a meter
 * can time one side alone, and nothing allocates after pair_new. */
#ifndef CASEMATE_TESTS_CORE_PAIR_H
#define CASEMATE_TESTS_CORE_PAIR_H

#include "core/core.h"

enum { PAIR_PRIMARY, PAIR_VAULT, PAIR_SITES };
enum {
	PAIR_FILES_MAX = SHARDS_MAX * 4,
	PAIR_QUEUE_MAX = 16384, /* datagrams, completions and cells between two steps */
	PAIR_DATAGRAM_BYTES_MAX = 8972,
};

struct pair_options {
	struct geometry geometry;
	uint32_t block_bytes;
	uint32_t blocks; /* of the one volume */
	uint32_t window; /* records in flight, a power of 2, at least 32 */
	uint8_t aead, ack;
	const struct memory *memory; /* of the cores; NULL: the C library */
	bool forgetful; /* the primary's device reads as zeros: what is written there is dropped */
	bool sync_flush;
};

struct pair_file {
	uint8_t *bytes; /* NULL: forgets */
	uint64_t size;
};

struct pair_site {
	struct core *core;
	struct core_config config;
	void *packet_memory;
	struct pair_file file[PAIR_FILES_MAX];
	unsigned file_count;
	/* for the next steps */
	struct packet packet[PAIR_QUEUE_MAX];
	struct cell *carrier[PAIR_QUEUE_MAX]; /* the peer's cell of each packet; NULL: a copy */
	unsigned packet_count, packet_taken;
	struct completion completion[PAIR_QUEUE_MAX];
	unsigned completion_count;
	struct cell *sent[PAIR_QUEUE_MAX];
	unsigned sent_count;
	struct io_list disk; /* wanted, and not yet carried out */
	bool disk_stands;    /* nothing is */
	struct session_keys keys;
	bool keys_fresh;
	struct effects effects;
};

struct pair {
	struct pair_options options;
	struct pair_site site[PAIR_SITES];
	struct request_list answered;
	ns_t now;
	uint64_t notes;
	unsigned lives; /* of both cores */
	/* Whether this datagram arrives; NULL: all do. Sealed, but for its header. */
	bool (*arrives)(struct pair *, unsigned from, const struct cell *);
};

extern const uint8_t pair_volume_key[KEY_BYTES];

/* Formatted, started, in session, and replicating in order. */
struct pair *pair_new(const struct pair_options *);
void pair_free(struct pair *);

/* One step of one side with at most so many of the datagrams that wait for it, all its completions
 * and these requests. Answers go to pair.answered, datagrams to the other side. */
void pair_step(struct pair *, unsigned site, unsigned packet_max, struct request *const *request,
	       unsigned request_count);
/* Carries out what the side wants of its disks; its next step hears of it. */
void pair_disk(struct pair *, unsigned site);
/* Whether datagrams, completions or disk operations wait for this side. */
bool pair_waits(const struct pair *, unsigned site);
/* Turns both until nothing waits and so much time has passed. */
void pair_settle(struct pair *, ns_t);
/* Turns both for so long, whatever waits. */
void pair_run(struct pair *, ns_t);

/* The process of one side is killed, with all that was under way, and started on the same disks; a
 * new session joins them. */
void pair_restart(struct pair *, unsigned site);
/* A datagram, borrowed until the side has stepped, comes before whatever waits for it. */
void pair_deliver(struct pair *, unsigned site, uint8_t *datagram, uint32_t length);
void pair_status(struct pair *, unsigned site, struct core_status *);

#endif
