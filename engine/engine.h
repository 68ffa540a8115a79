/* SPDX-License-Identifier: Apache-2.0 */
/* The engine of one site: what is opened at start, in order, and what the control thread keeps
 * beside its lane. The lane owns core, ports, disk and clients; the control thread owns the rest,
 * and the two speak through lane.h alone. */
#ifndef CASEMATE_ENGINE_H
#define CASEMATE_ENGINE_H

#include "casemate.h"
#include "config.h"
#include "control.h"
#include "core/core.h"
#include "drive/disk.h"
#include "drive/lane.h"
#include "drive/port.h"
#include "front/nbd_server.h"
#include "session/session.h"
#include "volume.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
	ENGINE_WHY_BYTES = 512,
	ENGINE_DISK_ENTRIES = 1024,
	ENGINE_NBD_CONNECTIONS = 32,
	ENGINE_STORE_FILES_MAX = 2 + 2 * VOLUMES_PER_GROUP_MAX,
};

/* One store of ours, as its files were when they were opened. */
struct engine_store {
	bool open; /* the core has been given its files */
	bool lost; /* it has been told that they lost their names */
	struct store_files files;
	struct command command; /* COMMAND_STORE_LOST; in the lane while `telling` */
	bool telling;
};

struct renewal;

struct engine {
	struct config *config;
	unsigned self;	/* our site; the peer is !self */
	int stop_event; /* any thread: w, control: r */
	int lock;
	struct disk *disk; /* control: until the lane runs, and disk_file_open after */
	struct core_config *core_config; /* in locked memory; wiped by core_new */
	struct core *core;		 /* lane: rw */
	void *packet_memory;
	uint64_t packet_memory_bytes;
	struct port *port[PATHS_MAX];
	struct nbd_server *nbd;
	struct nbd_export export[NBD_EXPORTS_MAX]; /* lane: rw once it runs */
	unsigned export_count;
	pthread_mutex_t clients_lock;	   /* of clients */
	struct nbd_server_figures clients; /* lane: w, control: r; a copy, ten times a second */
	struct lane *lane;
	pthread_t lane_thread;
	bool lane_runs;		 /* the thread was started */
	atomic_bool nbd_stop;	 /* control: w, lane: r */
	atomic_bool nbd_stopped; /* lane: w, control: r */
	uint64_t lane_turns;	 /* at the last look of the watchdog */
	struct engine_store store[GROUPS_MAX][SHARDS_MAX];
	struct { /* files that the lane closes: its ring alone can let go of them */
		uint16_t file[ENGINE_STORE_FILES_MAX]; /* control: w while count is 0, lane: r */
		atomic_uint count; /* control: from 0, lane: to 0 when they are closed */
	} closing;
	struct control *control;
	struct verb *waiting;		     /* verbs.c: those that ask again after a while */
	struct renewal *renewal[GROUPS_MAX]; /* under way */
	struct session *session;
	struct {
		ns_t retry_at;
		char why[SESSION_WHY_BYTES]; /* last failure, so that it is told once */
		ns_t why_at;
	} handshake;
	ns_t liveness_at, watchdog_at;
	bool clients_full; /* it was told that there is room for no more */
	ns_t clients_full_at;
	struct command drain; /* the order that a stop waits for */
	struct core_status drain_status;
	bool drain_sent, drained;
};

ns_t engine_now(void);	    /* monotonic */
uint64_t engine_wall(void); /* since the epoch */

/* ---- engine_files.c: the lock, devices, intent logs and stores ---- */
/* Each gives 0 or a negative errno, after the reason was logged. */
int files_lock(struct engine *);
void files_unlock(struct engine *);
int files_open(struct engine *);
/* Opens the files of one store into *files. 0 or a negative errno with why. */
int files_open_store(struct engine *, unsigned group, unsigned index, struct store_files *,
		     char *why, size_t why_bytes);
void files_close_store(struct engine *, unsigned group, const struct store_files *);
/* Whether the lane has files to close yet: nothing may be opened. */
bool files_closing(const struct engine *);
/* The core is done with this store: its files are closed, so that their space is free once they
 * have no name. 0; -ETIMEDOUT with why: the lane does not turn. */
int files_give_up_store(struct engine *, unsigned group, unsigned index, char *why,
			size_t why_bytes);
/* On the lane's thread: closes what was given up. */
void files_lane_turn(struct engine *);
/* Once a second: tells the core of stores whose files lost their names. */
void files_watch(struct engine *);

/* ---- engine_renew.c: the files of a store made anew, by a thread of their own ---- */
/* One per group at a time. 0 or a negative errno. */
int renewal_start(struct engine *, unsigned group, const struct volume_store *);
bool renewal_done(const struct engine *, unsigned group);
/* Once it is done: what volume_store_format gave. */
int renewal_end(struct engine *, unsigned group, char *why, size_t why_bytes);
/* They cease soon, and remove what they made. */
void renewals_cancel(struct engine *);
/* Ends all; false when a disk holds one, which goes on reading the configuration. */
bool renewals_close(struct engine *);

/* ---- engine_keys.c ---- */
/* The volume keys of a group at its primary. */
int keys_load(struct engine *, unsigned group, struct core_group *);
/* For a promotion: unwraps the volume keys that the stores name. 0; -EKEYREJECTED with why: the
 * wrong key; or another negative errno with why. */
int keys_of_stores(struct engine *, unsigned group, const char *uri,
		   uint8_t key[VOLUMES_PER_GROUP_MAX][KEY_BYTES], char why[ENGINE_WHY_BYTES]);

/* ---- engine_core.c ---- */
int core_config_make(struct engine *);

/* ---- engine_memory.c ---- */
extern const struct memory engine_memory; /* of the core and of the lane's queue of keys */

/* ---- engine_ports.c ---- */
int ports_open(struct engine *);
int ports_let_in(struct engine *); /* the clients of virtual devices: last of all */
/* False: a device hangs, and uses cells yet. */
bool ports_close(struct engine *);

/* ---- engine_session.c ---- */
int session_open(struct engine *);
void session_close(struct engine *);
/* Moves datagrams between the lane and the handshake, and hands new keys over. */
void session_turn(struct engine *, ns_t now);
ns_t session_next(const struct engine *, ns_t now);
/* gives: the figures of all handshakes, and why the last one failed. */
json_t *session_json(const struct engine *);

/* ---- engine_lane.c ---- */
/* Clients, core and the lane's thread. */
int lane_open(struct engine *);
void clients_figures(struct engine *, struct nbd_server_figures *);
/* Tells once that the bound of connections is reached; again a minute after it was not any more. */
void clients_watch(struct engine *, ns_t now);
/* Waits for the thread. */
void lane_close(struct engine *);
/* Frees core, lane and packet memory: after ports_close, as a device may hold cells of theirs. */
void lane_release(struct engine *);
/* Takes what the lane has to tell: notes, answered commands. */
void lane_listen(struct engine *);
/* Whether the lane has turned since the last call. */
bool lane_lives(struct engine *);

/* ---- verbs.c ---- */
control_handler verbs_handle;
/* An order of a verb has been carried out. */
void verbs_answered(struct engine *, struct command *);
void verbs_turn(struct engine *, ns_t now);
ns_t verbs_next(const struct engine *);

#endif
