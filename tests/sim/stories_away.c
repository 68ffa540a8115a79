/* SPDX-License-Identifier: Apache-2.0 */
/* Stories of what one store alone was told before the power went. It is away while the others go
 * on without it, and when it comes back it must not know better. */
#include "story.h"

#include <string.h>

/* The superblocks of all others are written by no disk: the power cut that follows loses what they
 * were given. */
static void told_alone(unsigned alone)
{
	world.fate = FATE_LOST;
	world_say(&world, "only store %u records", alone);
	for (unsigned i = 0; i < geometry_n(world.options.geometry); i++) {
		struct file *superblock = vault_file(store_files_of(i)->superblock);
		superblock->hung = i != alone;
		superblock->stalled = i != alone ? world.now + 60 * NS_PER_S : 0;
	}
}

static void vault_starts_without(unsigned away, unsigned back)
{
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	world.store_gone[back] = false;
	if (away < SHARDS_MAX)
		world.store_gone[away] = true;
	site_start(&world, SITE_VAULT);
	rest();
}

/* docs/semantics.md "stores": a catch-up span that reached one superblock, and another one on top
 * of which writes were acknowledged. */
static void span_on_one_store(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 4);
	site_crash(&world, SITE_PRIMARY, CRASH_PROCESS);
	told_alone(0);
	site_start(&world, SITE_PRIMARY);
	world_run(&world, world.now + NS_PER_S, NULL);
	site_crash(&world, SITE_PRIMARY, CRASH_PROCESS);
	vault_starts_without(0, 0);
	site_start(&world, SITE_PRIMARY);
	wait_until(replicating);
	writes(4, 4);
	primary_gone();
	vault_starts_without(SHARDS_MAX, 0);
	tell_vault();
	promotes(false);
}

/* That store 3 was given up for a rebuild is known to store 0 alone; store 3 helped to acknowledge
 * after that, and store 1 is lost. */
static void given_up_on_one_store(void)
{
	const struct command prepare = {.kind = COMMAND_REBUILD_PREPARE, .store = 3};
	begin((struct geometry){2, 2}, 3);
	writes(0, 4);
	vault_starts_without(3, 3);
	told_alone(0);
	site_order_begin(&world, SITE_VAULT, &prepare);
	world_run(&world, world.now + NS_PER_S, NULL);
	vault_starts_without(0, 3);
	writes(4, 4);
	primary_gone();
	vault_starts_without(1, 0);
	tell_vault();
	promotes(false);
}

static bool is_read(struct world *w)
{
	site_status(w, SITE_VAULT, &w->status);
	return strcmp(w->status.group[0].state, "opening") != 0;
}

static void journal_stands(unsigned store, ns_t time)
{
	vault_file(store_files_of(store)->journal)->stalled = world.now + time;
}

/* Store 0 has only the older versions, and is given no newer ones while the vault is read. */
static void one_store_is_behind(void)
{
	begin((struct geometry){1, 2}, 2);
	writes(0, 4);
	rest();
	journal_stands(0, 4 * NS_PER_S);
	writes(0, 4);
	world.fate = FATE_LOST;
	site_crash(&world, SITE_PRIMARY, CRASH_POWER);
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	journal_stands(0, 0);
	site_start(&world, SITE_VAULT);
	wait_until(is_read);
	journal_stands(0, 8 * NS_PER_S);
	tell_vault();
	promotes(false);
}

/* docs/semantics.md "rebuild": a store was made and never filled, and all others are lost. It is no
 * empty vault. */
static void made_and_never_filled(void)
{
	begin((struct geometry){1, 2}, 3);
	writes(0, 4);
	vault_starts_without(0, 0);
	rebuild_prepared(0);
	primary_gone();
	stores_lost(1, 2);
	promotes(false);
}

/* docs/semantics.md "stores": a start is recorded before a primary is answered. What is on fewer
 * superblocks could lose to what an earlier start left on one. */
static void start_recorded_first(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 1);
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	site_start(&world, SITE_VAULT);
	/* They have been read, the journals not yet. */
	world_run(&world, world.now + 5 * NS_PER_MS, NULL);
	for (unsigned i = 0; i < geometry_n(world.options.geometry); i++)
		vault_file(store_files_of(i)->superblock)->stalled = world.now + 4 * NS_PER_S;
	world_say(&world, "the superblocks are slow; writes block 1");
	ask(OP_WRITE, 1, 1);
	world_run(&world, world.now + 3 * NS_PER_S, NULL);
	world_say(&world, "%u wait", world.in_flight);
	answers();
}

/* Two stores have a record when the vault starts again, and the others are given it late: that is
 * consistent, and not durable. */
