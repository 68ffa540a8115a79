/* SPDX-License-Identifier: Apache-2.0 */
/* Stories of crashes: what was on its way stays in the cache of a killed process, and is gone when
 * the power goes. */
#include "story.h"

#include <string.h>

static void crash(unsigned site, enum crash kind, enum fate fate)
{
	world.fate = fate;
	site_crash(&world, site, kind);
	world.fate = FATE_DRAWN;
}

static struct file *device(unsigned volume)
{
	const struct core_group *config = &world.start[SITE_PRIMARY].group[0];
	return &world.site[SITE_PRIMARY].file[config->volume[volume].device];
}

static struct options two_volumes(void)
{
	struct options options = ordinary((struct geometry){2, 2}, 3);
	options.volumes = 2;
	return options;
}

static bool catching_up(struct world *w)
{
	site_status(w, SITE_PRIMARY, &w->status);
	return strcmp(w->status.group[0].state, "catching-up") == 0;
}

/* Something is on its way to the last journal, and so to all. */
static bool storing(struct world *w)
{
	const struct core_group *config = &w->start[SITE_VAULT].group[0];
	unsigned last = geometry_n(w->options.geometry) - 1;
	const struct site *site = &w->site[SITE_VAULT];
	for (unsigned i = site->pending_oldest; i != site->pending_next; i++) {
		const struct pending *pending = &site->pending[i % PENDING_MAX];
		if (pending->open && pending->kind == IO_WRITE_DURABLE &&
		    pending->file == config->store[last].files.journal)
			return true;
	}
	return false;
}

/* Both sites were told apart: what the vault serves must be what the device holds. */
static void compares(void)
{
	client_remember_device(&world);
	primary_gone();
	promotes(false);
}

/* The page that intends v1 is in the cache when the process is killed. The next life may build on
 * it only when it is on the disk. */
static void intent_in_cache(void)
{
	struct options options = two_volumes();
	begin_with(&options);
	world_say(&world, "writes v1, and is killed while it intends to");
	ask_volume(1, OP_WRITE, 0, 1);
	/* A millisecond for the snapshot that begins a half of the log, then the page. */
	world_run(&world, world.now + 1500 * NS_PER_US, NULL);
	crash(SITE_PRIMARY, CRASH_PROCESS, FATE_WHOLE);
	start_both();
	wait_until(replicating);
	world_say(&world, "writes v1; its device is slow");
	device(1)->stalled = world.now + 5 * NS_PER_S;
	ask_volume(1, OP_WRITE, 0, 1);
	world_run(&world, world.now + 100 * NS_PER_MS, NULL);
	crash(SITE_PRIMARY, CRASH_POWER, FATE_LOST);
	device(1)->stalled = 0;
	start_both();
	wait_until(replicating);
	compares();
}

/* What a killed process wrote is compared where it is: in the cache. */
static void device_in_cache(void)
{
	begin((struct geometry){2, 2}, 3);
	world_say(&world, "writes block 3; its device is slow");
	device(0)->stalled = world.now + 5 * NS_PER_S;
	ask(OP_WRITE, 3, 1);
	world_run(&world, world.now + 100 * NS_PER_MS, NULL);
	device(0)->stalled = 0;
	crash(SITE_PRIMARY, CRASH_PROCESS, FATE_WHOLE);
	start_both();
	wait_until(replicating);
	rest();
	rest();
	crash(SITE_PRIMARY, CRASH_POWER, FATE_LOST);
	start_both();
	wait_until(replicating);
	compares();
}

/* Written, and killed before it was synced: each journal has the record in the cache. What counts
 * after the start must be there after a power cut. */
static void journal_in_cache(void)
{
	begin((struct geometry){2, 2}, 3);
	world_say(&world, "writes block 0; the vault is killed while it stores it");
	ask(OP_WRITE, 0, 1);
	wait_until(storing);
	crash(SITE_VAULT, CRASH_PROCESS, FATE_WHOLE);
	start_both();
	answers();
	crash(SITE_PRIMARY, CRASH_POWER, FATE_LOST);
	crash(SITE_VAULT, CRASH_POWER, FATE_LOST);
	site_start(&world, SITE_VAULT);
	rest();
	promotes(false);
}

