/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated world: one seed, virtual time, two sites that run the production core, a network
 * and disks with faults, and a client. All chance comes from the seed, all time from the queue of
 * events: the same seed gives the same run. */
#ifndef CASEMATE_TESTS_SIM_WORLD_H
#define CASEMATE_TESTS_SIM_WORLD_H

#include "core/core.h"
#include "core/intent.h"

#include <stdio.h>

enum { SITE_PRIMARY, SITE_VAULT, SITES };
enum { SECTOR_BYTES = 512, FILES_MAX = 256, OPERATIONS_MAX = 4096, LOG_LINES = 200 };

/* ---- chance ---- */
struct chance {
	uint64_t state;
};
uint64_t chance_next(struct chance *);
uint64_t chance_mix(uint64_t); /* spreads its bits */
uint64_t chance_below(struct chance *, uint64_t limit);
uint64_t chance_between(struct chance *, uint64_t least, uint64_t most);
bool chance_permille(struct chance *, unsigned permille);

/* ---- what a seed draws; printed when it fails ---- */
struct options {
	uint64_t seed;
	struct geometry geometry;
	uint8_t quorum, ack, volumes, paths;
	bool sync_flush, verbose;
	uint32_t block_bytes, blocks, datagram_bytes;
	uint32_t segment_bytes, segments, span_blocks;
	unsigned loss, duplicate, corrupt, reorder, late; /* per mille of datagrams */
	ns_t delay_least, delay_most;
	ns_t disk_least, disk_most;
	unsigned slow_stores; /* so many of the stores take up to slow_most longer */
	ns_t slow_most;
	unsigned operations, crashes;
	bool lose_stores; /* at the end, w - k of them */
	bool lose_more;	  /* and then some: a promotion may refuse, but not lie */
	bool vault_crash_at_end;
	uint8_t aead;
};

/* ---- disks: what is cached, what is durable, what lies between ---- */
struct unsynced {
	uint64_t offset, length;
	uint8_t *bytes; /* NULL: zeros */
};
struct file {
	bool exists;
	char name[48];
	uint8_t *cached, *durable;
	uint64_t size;
	struct unsynced *unsynced;
	unsigned unsynced_count, unsynced_room;
	uint64_t fail_after; /* writes until all fail with EIO; 0: never */
	bool failed;
	/* fails once, and the kernel forgets what it had not written: later syncs succeed though */
	bool forgets;
	bool lies;    /* says that it syncs, and does not */
	ns_t stalled; /* until then nothing completes */
	bool hung;    /* stalled until its machine is started again */
	ns_t slow;    /* how much longer each operation may take */
};
struct pending {
	struct io *io;
	uint16_t file;
	uint8_t kind;
	uint64_t offset, length;
	uint8_t *bytes;	      /* of a write, as it was when submitted */
	unsigned sync_covers; /* of a sync: unsynced entries that it makes durable */
	bool open;
};
enum { PENDING_MAX = 8192 };

/* ---- a site ---- */
struct site {
	unsigned index;
	bool alive;
	unsigned life; /* counts starts: events of an older life are dropped */
	struct core *core;
	void *packet_memory;
	uint64_t packet_bytes;
	struct file file[FILES_MAX];
	unsigned file_count;
	struct pending pending[PENDING_MAX];
	unsigned pending_next;
	/* gathered for the next step */
	struct packet packet[64];
	unsigned packet_count;
	struct completion completion[256];
	unsigned completion_count;
	struct request *request[64];
	unsigned request_count;
	struct cell *sent[4096];
	unsigned sent_count;
	struct command *command[8];
	unsigned command_count;
	const struct session_keys *session;
	struct session_keys keys;
	ns_t next_step;		   /* of the event that is queued */
	ns_t path_free[PATHS_MAX]; /* when the last datagram on this path arrives: keeps the order
				    */
	struct effects effects;
};

/* ---- events ---- */
enum event_kind { EVENT_STEP, EVENT_DATAGRAM, EVENT_DISK, EVENT_CLIENT, EVENT_FAULT, EVENT_SENT };
struct event {
	ns_t at;
	uint64_t order;
	uint8_t kind, site;
	unsigned life;
	void *what;
	uint32_t number;
};
struct datagram {
	uint32_t length;
	uint8_t path;
	bool altered, held;
	uint8_t bytes[];
};

/* ---- the client and its memory of what it was told ---- */
enum { OP_WRITE, OP_ZERO, OP_READ, OP_FLUSH };
struct op {
	uint64_t id;
	uint8_t kind, volume,
		state; /* 0 free, 1 in flight, 2 acknowledged, 3 unknown (crash, error) */
	uint64_t sector, count;
	uint64_t issued, ended; /* order of events, not time */
	bool firm; /* survives a power cut of the primary: synced locally and, by the mode, remotely
		    */
	bool fua;
	struct request request;
	uint8_t *buffer;
};

