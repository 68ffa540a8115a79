/* SPDX-License-Identifier: Apache-2.0 */
/* Where the disks of the vault may be damaged: the atlas. Of no block are more than w - k pieces
 * damaged or on a store that is lost or lies, so all that was promised stays owed. Whoever wants
 * more than that sets world.beyond: then a refusal is right, and wrong data never is.
 *
 * The layout is that of docs/store-format.md; nothing is asked of the product. */
#include "faults.h"

#include "core/crc.h"
#include "core/format.h"

#include <stdlib.h>
#include <string.h>

enum { NO_BLOCK = 0xff, BATCHES_SEEN_MAX = 1024, TRIES = 4 };

/* ---- the budget ---- */
static unsigned spare(const struct world *w)
{
	return w->options.quorum - w->options.geometry.k;
}

/* Stores that are as good as lost. A damaged header of a journal may have named any lsn, so a proof
 * counts that store as one that may have held more than it has: it is spent until that is folded.
 */
static uint32_t spent(const struct world *w)
{
	uint32_t mask = 0;
	for (unsigned i = 0; i < SHARDS_MAX; i++)
		mask |= (uint32_t)w->store_spent[i] << i;
	for (unsigned i = 0; i < w->wound_count; i++)
		if (w->wound[i].kind == WOUND_HEADER)
			mask |= 1u << w->wound[i].store;
	return mask;
}

/* The stores that have no good piece of this block. */
static uint32_t without(const struct world *w, unsigned volume, uint64_t block)
{
	uint32_t mask = spent(w);
	for (unsigned i = 0; i < w->wound_count; i++) {
		const struct wound *wound = &w->wound[i];
		if (wound->volume == volume && wound->block == block)
			mask |= 1u << wound->store;
	}
	return mask;
}

static bool within(const struct world *w, uint32_t mask)
{
	return (unsigned)__builtin_popcount(mask) <= spare(w);
}

static bool block_allows(const struct world *w, unsigned store, unsigned volume, uint64_t block)
{
	return !w->store_spent[store] && within(w, without(w, volume, block) | 1u << store);
}

bool store_may_go(const struct world *w, unsigned index)
{
	if (w->store_spent[index] || !within(w, spent(w) | 1u << index))
		return false;
	for (unsigned i = 0; i < w->wound_count; i++)
		if (!within(w, without(w, w->wound[i].volume, w->wound[i].block) | 1u << index))
			return false;
	return true;
}

unsigned stores_good(const struct world *w)
{
	return geometry_n(w->options.geometry) - (unsigned)__builtin_popcount(spent(w));
}

bool store_spend(struct world *w, unsigned index)
{
	/* Writes need w stores, unless somebody rebuilds what is lost. */
	bool goes_on = stores_good(w) > w->options.quorum || fault_on(w, FAULT_REBUILD);
	if (!goes_on || !store_may_go(w, index))
		return false;
	w->store_spent[index] = true;
	w->stores_lost++;
	return true;
}

bool store_has_bad_headers(const struct world *w, unsigned index)
{
	for (unsigned i = 0; i < w->wound_count; i++)
		if (w->wound[i].kind == WOUND_HEADER && w->wound[i].store == index)
			return true;
	return false;
}

/* The same place may be hurt again. */
static void wound_add(struct world *w, const struct wound *what)
{
	struct wound *wound = w->wound;
	while (wound < w->wound + w->wound_count &&
	       (wound->kind != what->kind || wound->store != what->store ||
		wound->volume != what->volume || wound->block != what->block ||
		wound->lsn != what->lsn))
		wound++;
	must(wound < w->wound + WOUNDS_MAX, "wounds are counted");
	w->wound_count = (unsigned)max_u64(w->wound_count, (uint64_t)(wound - w->wound) + 1);
	*wound = *what;
	wound->disk = w->start[SITE_VAULT].group[0].store[what->store].files.superblock;
	wound->life = w->site[SITE_VAULT].life;
}

/* ---- what is at hand on a store's disk ---- */
static const struct store_files *files_of(const struct world *w, unsigned store)
{
	return &w->start[SITE_VAULT].group[0].store[store].files;
}