/* docs/semantics.md "intents": durable before the write goes to the device or to the network. */
static void intent_first(void)
{
	const struct core_group *config = &world.start[SITE_PRIMARY].group[0];
	begin((struct geometry){2, 2}, 3);
	world_say(&world, "writes block 0; the intent log is slow");
	world.site[SITE_PRIMARY].file[config->intent_file].stalled = world.now + 300 * NS_PER_MS;
	ask(OP_WRITE, 0, 1);
	world_run(&world, world.now + 200 * NS_PER_MS, NULL);
	tell_vault();
	answers();
}

/* docs/semantics.md "modes": answered in lsn order. */
static void in_lsn_order(void)
{
	struct options options = two_volumes();
	begin_with(&options);
	rest();
	world_say(&world, "writes v0, whose device is slow, and v1; cut off");
	device(0)->stalled = world.now + 300 * NS_PER_MS;
	world.partitioned = true;
	ask_volume(0, OP_WRITE, 0, 1);
	ask_volume(1, OP_WRITE, 0, 1);
	world_run(&world, world.now + 200 * NS_PER_MS, NULL);
	world_say(&world, "%u wait", world.in_flight);
	tell_primary();
	world.partitioned = false;
	answers();
}

/* What a former life sent as lsn 3 comes when the next one has begun a span of its own there. */
static void late_datagrams(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 2);
	world_say(&world, "writes block 2; its datagrams are held up");
	ask(OP_WRITE, 2, 1);
	world_run(&world, world.now + 500 * NS_PER_US, NULL);
	world_clog(&world, SITE_VAULT);
	crash(SITE_PRIMARY, CRASH_POWER, FATE_LOST);
	start_both();
	wait_until(catching_up);
	world_say(&world, "they come");
	world_release(&world);
	wait_until(replicating);
	tell_vault();
	reads();
	compares();
}

/* All syncs of the device are asked for by a flush; one block is at both sites. */
static void begin_with_flushes(void)
{
	struct options options = ordinary((struct geometry){2, 2}, 3);
	options.sync_flush = true;
	begin_with(&options);
	writes(0, 1);
	rest();
}

/* A flush in sync: flush waits for the device, not for the vault alone. */
static void flush_waits(void)
{
	begin_with_flushes();
	world_say(&world, "writes, and flushes; syncs of the device are slow");
	ask(OP_WRITE, 1, 1);
	wait_until(none_waits);
	device(0)->stalled = world.now + 500 * NS_PER_MS;
	ask(OP_FLUSH, 0, 0);
	world_run(&world, world.now + 300 * NS_PER_MS, NULL);
	world_say(&world, "%u wait", world.in_flight);
	answers();
	crash(SITE_PRIMARY, CRASH_POWER, FATE_LOST);
}

/* A sync covers what was written before it began, not what came while it was under way. */
static void flush_while_syncing(void)
{
	begin_with_flushes();
	world_say(&world, "writes and flushes; while the device syncs writes, and flushes again");
	ask(OP_WRITE, 1, 1);
	wait_until(none_waits);
	device(0)->stalled = world.now + 300 * NS_PER_MS;
	ask(OP_FLUSH, 0, 0);
	world_run(&world, world.now + 10 * NS_PER_MS, NULL);
	device(0)->stalled = 0;
	ask(OP_WRITE, 2, 1);
	world_run(&world, world.now + 10 * NS_PER_MS, NULL);
	ask(OP_FLUSH, 0, 0);
	world_say(&world, "%u wait", world.in_flight);
	answers();
	crash(SITE_PRIMARY, CRASH_POWER, FATE_LOST);
}

/* docs/semantics.md "modes": a flush waits for whichever volume of the group. */
static void flush_of_all(void)
{
	struct options options = two_volumes();
	options.sync_flush = true;
	begin_with(&options);
	ask_volume(0, OP_WRITE, 0, 1);
	answers();
	rest();
	world_say(&world, "writes v0 and v1, and flushes v0; v1 is slow to sync");
	ask_volume(0, OP_WRITE, 1, 1);
	ask_volume(1, OP_WRITE, 1, 1);
	wait_until(none_waits);
	device(1)->stalled = world.now + 500 * NS_PER_MS;
	ask(OP_FLUSH, 0, 0);
	world_run(&world, world.now + 300 * NS_PER_MS, NULL);
	world_say(&world, "%u wait", world.in_flight);
	answers();
	crash(SITE_PRIMARY, CRASH_POWER, FATE_LOST);
}

/* docs/semantics.md "intents": open until the device was synced since. The vault has the write, and
 * the device loses it. */
