/* SPDX-License-Identifier: Apache-2.0 */
/* What one path needs of its own: the window against replays (RFC 6479), the pace at which it may
 * send, and the measured round trip. Small pure types; link.c composes them. */
#ifndef CASEMATE_CORE_PATH_H
#define CASEMATE_CORE_PATH_H

#include "base.h"

/* A circular bitmap over the newest packet numbers: never shifted, words are cleared as the window
 * moves on. */
enum { REPLAY_WINDOW_PACKETS = 65536, REPLAY_WORDS = REPLAY_WINDOW_PACKETS / 64 + 1 };
struct replay {
	uint64_t next; /* one above the highest number marked */
	uint64_t word[REPLAY_WORDS];
};
void replay_init(struct replay *);
/* Before the key is used: false when the number was seen, or is older than the window. */
bool replay_fresh(const struct replay *, uint64_t number);
/* After the tag was found right. */
void replay_mark(struct replay *, uint64_t number);

/* A token bucket in bytes; burst is what may leave at once after a pause. rate 0: not paced. */
struct pace {
	uint64_t rate_bytes_per_s;
	uint64_t burst_bytes;
	ns_t full_ns;	 /* in this time an empty bucket is full */
	uint64_t tokens; /* bytes */
	uint64_t part;	 /* of the next byte, in units of 1 / NS_PER_S; below NS_PER_S */
	ns_t filled_ns;	 /* when tokens was last worked out */
};
void pace_init(struct pace *, uint64_t rate_bytes_per_s, ns_t now);
void pace_fill(struct pace *, ns_t now);
bool pace_take(struct pace *, uint32_t bytes);
/* When the next packet of this size may leave. */
ns_t pace_ready_ns(const struct pace *, uint32_t bytes);

/* Round trip, smoothed as in RFC 6298 section 2. */
struct round_trip {
	ns_t smoothed_ns, variation_ns;
};
void round_trip_sample(struct round_trip *, ns_t sample_ns);
/* How long to wait before what was sent counts as lost. */
ns_t round_trip_timeout_ns(const struct round_trip *);

#endif
