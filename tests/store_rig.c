/* SPDX-License-Identifier: Apache-2.0 */
/* The rig formats the files as a real caller would, drives the turns, and keeps the model. */
#include "store_rig.h"

#include "core/crc.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct uuid set = {"the set of store"};
static const struct uuid own_id = {"the store itself"};

static struct rig *rig_of(struct store *store)
{
	return store_config_of(store)->owner;
}

static void told_opened(struct store *store, int result, struct effects *fx)
{
	rig_of(store)->opened++;
	rig_of(store)->opened_result = result;
}

static void told_out(struct store *store, int err, struct effects *fx)
{
	rig_of(store)->out++;
	rig_of(store)->out_err = err;
}

static void told_folded(struct store *store, struct effects *fx)
{
	rig_of(store)->folded++;
	rig_of(store)->folded_to = store_image_point(store);
}

static struct span span_first(void)
{
	return (struct span){
		.id = {"span number one."}, .generation = 1, .kind = SPAN_IN_ORDER, .first = 1};
}

static void rig_configure(struct rig *rig, uint64_t segment_bytes, uint32_t segment_count)
{
	rig->config = (struct store_config){
		.index = 1,
		.subject = "store 1",
		.files = {RIG_SUPERBLOCK,
			  RIG_JOURNAL,
			  {RIG_IMAGE, RIG_IMAGE + 1},
			  {RIG_SLOTS, RIG_SLOTS + 1}},
		.geometry = {2, 1},
		.volume_count = 2,
		.volume = {{96 * 8192, 8192}, {50 * 16384, 16384}},
		.segment_bytes = segment_bytes,
		.segment_count = segment_count,
		.batch_bytes_max = 32768,
		.opened = told_opened,
		.out = told_out,
		.folded = told_folded,
		.owner = rig,
	};
	struct store_group *group = &rig->group;
	*group = (struct store_group){.name = "group",
				      .set = set,
				      .geometry = {2, 1},
				      .quorum = 2,
				      .volume_count = 2,
				      .generation = 1};
	for (unsigned i = 0; i < 2; i++) {
		snprintf(group->volume[i].name, NAME_BYTES_MAX, "volume%u", i);
		memcpy(group->volume[i].id.bytes, group->volume[i].name, 8);
		group->volume[i].size = rig->config.volume[i].size;
		group->volume[i].block_bytes = rig->config.volume[i].block_bytes;
	}
	group->spans.span[0] = span_first();
	group->spans.count = 1;
	rig->acked = *group;
}

static void rig_format(struct rig *rig)
{
	uint8_t *copy = malloc(STORE_SUPERBLOCK_BYTES);
	uint8_t page[PAGE_BYTES];

	must(copy, "a test has memory");
	for (uint64_t sequence = 1; sequence <= 2; sequence++) {
		store_superblock_encode(&rig->group, &own_id, 1, 7, rig->config.segment_bytes,
					rig->config.segment_count, sequence, copy);
		fake_disk_poke(&rig->disk, RIG_SUPERBLOCK, (sequence & 1) * STORE_SUPERBLOCK_BYTES,
			       copy, STORE_SUPERBLOCK_BYTES);
	}
	for (unsigned i = 0; i < 2; i++) {
		uint64_t size = rig->config.volume[i].size;
		uint32_t block_bytes = rig->config.volume[i].block_bytes;
		for (uint64_t at = 0; at < store_slots_file_bytes(size, block_bytes) / PAGE_BYTES;
		     at++) {
			store_slots_format_page(at, size, block_bytes, page);
			fake_disk_poke(&rig->disk, RIG_SLOTS + i, at * PAGE_BYTES, page,
				       PAGE_BYTES);
		}
	}
	free(copy);
}

struct rig *rig_new(uint64_t seed, uint64_t segment_bytes, uint32_t segment_count)
{
	struct rig *rig = calloc(1, sizeof *rig);

