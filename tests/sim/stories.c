/* SPDX-License-Identifier: Apache-2.0 */
/* Stories: a hand-written course of events each, in a world without chance. What was heard, in
 * order - notes of both sites, answers, points - is the assertion. */
#include "story.h"

#include <string.h>

static void wrong_key_promotes(void)
{
	struct command command = {.kind = COMMAND_PROMOTE};
	memset(command.key, 0x55, sizeof command.key);
	site_order(&world, SITE_VAULT, &command);
	world_say(&world, "promotion %d", world.command.result);
	hear(&world, world.command.text);
}

/* How many of the superblocks that would survive a power cut call this store out. */
static unsigned recorded_out(unsigned store)
{
	const struct core_group *config = &world.start[SITE_VAULT].group[0];
	unsigned count = 0;
	for (unsigned i = 0; i < geometry_n(world.options.geometry); i++) {
		const struct file *file =
			&world.site[SITE_VAULT].file[config->store[i].files.superblock];
		bool out = false;
		for (unsigned copy = 0; copy < 2; copy++) {
			struct store_group group;
			const uint8_t *at = file->durable + copy * STORE_SUPERBLOCK_BYTES;
			if (store_superblock_decode(at, &group, NULL, NULL, NULL, NULL, NULL,
						    NULL) == 0)
				out |= group.out >> store & 1;
		}
		count += out && i != store;
	}
	return count;
}

static void first_write(void)
{
	const struct options options = ordinary((struct geometry){2, 2}, 3);
	begin_heard(&options);
	writes(0, 1);
	rest();
	tell_vault();
	tell_primary();
	reads();
}

/* One of two paths is cut for a while: it is told, and the other one carries all. */
static void path_down(void)
{
	struct options options = ordinary((struct geometry){2, 1}, 2);
	options.paths = 2;
	begin_with(&options);
	writes(0, 4);
	world.path_cut[1] = true;
	rest();
	rest();
	writes(4, 4);
	world.path_cut[1] = false;
	rest();
	primary_gone();
	promotes(false);
}

static void lost_datagram(void)
{
	begin((struct geometry){2, 2}, 3);
	to_drop = 2;
	writes(0, 1);
	rest();
	tell_vault();
	tell_primary();
}

static void too_few_arrive(void)
{
	begin((struct geometry){2, 2}, 3);
	to_drop = 3;
	writes(0, 1);
	rest();
	tell_vault();
	tell_primary();
}

/* docs/semantics.md "modes": received is what has k shards, not what has begun to come. */
static void received_is_k(void)
{
	struct options options = ordinary((struct geometry){2, 2}, 3);
	options.ack = ACK_RECEIVED;
	begin_with(&options);
	writes(0, 1);
	rest();
	to_drop = 3;
	world_say(&world, "writes block 1; one shard of four comes");
	ask(OP_WRITE, 1, 1);
	world_run(&world, world.now + 4500 * NS_PER_US, NULL);
	world_say(&world, "%u wait", world.in_flight);
	answers();
	tell_primary();
}

static void vault_restarts(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 2);
	world_say(&world, "writes 4 more");
	ask(OP_WRITE, 2, 4);
	/* They are on their way, and the vault will not be there. */
	world_run(&world, world.now + 500 * NS_PER_US, NULL);
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	rest();
	start_both();
	answers();
	rest();
	tell_vault();
	tell_primary();
}

static void primary_restarts(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 8);
	rest();
	world.partitioned = true;
	world_say(&world, "cut off; writes block 2 and block 5");
	ask(OP_WRITE, 2, 1);
	ask(OP_WRITE, 5, 1);
	world_run(&world, world.now + 500 * NS_PER_MS, NULL);
	site_crash(&world, SITE_PRIMARY, CRASH_POWER);
	world.partitioned = false;
	rest();
	start_both();
	wait_until(replicating);
	tell_vault();
	tell_primary();
	reads();
}

static void store_fails(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 1);
	const struct core_group *config = &world.start[SITE_VAULT].group[0];
	world.site[SITE_VAULT].file[config->store[1].files.journal].fail_after = 1;
	writes(1, 1);
	world_say(&world, "recorded as out on %u others", recorded_out(1));
	writes(2, 3);
	rest();
	tell_vault();
}

/* docs/semantics.md "stores": recorded on the others before the next acknowledgement. Theirs are
 * slow to be written. */
static void out_recorded_first(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 1);
	world_say(&world, "store 1 will fail; the superblocks are slow; writes block 1");
	for (unsigned i = 0; i < geometry_n(world.options.geometry); i++)
		vault_file(store_files_of(i)->superblock)->stalled = world.now + 300 * NS_PER_MS;
	vault_file(store_files_of(1)->journal)->fail_after = 1;
	ask(OP_WRITE, 1, 1);
	world_run(&world, world.now + 200 * NS_PER_MS, NULL);
	tell_vault();
	world_say(&world, "recorded as out on %u others, %u wait", recorded_out(1),
		  world.in_flight);
	answers();
	world_say(&world, "recorded as out on %u others", recorded_out(1));
}