static void intent_until_synced(void)
{
	begin_with_flushes();
	rest();
	world_say(&world, "writes block 0, and the device is not synced for long");
	ask(OP_WRITE, 0, 1);
	wait_until(none_waits);
	device(0)->stalled = world.now + 60 * NS_PER_S;
	rest();
	rest();
	tell_vault();
	device(0)->stalled = 0;
	crash(SITE_PRIMARY, CRASH_POWER, FATE_LOST);
	start_both();
	wait_until(replicating);
	compares();
}

static bool caught_up(struct world *w)
{
	const struct group_status *group = &w->status.group[0];
	site_status(w, SITE_PRIMARY, &w->status);
	return strcmp(group->state, "waiting") == 0 && group->span.kind == SPAN_IN_ORDER &&
	       group->span.first > 2;
}

/* docs/semantics.md "catch-up": its copies count, and its intents are settled, only once the span
 * in order is open. The vault goes just before. */
static void between_spans(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 1);
	world_say(&world, "cut off; writes block 1");
	world.partitioned = true;
	ask(OP_WRITE, 1, 1);
	world_run(&world, world.now + 500 * NS_PER_MS, NULL);
	crash(SITE_PRIMARY, CRASH_POWER, FATE_LOST);
	world.partitioned = false;
	start_both();
	wait_until(caught_up);
	crash(SITE_VAULT, CRASH_POWER, FATE_LOST);
	rest();
	rest();
	crash(SITE_PRIMARY, CRASH_POWER, FATE_LOST);
	start_both();
	wait_until(replicating);
	compares();
}

/* docs/semantics.md "the primary's device": after a write or sync that failed the group stops, what
 * waits is answered with an error, and what may differ is compared by the next life. */
static void disk_of_primary_fails(bool flush, struct file *(*disk)(void))
{
	struct options options = ordinary((struct geometry){2, 2}, 3);
	options.sync_flush = flush;
	begin_with(&options);
	writes(0, 2);
	rest();
	rest();
	world_say(&world, "its disk fails; writes block 0, and flushes");
	world.errors = true;
	disk()->fail_after = flush ? 2 : 1;
	ask(OP_WRITE, 0, 1);
	wait_until(none_waits);
	ask(OP_FLUSH, 0, 0);
	ask(OP_WRITE, 1, 1);
	answers();
	tell_primary();
	crash(SITE_PRIMARY, CRASH_POWER, FATE_LOST);
	disk()->failed = world.errors = false;
	disk()->fail_after = 0;
	start_both();
	wait_until(replicating);
	compares();
}

static struct file *first_device(void)
{
	return device(0);
}

static struct file *intent_log(void)
{
	return &world.site[SITE_PRIMARY].file[world.start[SITE_PRIMARY].group[0].intent_file];
}

static void device_write_fails(void)
{
	disk_of_primary_fails(false, first_device);
}

static void device_sync_fails(void)
{
	disk_of_primary_fails(true, first_device);
}

static void intent_log_fails(void)
{
	disk_of_primary_fails(false, intent_log);
}

static void journals_stalled(unsigned first, unsigned count, ns_t until)
{
	const struct core_group *config = &world.start[SITE_VAULT].group[0];
	for (unsigned i = first; i < first + count; i++)
		world.site[SITE_VAULT].file[config->store[i].files.journal].stalled = until;
}

/* With w = 2 two stores acknowledge. The two that are left share none with these. */
static void any_k_stores(void)
{
	begin((struct geometry){2, 2}, 2);
	world_say(&world, "stores 2 and 3 are slow");
	journals_stalled(2, 2, world.now + 5 * NS_PER_S);
	writes(0, 2);
	world.fate = FATE_LOST;
	site_crash(&world, SITE_PRIMARY, CRASH_POWER);
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	journals_stalled(2, 2, 0);
	stores_lost(0, 2);
	promotes(false);
}