	must(rig, "a test has memory");
	fake_disk_init(&rig->disk, seed);
	rig_configure(rig, segment_bytes, segment_count);
	fake_disk_file(&rig->disk, RIG_SUPERBLOCK, 2 * STORE_SUPERBLOCK_BYTES);
	fake_disk_file(&rig->disk, RIG_JOURNAL, segment_bytes * segment_count);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t size = rig->config.volume[i].size;
		fake_disk_file(&rig->disk, RIG_IMAGE + i,
			       store_image_file_bytes(size, rig->config.geometry));
		fake_disk_file(&rig->disk, RIG_SLOTS + i,
			       store_slots_file_bytes(size, rig->config.volume[i].block_bytes));
	}
	rig_format(rig);
	rig->memory = malloc(store_bytes(&rig->config));
	uint8_t *shards = aligned_alloc(PAGE_BYTES, RIG_ITEMS_MAX * RIG_SHARD_BYTES_MAX);
	must(rig->memory && shards, "a test has memory");
	for (unsigned i = 0; i < RIG_ITEMS_MAX; i++) {
		rig->item[i].rig = rig;
		rig->item[i].shard = shards + (size_t)i * RIG_SHARD_BYTES_MAX;
	}
	return rig;
}

void rig_free(struct rig *rig)
{
	fake_disk_fini(&rig->disk);
	free(rig->item[0].shard);
	free(rig->memory);
	free(rig);
}

void rig_turn(struct rig *rig)
{
	if (rig->store)
		store_turn(rig->store, &rig->fx);
	fake_disk_submit(&rig->disk, &rig->fx);
	rig->fx.note_count = 0;
}

void rig_settle(struct rig *rig)
{
	do
		rig_turn(rig);
	while (fake_disk_complete(&rig->disk, &rig->fx) || store_wants_turn(rig->store) ||
	       rig->fx.disk.head);
}

void rig_open(struct rig *rig)
{
	effects_init(&rig->fx, 0, 0);
	rig->opened = 0;
	rig->store = store_init(rig->memory, &rig->config);
	store_open(rig->store, &rig->fx);
	while (!rig->opened) {
		fake_disk_submit(&rig->disk, &rig->fx);
		assert_true(fake_disk_complete(&rig->disk, &rig->fx));
	}
	assert_int_equal(rig->opened, 1);
}

static void rig_gone(struct rig *rig)
{
	for (unsigned i = 0; i < RIG_ITEMS_MAX; i++)
		rig->item[i].busy = false;
	rig->group_writing = false;
	rig->store = NULL;
}

void rig_crash(struct rig *rig)
{
	fake_disk_submit(&rig->disk, &rig->fx);
	fake_disk_crash(&rig->disk);
	rig_gone(rig);
}

void rig_kill(struct rig *rig)
{
	fake_disk_submit(&rig->disk, &rig->fx);
	fake_disk_kill(&rig->disk);
	rig_gone(rig);
}

void rig_promise(struct rig *rig)
{
	for (lsn_t lsn = 1; lsn <= rig->lsn; lsn++)
		if (ranges_contains(store_held(rig->store), lsn))
			rig->record[lsn].done = true;
	rig->folded_to = max_u64(rig->folded_to, store_image_point(rig->store));
	rig->acked = *store_group_of(rig->store);
}

struct rig *rig_fresh(uint64_t seed)
{
	struct rig *rig = rig_new(seed, SEGMENT_BYTES, SEGMENT_COUNT);

	rig_open(rig);
	assert_int_equal(rig->opened_result, 0);
	return rig;
}

void rig_reopen(struct rig *rig)
{
	rig_open(rig);
	assert_int_equal(rig->opened_result, 0);
	store_use_spans(rig->store, &rig->group.spans);
}

const struct disk_batch *rig_batch_at(const struct rig *rig, unsigned number, uint64_t *offset)
{
	const uint8_t *journal = rig->disk.file[RIG_JOURNAL].cached;
	const struct disk_batch *batch = (const void *)journal;

	for (*offset = 0; number > 0; number--) {
		*offset += batch->header_bytes + batch->payload_bytes;
		batch = (const void *)(journal + *offset);
		assert_int_equal(batch->magic, BATCH_MAGIC);
	}
	return batch;
}

void rig_flip(struct rig *rig, unsigned file, uint64_t at)
{
	uint8_t byte = rig->disk.file[file].cached[at] ^ 0x40;

	fake_disk_poke(&rig->disk, file, at, &byte, 1);
}

void rig_shard(uint8_t *shard, uint32_t bytes, lsn_t lsn)
{
	for (uint32_t at = 0; at < bytes; at += 8)
		put_u64(shard + at, lsn * 0x9e3779b97f4a7c15ull + at);
}

