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
enum { SECTOR_BYTES = 512, FILES_MAX = 1024, OPERATIONS_MAX = 4096, LOG_LINES = 200 };

/* ---- chance ---- */
struct chance {
	uint64_t state;
};
uint64_t chance_next(struct chance *);
uint64_t chance_mix(uint64_t); /* spreads its bits */
uint64_t chance_below(struct chance *, uint64_t limit);
uint64_t chance_between(struct chance *, uint64_t least, uint64_t most);
bool chance_permille(struct chance *, unsigned permille);

/* What can go wrong with the vault's disks, and what is ordered there. Each seed draws a subset. */
enum fault {
	FAULT_FAIL,	       /* writes fail from some moment on */
	FAULT_FORGET,	       /* a sync fails once; later ones succeed, and what it had is gone */
	FAULT_LIE,	       /* syncs are ignored */
	FAULT_WANDER,	       /* with each start of the vault other stores are away */
	FAULT_GONE,	       /* its files are deleted while it is in use */
	FAULT_LOST_WRITES,     /* completed, and never stored */
	FAULT_MISDIRECTED,     /* stored in another place of the file */
	FAULT_MISREAD,	       /* other bytes are read than are there */
	FAULT_SWAP,	       /* two stores change places */
	FAULT_OLD_DISK,	       /* the disk that was replaced is put back */
	FAULT_ROT_HEADERS,     /* of the journal, at or below the synced mark */
	FAULT_ROT_SHARDS,      /* in the journal */
	FAULT_ROT_IMAGE,       /* a shard in its place */
	FAULT_ROT_SLOTS,       /* a page of slot headers: either copy, or both */
	FAULT_ROT_SUPERBLOCKS, /* either copy, or both */
	FAULT_FORGED,	       /* a shard that is wrong though its CRC is right */
	FAULT_UNREADABLE,      /* instead of rot: pages that give EIO until they are written */
	FAULT_SCRUB,
	FAULT_REBUILD, /* and disks that are replaced */
	FAULTS
};

/* ---- what a seed draws; printed when it fails ---- */
struct options {
	uint64_t seed;
	struct geometry geometry;
	uint8_t quorum, ack, volumes, paths;
	bool sync_flush, verbose;
	bool adopted; /* the device held something before it was a volume */
	uint32_t block_bytes, blocks, datagram_bytes;
	uint32_t segment_bytes, segments, span_blocks;
	unsigned loss, duplicate, corrupt, reorder, late; /* per mille of datagrams */
	ns_t delay_least, delay_most;
	ns_t disk_least, disk_most;
	unsigned slow_stores; /* so many of the stores take up to slow_most longer */
	ns_t slow_most;
	unsigned operations, crashes;
	uint32_t faults;			    /* mask of enum fault */
	unsigned lost_writes, misdirected, misread; /* per mille, on a disk that does so */
	unsigned wounds, orders;		    /* per mille of the hazards */
	ns_t hazard_pause;			    /* between two hazards, at most */
	bool lose_stores;			    /* at the end, w - k of them */
	bool lose_more; /* and then some: a promotion may refuse, but not lie */
	bool vault_crash_at_end;
	uint8_t aead;
};

/* What becomes at a crash of what was on its way: of all of it, or of each by itself. */
enum fate { FATE_LOST, FATE_WHOLE, FATE_PART, FATE_EACH, FATE_DRAWN };

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
	bool differs;	     /* cached may differ from durable elsewhere than in unsynced */
	uint64_t fail_after; /* writes until all fail with EIO; 0: never */
	bool failed;
	/* fails once, and the kernel forgets what it had not written: later syncs succeed though */
	bool forgets;
	bool lies;				    /* says that it syncs, and does not */
	ns_t stalled;				    /* until then nothing completes */
	bool hung;				    /* stalled until its machine is started again */
	ns_t slow;				    /* how much longer each operation may take */
	uint8_t *unreadable;			    /* by page; NULL: none */
	unsigned lost_writes, misdirected, misread; /* per mille */
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
	unsigned pending_oldest, pending_next; /* those that may be open; they only count up */
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
enum event_kind {
	EVENT_STEP,
	EVENT_DATAGRAM,
	EVENT_DISK,
	EVENT_CLIENT,
	EVENT_HAZARD,
	EVENT_REBUILD,
	EVENT_SENT
};
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
	bool given; /* was there before the volume: firm once its initial copy has ended */
	struct request request;
	uint8_t *buffer;
};

