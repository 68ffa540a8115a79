/* SPDX-License-Identifier: Apache-2.0 */
/* How stories are told, and the program that tells them: `stories` tells all, `stories NAME` tells
 * one and prints what was heard. */
#include "story.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

enum { HEARD_BYTES = 16384 };
static char heard[HEARD_BYTES];
unsigned to_drop;
struct world world;

/* ---- what is heard ---- */
void hear(struct world *w, const char *line)
{
	size_t used = strlen(heard);
	must(used + strlen(line) + 2 < sizeof heard, "a story is short");
	snprintf(heard + used, sizeof heard - used, "%s\n", line);
}

bool wait_until(bool (*done)(struct world *))
{
	world_run(&world, world.now + 10 * NS_PER_S, done);
	return done(&world);
}

void rest(void)
{
	world_run(&world, world.now + 3 * NS_PER_S, NULL);
}

/* ---- the world of a story ---- */
static bool drops(struct world *w, unsigned from, const struct cell *cell)
{
	enum { TYPE_AT = 1, TYPE_SHARD = 16 };
	if (from != SITE_PRIMARY || !to_drop || cell->datagram[TYPE_AT] != TYPE_SHARD)
		return false;
	to_drop--;
	return true;
}

bool replicating(struct world *w)
{
	site_status(w, SITE_PRIMARY, &w->status);
	return strcmp(w->status.group[0].state, "replicating") == 0;
}

struct options ordinary(struct geometry geometry, uint8_t quorum)
{
	return (struct options){.seed = 1,
				.geometry = geometry,
				.quorum = quorum,
				.ack = ACK_DURABLE,
				.volumes = 1,
				.paths = 1,
				.block_bytes = geometry.k * PAGE_BYTES,
				.blocks = 16,
				.datagram_bytes = 8972,
				.segment_bytes = 128 * 1024,
				.segments = 14,
				.delay_least = NS_PER_MS,
				.delay_most = NS_PER_MS,
				.disk_least = NS_PER_MS,
				.disk_most = NS_PER_MS,
				.aead = AEAD_OPENSSL};
}

void begin_heard(const struct options *options)
{
	heard[0] = 0;
	to_drop = 0;
	world_init(&world, options);
	world.hear = hear;
	world.drops = drops;
	site_start(&world, SITE_VAULT);
	site_start(&world, SITE_PRIMARY);
	wait_until(replicating);
}

void begin_with(const struct options *options)
{
	begin_heard(options);
	heard[0] = 0;
}

void begin(struct geometry geometry, uint8_t quorum)
{
	const struct options options = ordinary(geometry, quorum);
	begin_with(&options);
}

void start_both(void)
{
	for (unsigned i = 0; i < SITES; i++)
		if (!world.site[i].alive)
			site_start(&world, i);
}

/* ---- what the client does ---- */
struct op *ask_volume(unsigned volume, unsigned kind, uint64_t block, uint64_t blocks)
{
	uint64_t sectors = world.options.block_bytes / SECTOR_BYTES;
	struct op what = {.kind = (uint8_t)kind,
			  .volume = (uint8_t)volume,
			  .sector = block * sectors,
			  .count = blocks * sectors};
	return client_ask(&world, &what);
}

struct op *ask(unsigned kind, uint64_t block, uint64_t blocks)
{
	return ask_volume(0, kind, block, blocks);
}

bool none_waits(struct world *w)
{
	return w->in_flight == 0;
}

void answers(void)
{
	bool all = wait_until(none_waits);
	world_say(&world, all ? "answered" : "%u not answered", world.in_flight);
}

void writes(uint64_t block, uint64_t blocks)
{
	world_say(&world, "writes %llu blocks from %llu", (unsigned long long)blocks,
		  (unsigned long long)block);
	ask(OP_WRITE, block, blocks);
	answers();
}

void reads(void)
{
	ask(OP_READ, 0, world.options.blocks);
	answers();
}

void primary_gone(void)
{
	site_crash(&world, SITE_PRIMARY, CRASH_POWER);
	rest();
}

void stores_lost(unsigned first, unsigned count)
{
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	for (unsigned i = 0; i < count; i++)
		site_lose_store(&world, first + i);
	site_start(&world, SITE_VAULT);
	rest();
}