/* Three windows of writes while one disk does not answer, and some when it does again. */
static void disk_hangs(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 1);
	const struct store_files *files = &world.start[SITE_VAULT].group[0].store[1].files;
	for (unsigned i = files->superblock; i <= files->slots[0]; i++)
		world.site[SITE_VAULT].file[i].stalled = world.now + 30 * NS_PER_S;
	world_say(&world, "the disk of store 1 hangs; writes 96 blocks");
	for (unsigned i = 0; i < 6; i++)
		ask(OP_WRITE, 0, 16);
	world_run(&world, world.now + 9 * NS_PER_S, NULL);
	world_say(&world, "9 s later: %s", world.in_flight ? "some wait" : "none waits");
	answers();
	world_say(&world, "recorded as out on %u others", recorded_out(1));
	world_run(&world, world.now + 30 * NS_PER_S, NULL);
	world_say(&world, "the disk answers again");
	writes(1, 4);
	rest();
	tell_vault();
}

static void both_dark(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 6);
	site_crash(&world, SITE_PRIMARY, CRASH_POWER);
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	rest();
	start_both();
	wait_until(replicating);
	reads();
	writes(6, 2);
	tell_vault();
}

static void promotion(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 6);
	primary_gone();
	stores_lost(0, 1);
	promotes(false);
	tell_vault();
}

static void primary_lives(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 2);
	promotes(false);
	writes(2, 2);
}

/* Store 3 was away when blocks 2 and 3 were written; then the stores that have them are lost. */
static void not_proven(void)
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
	promotes(false);
	promotes(true);
}

static void wrong_key(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 2);
	primary_gone();
	wrong_key_promotes();
	promotes(false);
}

static void old_primary(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 2);
	world.partitioned = true;
	world_say(&world, "cut off");
	rest();
	promotes(false);
	world.partitioned = false;
	world_say(&world, "joined again; writes block 3");
	ask(OP_WRITE, 3, 1);
	answers();
	site_crash(&world, SITE_PRIMARY, CRASH_POWER);
	start_both();
	rest();
	tell_primary();
}

