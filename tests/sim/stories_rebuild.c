/* SPDX-License-Identifier: Apache-2.0 */
/* Stories of stores that are made anew, and of folds: what may count when, and what must not be
 * taken away. */
#include "story.h"

#include <string.h>

static void old_disk(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 3);
	const struct store_files old = *store_files_of(0);
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	world.store_gone[0] = true;
	site_start(&world, SITE_VAULT);
	rest();
	rebuilds(0);
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	world.start[SITE_VAULT].group[0].store[0].files = old;
	world_say(&world, "disk 0 is the old one again");
	site_start(&world, SITE_VAULT);
	rest();
	tell_vault();
}

/* The new store has written of itself that it is in service. */
static bool says_so_itself(struct world *w)
{
	const uint8_t *superblock = vault_file(store_files_of(0)->superblock)->durable;
	struct store_group group;
	bool says = false;
	for (unsigned copy = 0; copy < 2; copy++)
		if (store_superblock_decode(superblock + copy * STORE_SUPERBLOCK_BYTES, &group,
					    NULL, NULL, NULL, NULL, NULL, NULL) == 0)
			says |= group.incarnation[0] == 3 && group.spans.count && !(group.out & 1);
	return says && w;
}

/* docs/semantics.md "rebuild": a crash before the others have recorded it leaves it out. */
static void rebuild_cut_short(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 3);
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	world.store_gone[0] = true;
	site_start(&world, SITE_VAULT);
	rest();
	struct command what = rebuild_prepared(0);
	site_order_begin(&world, SITE_VAULT, &what);
	world_say(&world, wait_until(says_so_itself) ? "it says that it is whole" : "it does not");
	world.fate = FATE_LOST;
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	site_start(&world, SITE_VAULT);
	rest();
	tell_vault();
}

static bool catching_up(struct world *w)
{
	site_status(w, SITE_PRIMARY, &w->status);
	return strcmp(w->status.group[0].state, "catching-up") == 0;
}

/* Two catch-ups in a row are broken off: their spans drew nothing that counts, and a store that is
 * filled misses nothing of them. */
static void rebuild_over_void_spans(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 2);
	for (unsigned i = 0; i < 2; i++) {
		site_crash(&world, SITE_PRIMARY, CRASH_POWER);
		start_both();
		wait_until(catching_up);
	}
	site_crash(&world, SITE_PRIMARY, CRASH_POWER);
	start_both();
	wait_until(replicating);
	writes(2, 2);
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	stores_lost(3, 1);
	rebuilds(3);
	tell_vault();
}

/* Store 3 was away when blocks 2 and 3 were written; then two of those that have them are lost. New
 * stores in their place would make a quorum that never heard of them. */
static void rebuild_hides_nothing(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 2);
	rest();
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	world.store_gone[3] = true;
	site_start(&world, SITE_VAULT);
	rest();
	writes(2, 2);
	primary_gone();
	world.store_gone[3] = false;
	stores_lost(0, 2);
	rebuilds(0);
	promotes(false);
}

/* With fewer than w stores in service no lsn is durable. What they hold was acknowledged before,
 * and a store that is rebuilt gets it all before it counts. */
static void rebuild_fills_first(void)
{
	begin((struct geometry){2, 3}, 4);
	writes(0, 6);
	primary_gone();
	stores_lost(3, 2);
	rebuilds(3);
	tell_vault();
	rebuilds(4);
	tell_vault();
}

static bool order_answered(struct world *w)
{
	return w->command_done;
}

/* Folds go on while an image is copied: what they bring needs no copy. */
static void rebuild_beside_folds(void)
{
	begin_short(5);
	wait_until(folded);
	rest();
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	stores_lost(3, 1);
	world_say(&world, "store 3 is rebuilt; its new image is slow");
	struct command what = rebuild_prepared(3);
	vault_file(what.files.image[0])->stalled = world.now + NS_PER_S;
	site_order_begin(&world, SITE_VAULT, &what);
	for (unsigned i = 0; i < 3; i++)
		writes(0, 16);
	tell_vault();
	wait_until(order_answered);
	world_say(&world, "rebuild %d", world.command.result);
	rest();
	tell_vault();
}