/* A piece of a store that is damaged: damage.c. */
enum wound_kind { WOUND_HEADER, WOUND_SHARD, WOUND_IMAGE, WOUND_SLOTS };
struct wound {
	uint8_t kind, store, volume;
	bool forged;
	uint16_t disk;	/* number of the superblock's file: which disk it was */
	unsigned life;	/* of the vault, when it was made */
	uint64_t block; /* of a record without one: its lsn */
	lsn_t lsn;	/* of a journal record */
};
enum { WOUNDS_MAX = 2048 };

/* A store that is away until a later start of the vault, and then has to catch up. */
enum wander { WANDER_HOME, WANDER_AWAY, WANDER_BACK };

/* What the operator has ordered, and was not answered yet. */
struct order {
	struct command command;
	bool open;
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
	bool store_liar[SHARDS_MAX];  /* its disk is bad: it fails, or says what is not so */
	bool beyond;		      /* more is lost than is promised for: refusals are right */
	bool doubted;		      /* and disks that lie were among those left */
	struct wound wound[WOUNDS_MAX];
	unsigned wound_count;
	lsn_t promised; /* the durable point, as last seen */
	struct order scrub, rebuild, removal, look;
	struct core_status looked;
	bool store_deleted[SHARDS_MAX]; /* and the vault was not told yet */
	unsigned rebuilds;
	uint32_t away; /* mask: another disk is in their place */
	struct store_files old_disk[SHARDS_MAX];
	bool has_old_disk[SHARDS_MAX];
	uint8_t wanders[SHARDS_MAX]; /* enum wander */
	bool quiet;		     /* no more faults, no new operations */
	uint64_t vault_crashed;	     /* when, by the clock of the client; 0: never */
	bool errors;		     /* of the primary's disks: answers may be errors */
	bool rested;		     /* nothing was asked for, for a while, until just now */
	bool altered;		     /* the datagram that is being delivered */
	bool branched;		     /* in a process that ends soon: memory is not given back */
	bool copied;		     /* the initial copy of an adopted device has ended */
	bool converged; /* all floors met with all written durable: the sites must be equal */
	uint64_t trace, seals, firm_acks;
	uint64_t hardened; /* writes and syncs that made something durable */
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
	/* the swarm's own: what happens between events */
	void (*hazard)(struct world *);
	void (*rebuild_make)(struct world *);		   /* the old store was given up */
	void (*ordered)(struct world *, struct command *); /* an order was answered */
	/* a story's own: what is said, without the time; whether a datagram gets lost; what becomes
	 * of what a crash finds on its way */
	enum fate fate;
	void (*hear)(struct world *, const char *line);
	bool (*drops)(struct world *, unsigned from, const struct cell *);
	char log[LOG_LINES][160];
	unsigned log_next;
	/* figures */
	uint64_t received; /* failovers in which what was received, and not stored, is owed */
	uint64_t steps, datagrams, lost, corrupted, late, crashes, kills, stores_lost, acks, reads,
		promoted, refused, decoded, repaired, folds, branches, wounds, unread, strayed,
		scrubs, scrubbed_bad, rebuilt, swaps, clean;
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
/* A disk made anew for this store. */
void site_renew_store(struct world *, unsigned index, const struct uuid *set, uint32_t incarnation);
void site_status(struct world *, unsigned site, struct core_status *);
/* Gives an order; site_order also waits for the answer. */
void site_order_begin(struct world *, unsigned site, const struct command *);
void site_order(struct world *, unsigned site, const struct command *);
int site_promote(struct world *, bool accept_loss, struct command *result);
void sessions_meet(struct world *);
/* sim_disk.c */
unsigned disk_file(struct site *, const char *name, uint64_t size);
void disk_take(struct world *, struct site *, struct io *);
void disk_complete(struct world *, struct site *, uint32_t number);
void disk_crash(struct world *, struct site *, enum crash);
/* Damage on the disk itself: a page that gives EIO until it is written; other bits in a byte. */
void disk_spoil(struct file *, uint64_t offset);
void disk_rot(struct file *, uint64_t offset, uint8_t bits);
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
/* After a crash of the primary: every sector of its devices, as they will be found. */
void client_check_device(struct world *);
/* From here on both sites hold the same bytes, whatever the mode promises. */
void client_remember_device(struct world *);
/* After a promotion: every sector, as the vault serves it. All that was acknowledged must be there;
 * or what this life of the vault has received; or what was acknowledged before something that is
 * there; or nothing, but what is there was written there. */
enum owed { OWED_NOTHING, OWED_ORDER, OWED_RECEIVED, OWED_ALL };
void client_check_all(struct world *, enum owed);
/* checks.c */
void check_begin(struct world *);
void check_canaries(struct world *);
extern const char sim_commit[]; /* commit.c, made by the build */
/* run.c: one seed from start to end. report: says what failed, in a branch of it. */
void run(struct world *, const struct options *, void (*report)(const struct world *));

#endif