struct world {
	struct options options;
	struct chance chance;
	ns_t now;
	uint64_t order;
	struct event *heap;
	unsigned heap_count, heap_room;
	struct site site[SITES];
	bool partitioned;
	bool path_cut[PATHS_MAX];
	uint64_t sessions, clock; /* of client events */
	ns_t session_at;
	struct core_config start[SITES];
	bool store_gone[SHARDS_MAX];  /* its files are not there */
	bool store_spent[SHARDS_MAX]; /* counts as one of those that may be lost */
	unsigned wanderer;	      /* a store that comes and goes; SHARDS_MAX: none */
	bool vault_crashed, quiet;    /* quiet: no more faults, no new operations */
	bool rested;		      /* nothing was asked for, for a while, until just now */
	bool altered;		      /* the datagram that is being delivered */
	bool converged; /* all floors met with all written durable: the sites must be equal */
	uint64_t trace, seals, firm_acks;
	uint8_t *device_copy[VOLUMES_PER_GROUP_MAX]; /* as it was then */
	struct command command;
	bool command_done;
	struct core_status status;
	uint8_t volume_key[VOLUMES_PER_GROUP_MAX][KEY_BYTES];
	struct op *op;
	unsigned op_count, in_flight, in_flight_max, issued_target;
	unsigned **
		sector_ops[VOLUMES_PER_GROUP_MAX]; /* by sector: indices of ops, [0] is the count */
	bool failed;
	char failure[512];
	/* a story's own: what is said, without the time; whether a datagram gets lost */
	void (*hear)(struct world *, const char *line);
	bool (*drops)(struct world *, unsigned from, const struct cell *);
	char log[LOG_LINES][160];
	unsigned log_next;
	/* figures */
	uint64_t steps, datagrams, lost, corrupted, late, crashes, kills, stores_lost, acks, reads,
		promoted, refused, decoded, repaired, folds, branches;
};

void world_say(struct world *, const char *form, ...) __attribute__((format(printf, 2, 3)));
/* The first violated rule ends the run. */
void world_fail(struct world *, const char *form, ...) __attribute__((format(printf, 2, 3)));
void world_event(struct world *, ns_t at, enum event_kind, unsigned site, void *what,
		 uint32_t number);
/* What is on its way to this site is held up somewhere, until it is released all at once. */
void world_clog(struct world *, unsigned site);
void world_release(struct world *);
void world_init(struct world *, const struct options *);
void world_fini(struct world *);
/* Runs until the time, or until done() says so. */
void world_run(struct world *, ns_t until, bool (*done)(struct world *));
void options_draw(struct options *, uint64_t seed);
void options_print(const struct options *, FILE *);

/* site.c */
void site_format(struct world *, unsigned site);
void site_start(struct world *, unsigned site);
/* A power cut loses what disks have only cached; a killed process does not. */
enum crash { CRASH_POWER, CRASH_PROCESS };
void site_crash(struct world *, unsigned site, enum crash);
void site_step(struct world *, unsigned site);
void site_submit(struct world *, unsigned site, struct request *);
void site_lose_store(struct world *, unsigned index);
void site_status(struct world *, unsigned site, struct core_status *);
void site_order(struct world *, unsigned site, const struct command *);
int site_promote(struct world *, bool accept_loss, struct command *result);
void sessions_meet(struct world *);
/* sim_disk.c */
unsigned disk_file(struct site *, const char *name, uint64_t size);
void disk_take(struct world *, struct site *, struct io *);
void disk_complete(struct world *, struct site *, uint32_t number);
void disk_crash(struct world *, struct site *, enum crash);
/* client.c */
void client_init(struct world *);
void client_fini(struct world *);
void client_turn(struct world *);
/* One operation of this kind and place, now. */
struct op *client_ask(struct world *, const struct op *what);
bool client_answered_op(const struct op *);
void client_answered(struct world *, struct request *);
void client_crashed(struct world *, enum crash);
void client_check_read(struct world *, unsigned volume, uint64_t sector, uint64_t count,
		       const uint8_t *bytes, const struct op *reader);
/* After a promotion: every sector, as the vault serves it. owed: all that was acknowledged must be
 * there; else only what was acknowledged before something that is there. */
void client_check_all(struct world *, bool owed);
/* checks.c */
void check_begin(struct world *);
void check_canaries(struct world *);
extern const char sim_commit[]; /* commit.c, made by the build */
/* run.c: one seed from start to end. report: says what failed, in a branch of it. */
void run(struct world *, const struct options *, void (*report)(const struct world *));

#endif