/* ---- what is looked at ---- */
void tell_vault(void)
{
	char floors[96] = "";
	site_status(&world, SITE_VAULT, &world.status);
	const struct group_status *group = &world.status.group[0];
	for (unsigned i = 0; i < geometry_n(world.options.geometry); i++)
		snprintf(floors + strlen(floors), sizeof floors - strlen(floors), " %llu",
			 (unsigned long long)group->store[i].floor);
	world_say(&world, "vault %s: floors%s, durable %llu, consistent %llu, %llu repaired",
		  group->state, floors, (unsigned long long)group->durable,
		  (unsigned long long)group->consistent, (unsigned long long)group->repaired);
}

void tell_primary(void)
{
	site_status(&world, SITE_PRIMARY, &world.status);
	const struct group_status *group = &world.status.group[0];
	world_say(&world, "primary %s: lsn %llu, durable %llu, resent %s", group->state,
		  (unsigned long long)group->lsn, (unsigned long long)group->durable,
		  group->records_resent ? "some" : "none");
}

void promotes(bool accept_loss)
{
	struct command result;
	int outcome = site_promote(&world, accept_loss, &result);
	world_say(&world, "promotion %d", outcome);
	hear(&world, result.text);
	if (outcome == 0)
		client_check_all(&world, accept_loss ? OWED_ORDER : OWED_ALL);
}

/* ---- the vault and its stores ---- */
/* A short journal, and all blocks written so often. */
void begin_short(unsigned rounds)
{
	struct options options = ordinary((struct geometry){2, 2}, 3);
	options.segments = 4;
	begin_with(&options);
	for (unsigned i = 0; i < rounds; i++)
		writes(0, 16);
}

bool folded(struct world *w)
{
	site_status(w, SITE_VAULT, &w->status);
	return w->status.group[0].fold && w->status.group[0].store[0].image_point;
}

const struct store_files *store_files_of(unsigned store)
{
	return &world.start[SITE_VAULT].group[0].store[store].files;
}

struct file *vault_file(uint16_t number)
{
	return &world.site[SITE_VAULT].file[number];
}

void vault_cut(void)
{
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	site_start(&world, SITE_VAULT);
	rest();
}

void scrubs(void)
{
	const struct command what = {.kind = COMMAND_SCRUB};
	site_order(&world, SITE_VAULT, &what);
	const unsigned long long *number = world.command.number;
	world_say(&world, "scrub %d: %llu read, %llu bad, %llu repaired, %llu lost",
		  world.command.result, number[0], number[1], number[2], number[3]);
}

struct command rebuild_prepared(unsigned index)
{
	struct command what = {.kind = COMMAND_REBUILD_PREPARE, .store = (uint8_t)index};
	site_order(&world, SITE_VAULT, &what);
	if (world.command.result < 0)
		return what;
	what.kind = COMMAND_REBUILD;
	what.incarnation = world.command.incarnation;
	site_renew_store(&world, index, &world.command.set, what.incarnation);
	what.files = world.start[SITE_VAULT].group[0].store[index].files;
	return what;
}

void rebuilds(unsigned index)
{
	struct command what = rebuild_prepared(index);
	if (world.command.result == 0)
		site_order(&world, SITE_VAULT, &what);
	world_say(&world, "rebuild %d", world.command.result);
	if (world.command.result < 0)
		hear(&world, world.command.text);
}

/* ---- telling ---- */
static bool told(const struct story *story, bool print)
{
	story->tell();
	if (world.failed)
		hear(&world, world.failure);
	bool same = strcmp(heard, story->expected) == 0;
	printf("%s  %s\n", same ? "ok    " : "FAILED", story->name);
	if (print || !same)
		printf("%s", heard);
	if (!same)
		printf("expected was:\n%s", story->expected);
	world_fini(&world);
	memset(&world, 0, sizeof world);
	return same;
}

int main(int argc, char **argv)
{
	static const struct story_set *const sets[] = {
		&stories_course, &stories_crash, &stories_store, &stories_rebuild, &stories_away};
	unsigned passed = 0, failed = 0;
	for (unsigned i = 0; i < ARRAY_COUNT(sets); i++)
		for (unsigned j = 0; j < sets[i]->count; j++) {
			const struct story *story = &sets[i]->story[j];
			if (argc > 1 && strcmp(argv[1], story->name) != 0)
				continue;
			if (told(story, argc > 1))
				passed++;
			else
				failed++;
		}
	printf("%u passed, %u failed, 0 skipped\n", passed, failed);
	return failed || !passed;
}