static struct file *file_at(struct world *w, uint16_t number)
{
	return &w->site[SITE_VAULT].file[number];
}

static const struct disk_superblock *superblock_newest(struct world *w, unsigned store)
{
	const uint8_t *copies = file_at(w, files_of(w, store)->superblock)->durable;
	const struct disk_superblock *copy = (const void *)copies;
	const struct disk_superblock *other = (const void *)(copies + STORE_SUPERBLOCK_BYTES);
	return other->sequence > copy->sequence ? other : copy;
}

static uint64_t blocks_of(const struct world *w)
{
	return w->options.blocks;
}

static uint64_t shard_bytes(const struct world *w)
{
	return w->options.block_bytes / w->options.geometry.k;
}

void store_renewed(struct world *w, unsigned index)
{
	unsigned count = 0;
	w->store_spent[index] = w->store_liar[index] = false;
	/* What was damaged on its old disk is of no matter any more. */
	for (unsigned i = 0; i < w->wound_count; i++)
		if (w->wound[i].store != index ||
		    w->wound[i].disk == files_of(w, index)->superblock)
			w->wound[count++] = w->wound[i];
	w->wound_count = count;
}

/* ---- making one ---- */
/* Other bits in a byte, or a page that cannot be read. */
static void hurt(struct world *w, uint16_t number, uint64_t offset, uint64_t length)
{
	struct file *file = file_at(w, number);
	uint64_t at = offset + chance_below(&w->chance, length);
	if (fault_on(w, FAULT_UNREADABLE) && chance_permille(&w->chance, 400))
		disk_spoil(file, align_down(at, PAGE_BYTES));
	else
		disk_rot(file, at, (uint8_t)(1 + chance_below(&w->chance, 255)));
	w->wounds++;
}

static void wound_image(struct world *w, unsigned store)
{
	unsigned volume = (unsigned)chance_below(&w->chance, w->options.volumes);
	uint64_t block = chance_below(&w->chance, blocks_of(w));
	if (!block_allows(w, store, volume, block))
		return;
	wound_add(w, &(struct wound){.kind = WOUND_IMAGE,
				     .store = (uint8_t)store,
				     .volume = (uint8_t)volume,
				     .block = block});
	world_say(w, "damage: store %u, image, v%u block %llu", store, volume,
		  (unsigned long long)block);
	hurt(w, files_of(w, store)->image[volume], block * shard_bytes(w), shard_bytes(w));
}

static struct disk_slot_page *slot_page(struct world *w, unsigned store, unsigned volume,
					uint64_t page, unsigned copy, bool durable)
{
	struct file *file = file_at(w, files_of(w, store)->slots[volume]);
	return (void *)((durable ? file->durable : file->cached) + (2 * page + copy) * PAGE_BYTES);
}

static unsigned slot_newest(struct world *w, unsigned store, unsigned volume, uint64_t page)
{
	return slot_page(w, store, volume, page, 1, true)->sequence >
	       slot_page(w, store, volume, page, 0, true)->sequence;
}

static uint32_t slot_page_sum(const struct disk_slot_page *page)
{
	uint32_t crc = crc32c(page, offsetof(struct disk_slot_page, crc));
	return crc32c_more(crc, page->slot, sizeof page->slot);
}

static bool forged_already(const struct world *w, unsigned volume, uint64_t block)
{
	for (unsigned i = 0; i < w->wound_count; i++)
		if (w->wound[i].forged && w->wound[i].volume == volume &&
		    w->wound[i].block == block)
			return true;
	return false;
}

/* As if the shard had been wrong before its CRC was made. One per block: docs/semantics.md "scrub"
 * finds a shard that lies among others that do not. */
