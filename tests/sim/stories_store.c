/* SPDX-License-Identifier: Apache-2.0 */
/* Stories of stores that are damaged, scrubbed, or in a wrong place. Damage is put where
 * docs/store-format.md says that things are. */
#include "story.h"

#include "core/crc.h"
#include "core/format.h"

#include <string.h>

/* ---- damage ---- */
enum { RECORD_BLOCK = offsetof(struct disk_record, block) };

/* Where the journal of the store has the batch with this lsn, and the record in it. */
static uint64_t batch_of(unsigned store, lsn_t lsn, uint64_t *record_at)
{
	const struct file *journal = vault_file(store_files_of(store)->journal);
	for (uint64_t at = 0; at < journal->size; at += PAGE_BYTES) {
		const struct disk_batch *batch = (const void *)(journal->durable + at);
		if (batch->magic != BATCH_MAGIC)
			continue;
		for (unsigned i = 0; i < batch->record_count; i++) {
			*record_at = at + BATCH_HEADER_BYTES + i * RECORD_HEADER_BYTES;
			const void *record = journal->durable + *record_at;
			if (((const struct disk_record *)record)->lsn == lsn)
				return at;
		}
	}
	must(false, "the journal has the record");
	return 0;
}

static void header_rots(unsigned store, lsn_t lsn)
{
	uint64_t record;
	world_say(&world, "store %u: the headers of lsn %llu rot", store, (unsigned long long)lsn);
	disk_rot(vault_file(store_files_of(store)->journal), batch_of(store, lsn, &record) + 80, 1);
}

/* Its record says that it is of block 8 more. */
static void record_strays(unsigned store, lsn_t lsn)
{
	uint64_t record;
	batch_of(store, lsn, &record);
	world_say(&world, "store %u: the record of lsn %llu rots", store, (unsigned long long)lsn);
	disk_rot(vault_file(store_files_of(store)->journal), record + RECORD_BLOCK, 8);
}

/* The shard is another one, and all sums over it are right. */
static void shard_forged(unsigned store, lsn_t lsn)
{
	struct file *journal = vault_file(store_files_of(store)->journal);
	uint64_t at, segment;
	batch_of(store, lsn, &at);
	segment = align_down(at, world.options.segment_bytes);
	uint8_t *images[] = {journal->cached, journal->durable};
	world_say(&world, "store %u: the shard of lsn %llu lies", store, (unsigned long long)lsn);
	for (unsigned i = 0; i < 2; i++) {
		struct disk_record *record = (void *)(images[i] + at);
		uint8_t *shard = images[i] + segment + record->payload_page * (uint64_t)PAGE_BYTES;
		shard[99] ^= 1;
		record->shard_crc = crc32c(shard, record->shard_bytes);
		record->crc = crc32c(record, offsetof(struct disk_record, crc));
	}
}

static void slots_rot(unsigned store, unsigned copy)
{
	disk_rot(vault_file(store_files_of(store)->slots[0]), copy * PAGE_BYTES + 100, 1);
}

static unsigned slots_newer(unsigned store)
{
	const uint8_t *copies = vault_file(store_files_of(store)->slots[0])->durable;
	const struct disk_slot_page *first = (const void *)copies;
	const struct disk_slot_page *second = (const void *)(copies + PAGE_BYTES);
	return second->sequence > first->sequence;
}

/* The newer copy says that the image holds everything. */
static void superblock_rots(unsigned store)
{
	struct file *superblock = vault_file(store_files_of(store)->superblock);
	const struct disk_superblock *first = (const void *)superblock->durable;
	const void *other = superblock->durable + STORE_SUPERBLOCK_BYTES;
	uint64_t at = offsetof(struct disk_superblock, image_point) + 2;
	if (((const struct disk_superblock *)other)->sequence > first->sequence)
		at += STORE_SUPERBLOCK_BYTES;
	world_say(&world, "store %u: its newer superblock rots", store);
	disk_rot(superblock, at, 1);
}

static void tell_damage(void)
{
	site_status(&world, SITE_VAULT, &world.status);
	char damage[96] = "";
	for (unsigned i = 0; i < geometry_n(world.options.geometry); i++)
		snprintf(damage + strlen(damage), sizeof damage - strlen(damage), " %llu",
			 (unsigned long long)world.status.group[0].store[i].damage);
	world_say(&world, "damage:%s", damage);
}