static const struct story stories[] = {
	/* clang-format off */
	{"first write", first_write,
	 "site 1 starts (life 1)\n"
	 "site 0 starts (life 1)\n"
	 "site 1: 4 of 4 stores in service, consistent point 0\n"
	 "site 0: paired with the vault's stores\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 1, generation 1\n"
	 "writes 1 blocks from 0\n"
	 "answered\n"
	 "vault vault: floors 1 1 1 1, durable 1, consistent 1, 0 repaired\n"
	 "primary replicating: lsn 1, durable 1, resent none\n"
	 "answered\n"},
	{"path down", path_down,
	 "writes 4 blocks from 0\n"
	 "answered\n"
	 "site 1: path 1 is down: the others carry all\n"
	 "site 0: path 1 is down: the others carry all\n"
	 "writes 4 blocks from 4\n"
	 "answered\n"
	 "site 1: path 1 is up again\n"
	 "site 0: path 1 is up again\n"
	 "site 0 loses power\n"
	 "site 1: promoted: serves up to lsn 8, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 8, generation 2\n"},
	{"lost datagram", lost_datagram,
	 "writes 1 blocks from 0\n"
	 "answered\n"
	 "vault vault: floors 1 1 1 1, durable 1, consistent 1, 1 repaired\n"
	 "primary replicating: lsn 1, durable 1, resent none\n"},
	{"too few arrive", too_few_arrive,
	 "writes 1 blocks from 0\n"
	 "answered\n"
	 "vault vault: floors 1 1 1 1, durable 1, consistent 1, 1 repaired\n"
	 "primary replicating: lsn 1, durable 1, resent some\n"},
	{"received is k shards", received_is_k,
	 "writes 1 blocks from 0\n"
	 "answered\n"
	 "writes block 1; one shard of four comes\n"
	 "1 wait\n"
	 "answered\n"
	 "primary replicating: lsn 2, durable 1, resent some\n"},
	{"vault restarts", vault_restarts,
	 "writes 2 blocks from 0\n"
	 "answered\n"
	 "writes 4 more\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: 4 of 4 stores in service, consistent point 2\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 7, generation 1\n"
	 "answered\n"
	 "vault vault: floors 6 6 6 6, durable 6, consistent 6, 0 repaired\n"
	 "primary replicating: lsn 6, durable 6, resent some\n"},
	{"primary restarts", primary_restarts,
	 "writes 8 blocks from 0\n"
	 "answered\n"
	 "cut off; writes block 2 and block 5\n"
	 "site 0 loses power\n"
	 "site 0 starts (life 3)\n"
	 "site 1: catch-up span opened at lsn 9, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "site 0: caught up: 16 blocks compared, 2 sent again\n"
	 "site 1: span opened at lsn 12, generation 1\n"
	 "site 0: replicating from lsn 12, generation 1\n"
	 "vault vault: floors 11 11 11 11, durable 11, consistent 11, 0 repaired\n"
	 "primary replicating: lsn 11, durable 11, resent none\n"
	 "answered\n"},
	{"store fails", store_fails,
	 "writes 1 blocks from 0\n"
	 "answered\n"
	 "writes 1 blocks from 1\n"
	 "site 1: a write or sync failed (errno 5): the store is out\n"
	 "site 1: store 1 is out (errno 5): casemate store rebuild brings it back\n"
	 "answered\n"
	 "recorded as out on 3 others\n"
	 "writes 3 blocks from 2\n"
	 "answered\n"
	 "vault vault: floors 5 0 5 5, durable 5, consistent 5, 0 repaired\n"},
	{"out is recorded first", out_recorded_first,
	 "writes 1 blocks from 0\n"
	 "answered\n"
	 "store 1 will fail; the superblocks are slow; writes block 1\n"
	 "site 1: a write or sync failed (errno 5): the store is out\n"
	 "site 1: store 1 is out (errno 5): casemate store rebuild brings it back\n"
	 "vault vault: floors 2 0 2 2, durable 2, consistent 2, 0 repaired\n"
	 "recorded as out on 0 others, 1 wait\n"
	 "answered\n"
	 "recorded as out on 3 others\n"},
	{"disk hangs", disk_hangs,
	 "writes 1 blocks from 0\n"
	 "answered\n"
	 "the disk of store 1 hangs; writes 96 blocks\n"
	 "9 s later: some wait\n"
	 "site 1: its disk has not answered for 10 s\n"
	 "site 1: store 1 is out (errno 110): casemate store rebuild brings it back\n"
	 "answered\n"
	 "recorded as out on 3 others\n"
	 "the disk answers again\n"
	 "writes 4 blocks from 1\n"
	 "answered\n"
	 "vault vault: floors 101 0 101 101, durable 101, consistent 101, 0 repaired\n"},
	{"both dark", both_dark,
	 "writes 6 blocks from 0\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "site 0 starts (life 3)\n"
	 "site 1 starts (life 3)\n"
	 "site 1: 4 of 4 stores in service, consistent point 6\n"
	 "site 1: catch-up span opened at lsn 7, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "site 0: caught up: 16 blocks compared, 0 sent again\n"
	 "site 1: span opened at lsn 8, generation 1\n"
	 "site 0: replicating from lsn 8, generation 1\n"
	 "answered\n"
	 "writes 2 blocks from 6\n"
	 "answered\n"
	 "vault vault: floors 9 9 9 9, durable 9, consistent 9, 0 repaired\n"},
	{"promotion", promotion,
	 "writes 6 blocks from 0\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "store 0 is lost\n"
	 "site 1 starts (life 3)\n"
	 "site 1: store 0 is missing: its directory or a file in it is not there\n"
	 "site 1: 3 of 4 stores in service, consistent point 6\n"
	 "site 1: promoted: serves up to lsn 6, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 6, generation 2\n"
	 "vault serving: floors 0 6 6 6, durable 6, consistent 6, 0 repaired\n"},
	{"primary lives", primary_lives,
	 "writes 2 blocks from 0\n"
	 "answered\n"
	 "promotion -16\n"
	 "the primary is alive and acknowledges: stop casemated there first (systemctl "
	 "stop casemated), or cut its link, then promote\n"
	 "writes 2 blocks from 2\n"
	 "answered\n"},
	{"not proven", not_proven,
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
	 "promotion -61\n"
	 "not proven: would serve up to lsn 2, but lsn 4 may have been acknowledged; "
	 "bring stores 0,1 back, or accept the loss with --accept-loss; \n"
	 "site 1: loss accepted: serves up to lsn 2, lsn 4 may have been acknowledged, "
	 "0 blocks are lost\n"
	 "site 1: promoted: serves up to lsn 2, generation 2\n"
	 "promotion 0\n"
	 "not proven: would serve up to lsn 2, but lsn 4 may have been acknowledged; "
	 "bring stores 0,1 back, or accept the loss with --accept-loss; "
	 "serves up to lsn 2, generation 2\n"},
	{"wrong key", wrong_key,
	 "writes 2 blocks from 0\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "promotion -129\n"
	 "the key is not the key of volume v0 (nothing is damaged): give the right key URI\n"
	 "site 1: promoted: serves up to lsn 2, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 2, generation 2\n"},
	{"old primary", old_primary,
	 "writes 2 blocks from 0\n"
	 "answered\n"
	 "cut off\n"
	 "site 1: promoted: serves up to lsn 2, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 2, generation 2\n"
	 "joined again; writes block 3\n"
	 "site 0: the vault has a newer generation: it was promoted; this site must not write\n"
	 "1 not answered\n"
	 "site 0 loses power\n"
	 "site 0 starts (life 3)\n"
	 "site 0: the vault has a newer generation: it was promoted; this site must not write\n"
	 "primary refused: lsn 0, durable 0, resent none\n"},
	/* clang-format on */
};
const struct story_set stories_course = {stories, ARRAY_COUNT(stories)};