static void no_quorum(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 1);
	rest();
	world_say(&world, "stores 2 and 3 are slow; writes block 1");
	journal_stands(2, 60 * NS_PER_S);
	journal_stands(3, 60 * NS_PER_S);
	ask(OP_WRITE, 1, 1);
	world_run(&world, world.now + 100 * NS_PER_MS, NULL);
	world.fate = FATE_LOST;
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	journal_stands(2, 0);
	journal_stands(3, 0);
	site_start(&world, SITE_VAULT);
	wait_until(is_read);
	journal_stands(2, 6 * NS_PER_S);
	journal_stands(3, 6 * NS_PER_S);
	world_run(&world, world.now + 5 * NS_PER_S, NULL);
	tell_vault();
	tell_primary();
	world_say(&world, "%u wait", world.in_flight);
	answers();
}

static const struct story stories[] = {
	/* clang-format off */
	{"span on one store", span_on_one_store,
	 "writes 4 blocks from 0\n"
	 "answered\n"
	 "site 0 is killed\n"
	 "only store 0 records\n"
	 "site 0 starts (life 3)\n"
	 "site 0 is killed\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: store 0 is missing: its directory or a file in it is not there\n"
	 "site 1: 3 of 4 stores in service, consistent point 4\n"
	 "site 0 starts (life 5)\n"
	 "site 1: catch-up span opened at lsn 5, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "site 0: caught up: 16 blocks compared, 0 sent again\n"
	 "site 1: span opened at lsn 6, generation 1\n"
	 "site 0: replicating from lsn 6, generation 1\n"
	 "writes 4 blocks from 4\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 5)\n"
	 "site 1: 4 of 4 stores in service, consistent point 9\n"
	 "vault vault: floors 9 9 9 9, durable 9, consistent 9, 0 repaired\n"
	 "site 1: promoted: serves up to lsn 9, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 9, generation 2\n"},
	{"given up on one store", given_up_on_one_store,
	 "writes 4 blocks from 0\n"
	 "answered\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: store 3 is missing: its directory or a file in it is not there\n"
	 "site 1: 3 of 4 stores in service, consistent point 4\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 5, generation 1\n"
	 "only store 0 records\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 5)\n"
	 "site 1: store 0 is missing: its directory or a file in it is not there\n"
	 "site 1: 3 of 4 stores in service, consistent point 4\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 5, generation 1\n"
	 "writes 4 blocks from 4\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 7)\n"
	 "site 1: store 1 is missing: its directory or a file in it is not there\n"
	 "site 1: 3 of 4 stores in service, consistent point 8\n"
	 "vault vault: floors 8 0 8 8, durable 8, consistent 8, 0 repaired\n"
	 "site 1: promoted: serves up to lsn 8, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 8, generation 2\n"},
	{"one store is behind", one_store_is_behind,
	 "writes 4 blocks from 0\n"
	 "answered\n"
	 "writes 4 blocks from 0\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: 3 of 3 stores in service, consistent point 8\n"
	 "vault vault: floors 4 8 8, durable 8, consistent 8, 0 repaired\n"
	 "site 1: promoted: serves up to lsn 8, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 8, generation 2\n"},
	{"start is recorded first", start_recorded_first,
	 "writes 1 blocks from 0\n"
	 "answered\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "the superblocks are slow; writes block 1\n"
	 "site 1: 4 of 4 stores in service, consistent point 1\n"
	 "1 wait\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 2, generation 1\n"
	 "answered\n"},
	{"k stores are no quorum", no_quorum,
	 "writes 1 blocks from 0\n"
	 "answered\n"
	 "stores 2 and 3 are slow; writes block 1\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: 4 of 4 stores in service, consistent point 2\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 3, generation 1\n"
	 "vault vault: floors 2 2 1 1, durable 1, consistent 2, 0 repaired\n"
	 "primary replicating: lsn 2, durable 1, resent some\n"
	 "1 wait\n"
	 "answered\n"},
	{"made and never filled", made_and_never_filled,
	 "writes 4 blocks from 0\n"
	 "answered\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: store 0 is missing: its directory or a file in it is not there\n"
	 "site 1: 2 of 3 stores in service, consistent point 4\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 5, generation 1\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "store 1 is lost\n"
	 "store 2 is lost\n"
	 "site 1 starts (life 5)\n"
	 "site 1: store 1 is missing: its directory or a file in it is not there\n"
	 "site 1: store 2 is missing: its directory or a file in it is not there\n"
	 "site 1: store 0 is out of service: casemate store rebuild brings it back\n"
	 "site 1: too few stores to be sure of what was acknowledged: bring the missing ones back\n"
	 "promotion -19\n"
	 "too few stores to be sure of what was acknowledged: bring the missing ones back\n"},
	/* clang-format on */
};
const struct story_set stories_away = {stories, ARRAY_COUNT(stories)};