/* ---- the stories ---- */
/* docs/store-format.md "recovery": what is bad below the mark is damage. All else is held, and what
 * is missing comes from the peers. A torn tail would have ended three of these journals. */
static void damage_below_the_mark(void)
{
	begin((struct geometry){2, 2}, 3);
	for (unsigned i = 0; i < 6; i++)
		ask(OP_WRITE, i, 1), answers();
	primary_gone();
	header_rots(0, 2);
	header_rots(1, 4);
	header_rots(2, 3);
	vault_cut();
	tell_damage();
	tell_vault();
	promotes(false);
}

/* A record that does not check is not there: it says nothing of the block that it names. */
static void stray_record(void)
{
	begin((struct geometry){2, 2}, 3);
	for (unsigned i = 0; i < 6; i++)
		ask(OP_WRITE, i, 1), answers();
	primary_gone();
	record_strays(0, 2);
	vault_cut();
	tell_damage();
	promotes(false);
}

/* The third write gets lost, the fourth is on all stores. Slot pages that rot have lowered no
 * floor: nothing was acknowledged beyond lsn 2, and that is proven. */
static void damaged_slots_prove(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 2);
	to_drop = 1000;
	world_say(&world, "write 3 gets lost, write 4 does not");
	ask(OP_WRITE, 2, 1);
	world_run(&world, world.now + 100 * NS_PER_US, NULL);
	to_drop = 0;
	ask(OP_WRITE, 3, 1);
	world_run(&world, world.now + 2500 * NS_PER_US, NULL);
	world.partitioned = true;
	world_run(&world, world.now + 50 * NS_PER_MS, NULL);
	primary_gone();
	for (unsigned i = 0; i < 3; i++)
		slots_rot(i, 1);
	vault_cut();
	tell_damage();
	promotes(false);
}

/* docs/semantics.md "scrub": a shard that lies though its CRC is right is found among others; one
 * of parity too. */
static void lying_shards(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 3);
	rest();
	shard_forged(0, 1);
	shard_forged(3, 2);
	vault_cut();
	scrubs();
	scrubs();
}

static void swapped_disks(void)
{
	struct core_group *group = &world.start[SITE_VAULT].group[0];
	begin((struct geometry){2, 3}, 3);
	writes(0, 3);
	primary_gone();
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	const struct store_files other = group->store[1].files;
	group->store[1].files = group->store[2].files;
	group->store[2].files = other;
	world_say(&world, "disks 1 and 2 change places");
	site_start(&world, SITE_VAULT);
	rest();
	tell_vault();
	promotes(false);
}

/* docs/store-format.md "superblock": the copy before it holds. */
static void bad_superblock(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 3);
	primary_gone();
	superblock_rots(0);
	vault_cut();
	tell_vault();
	promotes(false);
}

static void folds_past(lsn_t lsn)
{
	for (unsigned i = 0; i < 20; i++) {
		site_status(&world, SITE_VAULT, &world.status);
		if (world.status.group[0].store[0].image_point >= lsn)
			return;
		writes(0, 8);
		rest();
	}
}

/* Two folds, and the newer headers of store 0 rot: it names versions that are no more. */
static void stale_headers(void)
{
	begin_short(5);
	wait_until(folded);
	rest();
	writes(8, 8);
	folds_past(88);
	world_say(&world, "store 0: its newer slot page rots");
	slots_rot(0, slots_newer(0));
	primary_gone();
	vault_cut();
	tell_damage();
	promotes(false);
	scrubs();
	scrubs();
}

/* The only store. Its newer headers rot: what they said is lost, and not what was before it. */
static void headers_of_the_only_store(void)
{
	struct options options = ordinary((struct geometry){1, 0}, 1);
	options.segments = 4;
	begin_with(&options);
	for (unsigned i = 0; i < 7; i++)
		writes(0, i ? 8 : 16);
	wait_until(folded);
	rest();
	primary_gone();
	world_say(&world, "store 0: its newer slot page rots");
	slots_rot(0, slots_newer(0));
	vault_cut();
	tell_damage();
	promotes(false);
}

/* Two stores have acknowledged, two are behind. Of one journal a segment in the middle is
 * overwritten: that store does not know what it held, but that there was more. */