static void wound_forge(struct world *w, unsigned store)
{
	unsigned volume = (unsigned)chance_below(&w->chance, w->options.volumes);
	uint64_t block = chance_below(&w->chance, blocks_of(w)), page = block / SLOTS_PER_PAGE;
	unsigned copy = slot_newest(w, store, volume, page);
	const struct disk_slot_page *now = slot_page(w, store, volume, page, copy, true);
	const struct disk_slot_page *cached = slot_page(w, store, volume, page, copy, false);
	const struct disk_slot *slot = &now->slot[block % SLOTS_PER_PAGE];
	bool good = now->crc == slot_page_sum(now) && memcmp(now, cached, sizeof *now) == 0;
	struct file *image = file_at(w, files_of(w, store)->image[volume]);
	if (!good || slot->kind != RECORD_DATA || forged_already(w, volume, block) ||
	    !block_allows(w, store, volume, block))
		return;
	wound_add(w, &(struct wound){.kind = WOUND_IMAGE,
				     .store = (uint8_t)store,
				     .volume = (uint8_t)volume,
				     .block = block,
				     .forged = true});
	world_say(w, "damage: store %u, forged shard, v%u block %llu", store, volume,
		  (unsigned long long)block);
	uint64_t at = block * shard_bytes(w);
	disk_rot(image, at + chance_below(&w->chance, shard_bytes(w)), 1);
	for (unsigned durable = 0; durable < 2; durable++) {
		struct disk_slot_page *bytes = slot_page(w, store, volume, page, copy, durable);
		bytes->slot[block % SLOTS_PER_PAGE].shard_crc =
			crc32c((durable ? image->durable : image->cached) + at, shard_bytes(w));
		bytes->crc = slot_page_sum(bytes);
	}
	w->wounds++;
}

static void wound_slots(struct world *w, unsigned store)
{
	unsigned volume = (unsigned)chance_below(&w->chance, w->options.volumes);
	uint64_t page = chance_below(&w->chance, div_up(blocks_of(w), SLOTS_PER_PAGE));
	uint64_t first = page * SLOTS_PER_PAGE;
	uint64_t end = min_u64(first + SLOTS_PER_PAGE, blocks_of(w));
	unsigned newest = slot_newest(w, store, volume, page),
		 which = (unsigned)chance_below(&w->chance, 3);
	for (uint64_t block = first; block < end; block++)
		if (!block_allows(w, store, volume, block))
			return;
	for (uint64_t block = first; block < end; block++)
		wound_add(w, &(struct wound){.kind = WOUND_SLOTS,
					     .store = (uint8_t)store,
					     .volume = (uint8_t)volume,
					     .block = block});
	static const char *const words[] = {"newer copy", "older copy", "both copies"};
	world_say(w, "damage: store %u, slots of v%u, page %llu, %s", store, volume,
		  (unsigned long long)page, words[which]);
	for (unsigned copy = 0; copy < 2; copy++)
		if (which == 2 || (copy == newest) == (which == 0))
			hurt(w, files_of(w, store)->slots[volume], (2 * page + copy) * PAGE_BYTES,
			     PAGE_BYTES);
}

/* With one copy a store may know less than it did; with none it is no store. */
static void wound_superblock(struct world *w, unsigned store)
{
	if (!store_spend(w, store))
		return;
	w->store_liar[store] = true;
	unsigned which = (unsigned)chance_below(&w->chance, 3);
	world_say(w, "damage: store %u, superblock, copies %u", store, which);
	for (unsigned copy = 0; copy < 2; copy++)
		if (which == copy || which == 2)
			hurt(w, files_of(w, store)->superblock, copy * STORE_SUPERBLOCK_BYTES,
			     STORE_SUPERBLOCK_BYTES);
}

/* ---- the journal ---- */
struct batches {
	const struct disk_batch *batch[BATCHES_SEEN_MAX];
	unsigned count;
};

static const struct disk_record *record_at(const struct disk_batch *batch, unsigned i)
{
	return (const struct disk_record *)(batch + 1) + i;
}

static bool batch_good(const struct disk_batch *batch, uint64_t segment, uint64_t offset)
{
	if (batch->magic != BATCH_MAGIC || batch->segment != segment || batch->offset != offset ||
	    batch->crc != crc32c(batch, offsetof(struct disk_batch, crc)))
		return false;
	for (unsigned i = 0; i < batch->record_count; i++) {
		const struct disk_record *record = record_at(batch, i);
		if (record->crc != crc32c(record, offsetof(struct disk_record, crc)))
			return false; /* damaged before */
	}
	return true;
}