/* The image is copied as of the fold point, and is there before the store counts. */
static void rebuild_after_fold(void)
{
	begin_short(5);
	wait_until(folded);
	rest();
	tell_vault();
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	stores_lost(3, 1);
	rebuilds(3);
	tell_vault();
	primary_gone();
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	stores_lost(0, 1);
	promotes(false);
}

/* docs/semantics.md "fold", why f and not k: the old versions were acknowledged, the new ones are
 * on two stores alone. A fold there would leave neither when one of them is lost. */
static void write_hole(void)
{
	begin_short(2);
	rest();
	world_say(&world, "stores 2 and 3 are slow; all is written twice more");
	for (unsigned i = 2; i < 4; i++)
		vault_file(store_files_of(i)->journal)->stalled = world.now + 100 * NS_PER_S;
	for (unsigned i = 0; i < 2; i++)
		ask(OP_WRITE, 0, 16);
	rest();
	tell_vault();
	world.fate = FATE_LOST;
	primary_gone();
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	for (unsigned i = 2; i < 4; i++)
		vault_file(store_files_of(i)->journal)->stalled = 0;
	stores_lost(0, 1);
	promotes(false);
}

static const struct story stories[] = {
	/* clang-format off */
	{"old disk", old_disk,
	 "writes 3 blocks from 0\n"
	 "answered\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: store 0 is missing: its directory or a file in it is not there\n"
	 "site 1: 3 of 4 stores in service, consistent point 3\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 4, generation 1\n"
	 "site 1: rebuild from lsn 0\n"
	 "site 1: rebuilt and in service: 0 blocks, 3 records\n"
	 "rebuild 0\n"
	 "site 1 loses power\n"
	 "disk 0 is the old one again\n"
	 "site 1 starts (life 5)\n"
	 "site 1: store 0 is out of service: casemate store rebuild brings it back\n"
	 "site 1: 3 of 4 stores in service, consistent point 3\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 4, generation 1\n"
	 "vault vault: floors 0 3 3 3, durable 3, consistent 3, 0 repaired\n"},
	{"rebuild cut short", rebuild_cut_short,
	 "writes 3 blocks from 0\n"
	 "answered\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: store 0 is missing: its directory or a file in it is not there\n"
	 "site 1: 3 of 4 stores in service, consistent point 3\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 4, generation 1\n"
	 "site 1: rebuild from lsn 0\n"
	 "it says that it is whole\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 5)\n"
	 "site 1: store 0 is out of service: casemate store rebuild brings it back\n"
	 "site 1: 3 of 4 stores in service, consistent point 3\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 4, generation 1\n"
	 "vault vault: floors 0 3 3 3, durable 3, consistent 3, 0 repaired\n"},
	{"rebuild over void spans", rebuild_over_void_spans,
	 "writes 2 blocks from 0\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "site 0 starts (life 3)\n"
	 "site 1: catch-up span opened at lsn 3, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "site 0 loses power\n"
	 "site 0 starts (life 5)\n"
	 "site 1: catch-up span opened at lsn 4, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "site 0 loses power\n"
	 "site 0 starts (life 7)\n"
	 "site 1: catch-up span opened at lsn 5, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "site 0: caught up: 16 blocks compared, 0 sent again\n"
	 "site 1: span opened at lsn 6, generation 1\n"
	 "site 0: replicating from lsn 6, generation 1\n"
	 "writes 2 blocks from 2\n"
	 "answered\n"
	 "site 1 loses power\n"
	 "store 3 is lost\n"
	 "site 1 starts (life 3)\n"
	 "site 1: store 3 is missing: its directory or a file in it is not there\n"
	 "site 1: 3 of 4 stores in service, consistent point 7\n"
	 "site 1: span opened at lsn 6, generation 1\n"
	 "site 0: replicating from lsn 8, generation 1\n"
	 "site 1: rebuild from lsn 0\n"
	 "site 1: rebuilt and in service: 0 blocks, 5 records\n"
	 "rebuild 0\n"
	 "vault vault: floors 7 7 7 7, durable 7, consistent 7, 0 repaired\n"},
	{"rebuild hides nothing", rebuild_hides_nothing,
	 "writes 2 blocks from 0\n"
	 "answered\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: store 3 is missing: its directory or a file in it is not there\n"
	 "site 1: 3 of 4 stores in service, consistent point 2\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 3, generation 1\n"
	 "writes 2 blocks from 2\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "store 0 is lost\n"
	 "store 1 is lost\n"
	 "site 1 starts (life 5)\n"
	 "site 1: store 0 is missing: its directory or a file in it is not there\n"
	 "site 1: store 1 is missing: its directory or a file in it is not there\n"
	 "site 1: lsn 3 was acknowledged, but all is here up to lsn 2 only: stores are missing, "
	 "or damaged\n"
	 "site 1: 2 of 4 stores in service, consistent point 2\n"
	 "rebuild -11\n"
	 "store 0: what was acknowledged is not proven to be on the stores that are left: "
	 "bring others back, or promote and accept the loss\n"
	 "promotion -61\n"
	 "not proven: would serve up to lsn 2, but lsn 4 may have been acknowledged; "
	 "bring stores 0,1 back, or accept the loss with --accept-loss; \n"},
	{"rebuild fills first", rebuild_fills_first,
	 "writes 6 blocks from 0\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "store 3 is lost\n"
	 "store 4 is lost\n"
	 "site 1 starts (life 3)\n"
	 "site 1: store 3 is missing: its directory or a file in it is not there\n"
	 "site 1: store 4 is missing: its directory or a file in it is not there\n"
	 "site 1: 3 of 5 stores in service, consistent point 6\n"
	 "site 1: rebuild from lsn 0\n"
	 "site 1: rebuilt and in service: 0 blocks, 6 records\n"
	 "rebuild 0\n"
	 "vault vault: floors 6 6 6 6 0, durable 0, consistent 6, 0 repaired\n"
	 "site 1: rebuild from lsn 0\n"
	 "site 1: rebuilt and in service: 0 blocks, 6 records\n"
	 "rebuild 0\n"
	 "vault vault: floors 6 6 6 6 6, durable 6, consistent 6, 0 repaired\n"},
	{"rebuild beside folds", rebuild_beside_folds,
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "site 1 loses power\n"
	 "store 3 is lost\n"
	 "site 1 starts (life 3)\n"
	 "site 1: store 3 is missing: its directory or a file in it is not there\n"
	 "site 1: 3 of 4 stores in service, consistent point 80\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 81, generation 1\n"
	 "store 3 is rebuilt; its new image is slow\n"
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "writes 16 blocks from 0\n"
	 "site 1: rebuild from lsn 49\n"
	 "site 1: rebuilt and in service: 15 blocks, 55 records\n"
	 "answered\n"
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "vault vault: floors 128 128 128 128, durable 128, consistent 128, 0 repaired\n"
	 "rebuild 0\n"
	 "vault vault: floors 128 128 128 128, durable 128, consistent 128, 0 repaired\n"},
	{"rebuild after a fold", rebuild_after_fold,
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "vault vault: floors 80 80 80 80, durable 80, consistent 80, 0 repaired\n"
	 "site 1 loses power\n"
	 "store 3 is lost\n"
	 "site 1 starts (life 3)\n"
	 "site 1: store 3 is missing: its directory or a file in it is not there\n"
	 "site 1: 3 of 4 stores in service, consistent point 80\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 81, generation 1\n"
	 "site 1: rebuild from lsn 49\n"
	 "site 1: rebuilt and in service: 16 blocks, 31 records\n"
	 "rebuild 0\n"
	 "vault vault: floors 80 80 80 80, durable 80, consistent 80, 0 repaired\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "store 0 is lost\n"
	 "site 1 starts (life 5)\n"
	 "site 1: store 0 is missing: its directory or a file in it is not there\n"
	 "site 1: 3 of 4 stores in service, consistent point 80\n"
	 "site 1: promoted: serves up to lsn 80, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 80, generation 2\n"},
	{"write hole", write_hole,
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "stores 2 and 3 are slow; all is written twice more\n"
	 "vault vault: floors 63 63 32 32, durable 32, consistent 63, 0 repaired\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "store 0 is lost\n"
	 "site 1 starts (life 3)\n"
	 "site 1: store 0 is missing: its directory or a file in it is not there\n"
	 "site 1: 3 of 4 stores in service, consistent point 32\n"
	 "site 1: promoted: serves up to lsn 32, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 32, generation 2\n"},
	/* clang-format on */
};
const struct story_set stories_rebuild = {stories, ARRAY_COUNT(stories)};