static void segment_overwritten(void)
{
	enum { SEGMENT = 3 };
	struct options options = ordinary((struct geometry){2, 2}, 2);
	options.segment_bytes = 32 * 1024;
	begin_with(&options);
	writes(0, 16);
	rest();
	for (unsigned i = 2; i < 4; i++)
		vault_file(store_files_of(i)->journal)->stalled = world.now + 5 * NS_PER_S;
	writes(0, 16);
	world.fate = FATE_LOST;
	site_crash(&world, SITE_PRIMARY, CRASH_POWER);
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	struct file *journal = vault_file(store_files_of(0)->journal);
	memset(journal->durable + SEGMENT * options.segment_bytes, 0, options.segment_bytes);
	memset(journal->cached + SEGMENT * options.segment_bytes, 0, options.segment_bytes);
	world_say(&world, "store 0: zeros over segment %u", SEGMENT);
	site_start(&world, SITE_VAULT);
	world_run(&world, world.now + 6 * NS_PER_S, NULL);
	tell_damage();
	tell_vault();
	promotes(false);
}

static void told_lost(unsigned index)
{
	const struct command what = {.kind = COMMAND_STORE_LOST, .store = (uint8_t)index};
	site_order(&world, SITE_VAULT, &what);
	world_say(&world, "store %u: its files are gone: told, %d", index, world.command.result);
}

/* docs/semantics.md "open file descriptors are no store": whoever is told too early is told again.
 */
static void gone_while_opening(void)
{
	begin((struct geometry){2, 2}, 3);
	writes(0, 2);
	site_crash(&world, SITE_VAULT, CRASH_POWER);
	vault_file(store_files_of(0)->journal)->stalled = world.now + 500 * NS_PER_MS;
	site_start(&world, SITE_VAULT);
	world_run(&world, world.now + 300 * NS_PER_MS, NULL);
	told_lost(3);
	rest();
	told_lost(3);
	tell_vault();
}