static const struct story stories[] = {
	/* clang-format off */
	{"intent in the cache", intent_in_cache,
	 "writes v1, and is killed while it intends to\n"
	 "site 0 is killed\n"
	 "site 0 starts (life 3)\n"
	 "site 1: catch-up span opened at lsn 2, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "site 0: caught up: 16 blocks compared, 0 sent again\n"
	 "site 1: span opened at lsn 3, generation 1\n"
	 "site 0: replicating from lsn 3, generation 1\n"
	 "writes v1; its device is slow\n"
	 "site 0 loses power\n"
	 "site 0 starts (life 5)\n"
	 "site 1: catch-up span opened at lsn 4, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "site 0: caught up: 16 blocks compared, 1 sent again\n"
	 "site 1: span opened at lsn 6, generation 1\n"
	 "site 0: replicating from lsn 6, generation 1\n"
	 "site 0 loses power\n"
	 "site 1: promoted: serves up to lsn 5, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 5, generation 2\n"},
	{"device in the cache", device_in_cache,
	 "writes block 3; its device is slow\n"
	 "site 0 is killed\n"
	 "site 0 starts (life 3)\n"
	 "site 1: catch-up span opened at lsn 2, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "site 0: caught up: 16 blocks compared, 0 sent again\n"
	 "site 1: span opened at lsn 3, generation 1\n"
	 "site 0: replicating from lsn 3, generation 1\n"
	 "site 0 loses power\n"
	 "site 0 starts (life 5)\n"
	 "site 1: span opened at lsn 4, generation 1\n"
	 "site 0: replicating from lsn 4, generation 1\n"
	 "site 0 loses power\n"
	 "site 1: promoted: serves up to lsn 3, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 3, generation 2\n"},
	{"journal in the cache", journal_in_cache,
	 "writes block 0; the vault is killed while it stores it\n"
	 "site 1 is killed\n"
	 "site 1 starts (life 3)\n"
	 "site 1: 4 of 4 stores in service, consistent point 1\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 2, generation 1\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 5)\n"
	 "site 1: 4 of 4 stores in service, consistent point 1\n"
	 "site 1: promoted: serves up to lsn 1, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 1, generation 2\n"},
	{"intent first", intent_first,
	 "writes block 0; the intent log is slow\n"
	 "vault vault: floors 0 0 0 0, durable 0, consistent 0, 0 repaired\n"
	 "answered\n"},
	{"in lsn order", in_lsn_order,
	 "writes v0, whose device is slow, and v1; cut off\n"
	 "2 wait\n"
	 "primary replicating: lsn 2, durable 0, resent none\n"
	 "answered\n"},
	{"late datagrams", late_datagrams,
	 "writes 2 blocks from 0\n"
	 "answered\n"
	 "writes block 2; its datagrams are held up\n"
	 "site 0 loses power\n"
	 "site 0 starts (life 3)\n"
	 "site 1: catch-up span opened at lsn 3, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "they come\n"
	 "site 0: caught up: 16 blocks compared, 0 sent again\n"
	 "site 1: span opened at lsn 4, generation 1\n"
	 "site 0: replicating from lsn 4, generation 1\n"
	 "vault vault: floors 3 3 3 3, durable 3, consistent 3, 0 repaired\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "site 1: promoted: serves up to lsn 3, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 3, generation 2\n"},
	{"flush waits for the device", flush_waits,
	 "writes 1 blocks from 0\n"
	 "answered\n"
	 "writes, and flushes; syncs of the device are slow\n"
	 "1 wait\n"
	 "answered\n"
	 "site 0 loses power\n"},
	{"flush while syncing", flush_while_syncing,
	 "writes 1 blocks from 0\n"
	 "answered\n"
	 "writes and flushes; while the device syncs writes, and flushes again\n"
	 "2 wait\n"
	 "answered\n"
	 "site 0 loses power\n"},
	{"flush of all volumes", flush_of_all,
	 "answered\n"
	 "writes v0 and v1, and flushes v0; v1 is slow to sync\n"
	 "1 wait\n"
	 "answered\n"
	 "site 0 loses power\n"},
	{"intent until synced", intent_until_synced,
	 "writes 1 blocks from 0\n"
	 "answered\n"
	 "writes block 0, and the device is not synced for long\n"
	 "vault vault: floors 2 2 2 2, durable 2, consistent 2, 0 repaired\n"
	 "site 0 loses power\n"
	 "site 0 starts (life 3)\n"
	 "site 1: catch-up span opened at lsn 3, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "site 0: caught up: 16 blocks compared, 1 sent again\n"
	 "site 1: span opened at lsn 5, generation 1\n"
	 "site 0: replicating from lsn 5, generation 1\n"
	 "site 0 loses power\n"
	 "site 1: promoted: serves up to lsn 4, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 4, generation 2\n"},
	{"between spans", between_spans,
	 "writes 1 blocks from 0\n"
	 "answered\n"
	 "cut off; writes block 1\n"
	 "site 0 loses power\n"
	 "site 0 starts (life 3)\n"
	 "site 1: catch-up span opened at lsn 2, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "site 0: caught up: 16 blocks compared, 1 sent again\n"
	 "site 1 loses power\n"
	 "site 0 loses power\n"
	 "site 0 starts (life 5)\n"
	 "site 1 starts (life 3)\n"
	 "site 1: 4 of 4 stores in service, consistent point 1\n"
	 "site 1: catch-up span opened at lsn 4, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "site 0: caught up: 16 blocks compared, 1 sent again\n"
	 "site 1: span opened at lsn 6, generation 1\n"
	 "site 0: replicating from lsn 6, generation 1\n"
	 "site 0 loses power\n"
	 "site 1: promoted: serves up to lsn 5, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 5, generation 2\n"},
	{"device write fails", device_write_fails,
	 "writes 2 blocks from 0\n"
	 "answered\n"
	 "its disk fails; writes block 0, and flushes\n"
	 "error -5\n"
	 "site 0: a write to the device failed\n"
	 "site 0: stopped (errno 5): repair what failed and start again, or promote the vault\n"
	 "error -5\n"
	 "error -5\n"
	 "answered\n"
	 "primary stopped: lsn 3, durable 2, resent none\n"
	 "site 0 loses power\n"
	 "site 0 starts (life 3)\n"
	 "site 1: catch-up span opened at lsn 4, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "site 0: caught up: 16 blocks compared, 1 sent again\n"
	 "site 1: span opened at lsn 6, generation 1\n"
	 "site 0: replicating from lsn 6, generation 1\n"
	 "site 0 loses power\n"
	 "site 1: promoted: serves up to lsn 5, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 5, generation 2\n"},
	{"device sync fails", device_sync_fails,
	 "writes 2 blocks from 0\n"
	 "answered\n"
	 "its disk fails; writes block 0, and flushes\n"
	 "error -5\n"
	 "site 0: a sync of the device failed\n"
	 "site 0: stopped (errno 5): repair what failed and start again, or promote the vault\n"
	 "error -5\n"
	 "answered\n"
	 "primary stopped: lsn 4, durable 2, resent none\n"
	 "site 0 loses power\n"
	 "site 0 starts (life 3)\n"
	 "site 1: catch-up span opened at lsn 5, generation 1\n"
	 "site 0: catching up: 131072 bytes may differ and are compared\n"
	 "site 0: caught up: 16 blocks compared, 2 sent again\n"
	 "site 1: span opened at lsn 8, generation 1\n"
	 "site 0: replicating from lsn 8, generation 1\n"
	 "site 0 loses power\n"
	 "site 1: promoted: serves up to lsn 7, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 7, generation 2\n"},
	{"intent log fails", intent_log_fails,
	 "writes 2 blocks from 0\n"
	 "answered\n"
	 "its disk fails; writes block 0, and flushes\n"
	 "error -5\n"
	 "site 0: the intent log cannot be written: error 5\n"
	 "site 0: a write to the intent log failed\n"
	 "site 0: stopped (errno 5): repair what failed and start again, or promote the vault\n"
	 "error -5\n"
	 "error -5\n"
	 "answered\n"
	 "primary stopped: lsn 2, durable 2, resent none\n"
	 "site 0 loses power\n"
	 "site 0 starts (life 3)\n"
	 "site 1: span opened at lsn 3, generation 1\n"
	 "site 0: replicating from lsn 3, generation 1\n"
	 "site 0 loses power\n"
	 "site 1: promoted: serves up to lsn 2, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 2, generation 2\n"},
	{"any k stores", any_k_stores,
	 "stores 2 and 3 are slow\n"
	 "writes 2 blocks from 0\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "store 0 is lost\n"
	 "store 1 is lost\n"
	 "site 1 starts (life 3)\n"
	 "site 1: store 0 is missing: its directory or a file in it is not there\n"
	 "site 1: store 1 is missing: its directory or a file in it is not there\n"
	 "site 1: too few stores to be sure of what was acknowledged: bring the missing ones back\n"
	 "promotion -19\n"
	 "too few stores to be sure of what was acknowledged: bring the missing ones back "
	 "(missing: 0,1); \n"},
	/* clang-format on */
};
const struct story_set stories_crash = {stories, ARRAY_COUNT(stories)};
