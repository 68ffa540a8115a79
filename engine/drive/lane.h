/* SPDX-License-Identifier: Apache-2.0 */
/* A lane: one thread that turns a core over its ports, its disks and its clients, and talks to the
 * control thread through bounded queues only. All of a lane's work happens in lane_run. */
#ifndef CASEMATE_DRIVE_LANE_H
#define CASEMATE_DRIVE_LANE_H

#include "core/core.h"
#include "disk.h"
#include "port.h"

/* Where client requests come from and go to; all called on the lane's thread. A lane without
 * clients has NULLs. */
struct lane_front {
	void *context;
	/* Gives complete requests, oldest first. */
	unsigned (*take)(void *context, struct request **, unsigned max);
	/* Takes back one that is answered. */
	void (*answer)(void *context, struct request *);
	/* A completion of an operation whose user data has bit 0 set. */
	void (*completed)(void *context, uint64_t user_data, int32_t result, uint32_t flags);
	/* Once a turn, before the ring is submitted: prepares what is to be done on it. */
	void (*turn)(void *context);
	/* As often as the lane's own counters are published: time to publish those of clients. */
	void (*publish)(void *context);
};

struct lane_config {
	struct core *core;	     /* all borrowed for the life of the lane */
	const struct memory *memory; /* for keys on their way; NULL: the C library */
	struct disk *disk;
	struct port *port[PATHS_MAX]; /* by path */
	unsigned port_count;
	struct lane_front front;
	unsigned spin_turns; /* without work before the first nap; 0: LANE_SPIN_TURNS */
};

enum {
	LANE_SPIN_TURNS = 256,
	LANE_CONTROL_BYTES_MAX = 1280, /* of a handshake's datagram */
	LANE_COMMANDS_MAX = 64,	       /* with the lane at a time */
};

/* A datagram of the handshake (types below 16), which the control thread speaks. */
struct lane_datagram {
	uint8_t bytes[LANE_CONTROL_BYTES_MAX];
	uint16_t length;
	uint8_t path;
};

/* Where the cycles of turns with work went; turns without any are idle as a whole. */
enum lane_stage {
	LANE_RECEIVE,
	LANE_DISK,
	LANE_FRONT,
	LANE_CORE,
	LANE_SEND,
	LANE_IDLE,
	LANE_STAGES
};
struct lane_counters {
	uint64_t turns, busy_turns, naps;
	uint64_t cycles[LANE_STAGES]; /* of the time stamp counter */
	uint64_t packets, sent, completions, requests, answers, commands;
	uint64_t control_in, control_out;
	uint64_t control_dropped; /* too long, or the queue was full */
	uint64_t notes_lost;
	struct port_stats port[PATHS_MAX];
	struct disk_counters disk;
};

struct lane;
/* gives; NULL with errno. */
struct lane *lane_new(const struct lane_config *);
void lane_free(struct lane *); /* after lane_run has returned; wipes */

/* The calling thread is the lane's until lane_stop, and until the disks are done (5 s at most). 0,
 * or -ETIMEDOUT when they were not. */
int lane_run(struct lane *);

/* ---- for the control thread: one, always the same. None of these waits. ---- */

/* takes; lane_results gives it back. False: LANE_COMMANDS_MAX are there. */
bool lane_command(struct lane *, struct command *);
/* gives a command that is done; NULL: none. */
struct command *lane_results(struct lane *);
/* Copies new keys of the session; false: the last ones were not taken yet. */
bool lane_session(struct lane *, const struct session_keys *);
/* No peer, or its keys grow old: a handshake is due. As of the last turn. */
bool lane_wants_session(const struct lane *);
bool lane_control_receive(struct lane *, struct lane_datagram *);
bool lane_control_send(struct lane *, const struct lane_datagram *);
bool lane_notes(struct lane *, struct note *);
/* A copy that the lane makes ten times a second. */
void lane_counters(struct lane *, struct lane_counters *);
void lane_stop(struct lane *);

/* A descriptor that becomes readable when there is something to fetch with the calls above; then
 * lane_heard, then fetch all. */
int lane_descriptor(const struct lane *);
void lane_heard(struct lane *);

#endif