static const struct story stories[] = {
	/* clang-format off */
	{"damage below the mark", damage_below_the_mark,
	 "answered\n"
	 "answered\n"
	 "answered\n"
	 "answered\n"
	 "answered\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "store 0: the headers of lsn 2 rot\n"
	 "store 1: the headers of lsn 4 rot\n"
	 "store 2: the headers of lsn 3 rot\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: opened with damage in 1 places\n"
	 "site 1: opened with damage in 1 places\n"
	 "site 1: opened with damage in 1 places\n"
	 "site 1: 4 of 4 stores in service, consistent point 6\n"
	 "damage: 1 1 1 0\n"
	 "vault vault: floors 6 6 6 6, durable 6, consistent 6, 0 repaired\n"
	 "site 1: promoted: serves up to lsn 6, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 6, generation 2\n"},
	{"stray record", stray_record,
	 "answered\n"
	 "answered\n"
	 "answered\n"
	 "answered\n"
	 "answered\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "store 0: the record of lsn 2 rots\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: opened with damage in 1 places\n"
	 "site 1: 4 of 4 stores in service, consistent point 6\n"
	 "damage: 1 0 0 0\n"
	 "site 1: promoted: serves up to lsn 6, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 6, generation 2\n"},
	{"damaged slots prove", damaged_slots_prove,
	 "writes 2 blocks from 0\n"
	 "answered\n"
	 "write 3 gets lost, write 4 does not\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: opened with damage in 1 places\n"
	 "site 1: opened with damage in 1 places\n"
	 "site 1: opened with damage in 1 places\n"
	 "site 1: 4 of 4 stores in service, consistent point 2\n"
	 "damage: 1 1 1 0\n"
	 "site 1: promoted: serves up to lsn 2, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 2, generation 2\n"},
	{"lying shards", lying_shards,
	 "writes 3 blocks from 0\n"
	 "answered\n"
	 "store 0: the shard of lsn 1 lies\n"
	 "store 3: the shard of lsn 2 lies\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: 4 of 4 stores in service, consistent point 3\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 4, generation 1\n"
	 "site 1: scrub: 12 shards read, 2 bad or missing, 2 repaired\n"
	 "scrub 0: 12 read, 2 bad, 2 repaired, 0 lost\n"
	 "site 1: scrub: 12 shards read, 0 bad or missing, 0 repaired\n"
	 "scrub 0: 12 read, 0 bad, 0 repaired, 0 lost\n"},
	{"swapped disks", swapped_disks,
	 "writes 3 blocks from 0\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "disks 1 and 2 change places\n"
	 "site 1 starts (life 3)\n"
	 "site 1: store 1: its directory holds another store: check the order of stores\n"
	 "site 1: store 2: its directory holds another store: check the order of stores\n"
	 "site 1: 3 of 5 stores in service, consistent point 3\n"
	 "vault vault: floors 3 0 0 3 3, durable 3, consistent 3, 0 repaired\n"
	 "site 1: promoted: serves up to lsn 3, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 3, generation 2\n"},
	{"gone while opening", gone_while_opening,
	 "writes 2 blocks from 0\n"
	 "answered\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "store 3: its files are gone: told, -11\n"
	 "site 1: 4 of 4 stores in service, consistent point 2\n"
	 "site 1: span opened at lsn 1, generation 1\n"
	 "site 0: replicating from lsn 3, generation 1\n"
	 "site 1: store 3 is out (errno 2): casemate store rebuild brings it back\n"
	 "store 3: its files are gone: told, 0\n"
	 "vault vault: floors 2 2 2 0, durable 2, consistent 2, 0 repaired\n"},
	{"bad superblock", bad_superblock,
	 "writes 3 blocks from 0\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "store 0: its newer superblock rots\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: 4 of 4 stores in service, consistent point 3\n"
	 "vault vault: floors 3 3 3 3, durable 3, consistent 3, 0 repaired\n"
	 "site 1: promoted: serves up to lsn 3, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 3, generation 2\n"},
	{"stale headers", stale_headers,
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
	 "writes 8 blocks from 8\n"
	 "answered\n"
	 "writes 8 blocks from 0\n"
	 "answered\n"
	 "writes 8 blocks from 0\n"
	 "answered\n"
	 "writes 8 blocks from 0\n"
	 "answered\n"
	 "store 0: its newer slot page rots\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: opened with damage in 1 places\n"
	 "site 1: 4 of 4 stores in service, consistent point 112\n"
	 "damage: 1 0 0 0\n"
	 "site 1: promoted: serves up to lsn 112, generation 2\n"
	 "promotion 0\n"
	 "serves up to lsn 112, generation 2\n"
	 "site 1: scrub: 55 shards read, 9 bad or missing, 9 repaired\n"
	 "scrub 0: 55 read, 9 bad, 9 repaired, 0 lost\n"
	 "site 1: scrub: 64 shards read, 0 bad or missing, 0 repaired\n"
	 "scrub 0: 64 read, 0 bad, 0 repaired, 0 lost\n"},
	{"headers of the only store", headers_of_the_only_store,
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "writes 8 blocks from 0\n"
	 "answered\n"
	 "writes 8 blocks from 0\n"
	 "answered\n"
	 "writes 8 blocks from 0\n"
	 "answered\n"
	 "writes 8 blocks from 0\n"
	 "answered\n"
	 "writes 8 blocks from 0\n"
	 "answered\n"
	 "writes 8 blocks from 0\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "store 0: its newer slot page rots\n"
	 "site 1 loses power\n"
	 "site 1 starts (life 3)\n"
	 "site 1: opened with damage in 1 places\n"
	 "site 1: 1 of 1 stores in service, consistent point 64\n"
	 "damage: 1\n"
	 "promotion -61\n"
	 "8 blocks lost: v0 blocks 8-15\n"},
	{"segment overwritten", segment_overwritten,
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "writes 16 blocks from 0\n"
	 "answered\n"
	 "site 0 loses power\n"
	 "site 1 loses power\n"
	 "store 0: zeros over segment 3\n"
	 "site 1 starts (life 3)\n"
	 "site 1: opened with damage in 1 places\n"
	 "site 1: lsn 25 was acknowledged, but all is here up to lsn 18 only: stores are missing, "
	 "or damaged\n"
	 "site 1: 4 of 4 stores in service, consistent point 18\n"
	 "damage: 1 0 0 0\n"
	 "vault vault: floors 18 32 18 18, durable 18, consistent 18, 0 repaired\n"
	 "promotion -61\n"
	 "not proven: would serve up to lsn 18, but lsn 32 may have been acknowledged; "
	 "accept the loss with --accept-loss; \n"},
	/* clang-format on */
};
const struct story_set stories_store = {stories, ARRAY_COUNT(stories)};