struct record rig_record_of(const struct rig *rig, lsn_t lsn)
{
	const struct rig_record *model = &rig->record[lsn];
	const struct span *span = &rig->group.spans.span[model->span];
	bool has_block = model->kind <= RECORD_DISCARD;
	struct record record = {
		.span = span->id,
		.lsn = lsn,
		.identity = {span->id, lsn, span->generation},
		.block = model->block,
		.kind = model->kind,
		.shard = 1,
		.geometry = rig->config.geometry,
		.block_crc = (uint32_t)lsn ^ 0xb10c,
		.wall_ns = lsn * 1000,
		.powered_ns = lsn * 10,
	};

	if (has_block) {
		record.volume = rig->group.volume[model->volume].id;
		record.block_bytes = rig->config.volume[model->volume].block_bytes;
	}
	memset(record.tag, (int)lsn, sizeof record.tag);
	if (model->kind == RECORD_DATA) {
		_Alignas(8) uint8_t shard[RIG_SHARD_BYTES_MAX];
		record.shard_bytes = record.block_bytes / 2;
		rig_shard(shard, record.shard_bytes, lsn);
		record.shard_crc = crc32c(shard, record.shard_bytes);
	}
	return record;
}

static void item_done(struct store_append *append, int result, struct effects *fx)
{
	struct rig_item *item = container_of(append, struct rig_item, item);

	assert_true(item->busy);
	item->busy = false;
	item->rig->done_count++;
	if (result)
		item->rig->done_errors++;
	else
		item->rig->record[append->record.lsn].done = true;
}

int rig_append_lsn(struct rig *rig, lsn_t lsn)
{
	struct rig_item *item = NULL;

	for (unsigned i = 0; i < RIG_ITEMS_MAX && !item; i++)
		if (!rig->item[i].busy)
			item = &rig->item[i];
	if (!item)
		return -EAGAIN;
	item->item = (struct store_append){.record = rig_record_of(rig, lsn), .done = item_done};
	if (item->item.record.shard_bytes) {
		rig_shard(item->shard, item->item.record.shard_bytes, lsn);
		item->item.shard = item->shard;
	}
	int err = store_append(rig->store, &item->item);
	item->busy = !err;
	if (!err)
		rig->record[lsn].appended = true;
	return err;
}

int rig_append(struct rig *rig, uint8_t kind, uint8_t volume, uint64_t block)
{
	lsn_t lsn = rig->lsn + 1;

	must(lsn < RIG_LSNS_MAX, "the model has room");
	rig->record[lsn] = (struct rig_record){.volume = volume,
					       .kind = kind,
					       .block = block,
					       .span = (uint8_t)(rig->group.spans.count - 1)};
	int err = rig_append_lsn(rig, lsn);
	if (!err)
		rig->lsn = lsn;
	return err;
}

static void group_done(struct store_superblock_write *write, int result, struct effects *fx)
{
	struct rig *rig = container_of(write, struct rig, group_write);

	rig->group_writing = false;
	if (!result)
		rig->acked = rig->group_sent;
}

void rig_write_group(struct rig *rig)
{
	must(!rig->group_writing, "one at a time here");
	rig->group_writing = true;
	rig->group_sent = rig->group;
	rig->group_write.group = &rig->group_sent;
	rig->group_write.done = group_done;
	store_write_group(rig->store, &rig->group_write, &rig->fx);
}

lsn_t rig_floor(const struct rig *rig)
{
	return ranges_first_gap(store_held(rig->store), store_image_point(rig->store) + 1) - 1;
}

void rig_fold(struct rig *rig, lsn_t fold_point)
{
	rig->group.fold_point = fold_point;
	rig_write_group(rig);
	rig_settle(rig);
	store_fold(rig->store, fold_point, &rig->fx);
	rig_settle(rig);
}

struct rig_reading {
	struct store_read read;
	int result;
	bool done;
};

static void read_done(struct store_read *read, int result, struct effects *fx)
{
	struct rig_reading *reading = container_of(read, struct rig_reading, read);

	reading->done = true;
	reading->result = result;
}