/* The batches of the newest epoch of one segment. */
static void segment_batches(const struct world *w, const uint8_t *journal, unsigned segment,
			    struct batches *seen)
{
	uint64_t bytes = w->options.segment_bytes, epoch = 0;
	const uint8_t *from = journal + segment * bytes;
	unsigned first = seen->count, kept = first;
	for (uint64_t at = 0; at < bytes && seen->count < BATCHES_SEEN_MAX; at += PAGE_BYTES) {
		const struct disk_batch *batch = (const void *)(from + at);
		if (!batch_good(batch, segment, at))
			continue;
		epoch = max_u64(epoch, batch->epoch);
		seen->batch[seen->count++] = batch;
	}
	for (unsigned i = first; i < seen->count; i++)
		if (seen->batch[i]->epoch == epoch)
			seen->batch[kept++] = seen->batch[i];
	seen->count = kept;
}

static const uint8_t *journal_batches(struct world *w, unsigned store, struct batches *seen)
{
	const uint8_t *journal = file_at(w, files_of(w, store)->journal)->durable;
	seen->count = 0;
	for (unsigned i = 0; i < w->options.segments; i++)
		segment_batches(w, journal, i, seen);
	return journal;
}

/* docs/store-format.md "synced mark". */
static uint64_t mark_of(const struct batches *seen, uint64_t start)
{
	uint64_t mark = 0;
	for (unsigned i = 0; i < seen->count; i++)
		if (seen->batch[i]->start_sequence == start)
			mark = max_u64(mark, seen->batch[i]->synced);
	return mark;
}

static void record_place(const struct disk_record *record, unsigned *volume, uint64_t *block)
{
	bool none = record->volume_index == NO_VOLUME;
	*volume = none ? NO_BLOCK : record->volume_index;
	*block = none ? record->lsn : record->block;
}

/* What was promised, and is not in the image yet. Above the synced mark a store that finds bad
 * records cannot know that they were good once: such a disk would be a liar. */
static bool batch_counts(struct world *w, const struct batches *seen,
			 const struct disk_batch *batch, unsigned store)
{
	lsn_t most = 0;
	if (batch->sequence > mark_of(seen, batch->start_sequence))
		return false;
	for (unsigned i = 0; i < batch->record_count; i++)
		most = max_u64(most, record_at(batch, i)->lsn);
	return most <= w->promised && most > superblock_newest(w, store)->image_point;
}

static bool record_allows(const struct world *w, unsigned store, const struct disk_record *record)
{
	unsigned volume;
	uint64_t block;
	record_place(record, &volume, &block);
	return block_allows(w, store, volume, block);
}

static void record_wound(struct world *w, enum wound_kind kind, unsigned store,
			 const struct disk_record *record)
{
	unsigned volume;
	struct wound wound = {.kind = (uint8_t)kind, .store = (uint8_t)store, .lsn = record->lsn};
	record_place(record, &volume, &wound.block);
	wound.volume = (uint8_t)volume;
	wound_add(w, &wound);
}

static void wound_headers(struct world *w, unsigned store, const struct disk_batch *batch,
			  uint64_t at)
{
	for (unsigned i = 0; i < batch->record_count; i++)
		if (!record_allows(w, store, record_at(batch, i)))
			return;
	for (unsigned i = 0; i < batch->record_count; i++)
		record_wound(w, WOUND_HEADER, store, record_at(batch, i));
	world_say(w, "damage: store %u, headers of batch %llu, lsn %llu and %u more", store,
		  (unsigned long long)batch->sequence, (unsigned long long)record_at(batch, 0)->lsn,
		  batch->record_count - 1);
	hurt(w, files_of(w, store)->journal, at,
	     BATCH_HEADER_BYTES + batch->record_count * (uint64_t)RECORD_HEADER_BYTES);
}

static void wound_shard(struct world *w, unsigned store, const struct disk_batch *batch)
{
	const struct disk_record *record =
		record_at(batch, (unsigned)chance_below(&w->chance, batch->record_count));
	if (!record->shard_bytes || !record_allows(w, store, record))
		return;
	record_wound(w, WOUND_SHARD, store, record);
	world_say(w, "damage: store %u, shard of lsn %llu", store, (unsigned long long)record->lsn);
	hurt(w, files_of(w, store)->journal,
	     batch->segment * (uint64_t)w->options.segment_bytes +
		     record->payload_page * (uint64_t)PAGE_BYTES,
	     record->shard_bytes);
}

