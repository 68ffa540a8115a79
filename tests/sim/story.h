/* SPDX-License-Identifier: Apache-2.0 */
/* What stories are told with. There is one world, without chance: each operation of a disk and each
 * datagram takes a millisecond. Story files export their set; story.c tells them. */
#ifndef CASEMATE_TESTS_SIM_STORY_H
#define CASEMATE_TESTS_SIM_STORY_H

#include "world.h"

struct story {
	const char *name;
	void (*tell)(void);
	const char *expected; /* all that was heard, a line each */
};
struct story_set {
	const struct story *story;
	unsigned count;
};
extern const struct story_set stories_course, stories_crash, stories_store, stories_rebuild,
	stories_away;

extern struct world world;
extern unsigned to_drop; /* shards of the primary that still get lost */

/* ---- beginning: what comes before the first write is heard or not ---- */
struct options ordinary(struct geometry, uint8_t quorum);
void begin_heard(const struct options *);
void begin_with(const struct options *);
void begin(struct geometry, uint8_t quorum);
void start_both(void);
bool replicating(struct world *);
bool none_waits(struct world *);
bool wait_until(bool (*done)(struct world *));
void rest(void);

/* ---- the client ---- */
struct op *ask(unsigned kind, uint64_t block, uint64_t blocks);
struct op *ask_volume(unsigned volume, unsigned kind, uint64_t block, uint64_t blocks);
void answers(void); /* waits for them */
void writes(uint64_t block, uint64_t blocks);
void reads(void);

/* ---- losses, and what is left ---- */
void primary_gone(void);
void stores_lost(unsigned first, unsigned count);
void promotes(bool accept_loss);

/* ---- the vault and its stores ---- */
/* A short journal, and all blocks written so often. */
void begin_short(unsigned rounds);
bool folded(struct world *);
void vault_cut(void); /* loses power, starts again, has time */
void scrubs(void);
/* The vault gives the old store up and a new one is made: the order to fill that. */
struct command rebuild_prepared(unsigned index);
void rebuilds(unsigned index);
const struct store_files *store_files_of(unsigned store);
struct file *vault_file(uint16_t number);

/* ---- what is looked at ---- */
void hear(struct world *, const char *line);
void tell_vault(void);
void tell_primary(void);

#endif