int rig_read(struct rig *rig, const struct record *record, const uint8_t **shard)
{
	static _Alignas(PAGE_BYTES) uint8_t buffer[RIG_SHARD_BYTES_MAX];
	struct rig_reading reading = {
		.read = {.record = *record, .buffer = buffer, .done = read_done}};

	store_read(rig->store, &reading.read, &rig->fx);
	while (!reading.done) {
		rig_turn(rig);
		fake_disk_complete(&rig->disk, &rig->fx);
	}
	*shard = buffer;
	return reading.result;
}

/* ---- the checks ---- */

static bool model_counts(const struct rig *rig, lsn_t lsn)
{
	const struct rig_record *model = &rig->record[lsn];

	return model->appended && lsn <= spans_last(&rig->group.spans, model->span);
}

static bool store_has(const struct rig *rig, lsn_t lsn)
{
	return lsn <= store_image_point(rig->store) || ranges_contains(store_held(rig->store), lsn);
}

static void check_held(const struct rig *rig)
{
	for (lsn_t lsn = 1; lsn <= rig->lsn; lsn++) {
		if (rig->record[lsn].done && model_counts(rig, lsn) && !store_has(rig, lsn))
			fail_msg("lsn %llu was told durable and is not held",
				 (unsigned long long)lsn);
		if (lsn > store_image_point(rig->store) && store_has(rig, lsn) &&
		    !model_counts(rig, lsn))
			fail_msg("lsn %llu is held and does not count", (unsigned long long)lsn);
	}
	if (ranges_next(store_held(rig->store), rig->lsn + 1))
		fail_msg("an lsn is held that was never drawn");
}

static void check_content(struct rig *rig, const struct record *record, lsn_t lsn)
{
	struct record expected = rig_record_of(rig, lsn);
	_Alignas(8) uint8_t content[RIG_SHARD_BYTES_MAX];
	const uint8_t *shard;

	assert_memory_equal(&record->span, &expected.span, sizeof expected.span);
	assert_int_equal(record->lsn, lsn);
	assert_int_equal(record->identity.lsn, lsn);
	assert_int_equal(record->kind, expected.kind);
	assert_int_equal(record->block, expected.block);
	assert_int_equal(record->block_crc, expected.block_crc);
	assert_int_equal(record->shard_bytes, expected.shard_bytes);
	assert_int_equal(record->wall_ns, expected.wall_ns);
	assert_memory_equal(record->tag, expected.tag, TAG_BYTES);
	assert_memory_equal(&record->volume, &expected.volume, sizeof expected.volume);
	int result = rig_read(rig, record, &shard);
	if (result)
		fail_msg("lsn %llu does not read: %d", (unsigned long long)lsn, result);
	rig_shard(content, record->shard_bytes, lsn);
	assert_memory_equal(shard, content, record->shard_bytes);
}

static void check_block(struct rig *rig, uint8_t volume, uint64_t block, lsn_t limit)
{
	struct record record;
	lsn_t expected = 0;
	lsn_t sure = max_u64(store_image_point(rig->store), store_group_of(rig->store)->fold_point);

	for (lsn_t lsn = 1; lsn <= rig->lsn && lsn <= limit; lsn++)
		if (rig->record[lsn].kind <= RECORD_DISCARD && rig->record[lsn].volume == volume &&
		    rig->record[lsn].block == block && model_counts(rig, lsn) &&
		    store_has(rig, lsn))
			expected = lsn;
	int result = store_find(rig->store, volume, block, limit, &record);
	if (result == -ESTALE && limit < sure)
		return; /* the version asked for has been folded over */
	if (result != (expected ? 0 : -ENOENT))
		fail_msg("volume %u block %llu limit %llu: find gives %d, lsn %llu expected",
			 volume, (unsigned long long)block, (unsigned long long)limit, result,
			 (unsigned long long)expected);
	if (expected)
		check_content(rig, &record, expected);
}

void rig_check(struct rig *rig, lsn_t limit)
{
	check_held(rig);
	assert_true(store_image_point(rig->store) >= rig->folded_to);
	assert_true(store_group_of(rig->store)->fold_point >= rig->acked.fold_point);
	assert_true(store_group_of(rig->store)->generation >= rig->acked.generation);
	for (uint64_t block = 0; block < 96; block++)
		check_block(rig, 0, block, limit);
	for (uint64_t block = 0; block < 50; block++)
		check_block(rig, 1, block, limit);
}