static void wound_journal(struct world *w, unsigned store, enum wound_kind kind)
{
	static struct batches seen;
	unsigned count = 0;
	const uint8_t *journal = journal_batches(w, store, &seen);
	const struct batches all = seen;
	for (unsigned i = 0; i < all.count; i++)
		if (batch_counts(w, &all, all.batch[i], store))
			seen.batch[count++] = all.batch[i];
	if (!count)
		return;
	const struct disk_batch *batch = seen.batch[chance_below(&w->chance, count)];
	if (kind == WOUND_HEADER)
		wound_headers(w, store, batch, (uint64_t)((const uint8_t *)batch - journal));
	else
		wound_shard(w, store, batch);
}

/* ---- all stores are in service, all floors are equal, and a scrub has found nothing bad ---- */
static lsn_t journal_newest(struct world *w, const struct wound *wound)
{
	static struct batches seen;
	lsn_t newest = 0;
	journal_batches(w, wound->store, &seen);
	for (unsigned i = 0; i < seen.count; i++)
		for (unsigned j = 0; j < seen.batch[i]->record_count; j++) {
			const struct disk_record *record = record_at(seen.batch[i], j);
			if (record->volume_index == wound->volume && record->block == wound->block)
				newest = max_u64(newest, record->lsn);
		}
	return newest;
}

/* Of a journal a scrub looks at the newest record of each block; an older one is wanted by a store
 * that is filled, until it is folded. */
static bool wound_stays(struct world *w, const struct wound *wound)
{
	bool folded = wound->lsn <= superblock_newest(w, wound->store)->image_point;
	switch (wound->kind) {
	case WOUND_IMAGE:
		return false;
	case WOUND_SLOTS: /* Read from the disk at a start only. A scrub does not see one that has a
			   * newer record in the journal: the fold of that mends it, and till then
			   * a rebuild may want it. */
		return wound->life == w->site[SITE_VAULT].life ||
		       journal_newest(w, wound) > superblock_newest(w, wound->store)->image_point;
	case WOUND_HEADER:
		return !folded;
	default:
		return !folded && wound->lsn != journal_newest(w, wound);
	}
}

void wounds_heal(struct world *w)
{
	unsigned count = 0;
	for (unsigned i = 0; i < w->wound_count; i++)
		if (wound_stays(w, &w->wound[i]))
			w->wound[count++] = w->wound[i];
	w->wound_count = count;
}

/* ---- one of them, by chance ---- */
static void wound_try(struct world *w)
{
	unsigned store = (unsigned)chance_below(&w->chance, geometry_n(w->options.geometry));
	static const enum fault kinds[] = {FAULT_ROT_HEADERS,	  FAULT_ROT_SHARDS,
					   FAULT_ROT_IMAGE,	  FAULT_ROT_SLOTS,
					   FAULT_ROT_SUPERBLOCKS, FAULT_FORGED};
	enum fault kind = kinds[chance_below(&w->chance, ARRAY_COUNT(kinds))];
	if (!fault_on(w, kind) || w->store_spent[store] || w->store_gone[store] || w->away ||
	    w->beyond)
		return;
	switch (kind) {
	case FAULT_ROT_HEADERS:
		wound_journal(w, store, WOUND_HEADER);
		break;
	case FAULT_ROT_SHARDS:
		wound_journal(w, store, WOUND_SHARD);
		break;
	case FAULT_ROT_IMAGE:
		wound_image(w, store);
		break;
	case FAULT_ROT_SLOTS:
		wound_slots(w, store);
		break;
	case FAULT_ROT_SUPERBLOCKS:
		wound_superblock(w, store);
		break;
	default:
		wound_forge(w, store);
	}
}

/* Most places cannot be hurt just now. */
void wound_draw(struct world *w)
{
	uint64_t before = w->wounds;
	for (unsigned i = 0; i < TRIES && w->wounds == before; i++)
		wound_try(w);
}
