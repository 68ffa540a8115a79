/* SPDX-License-Identifier: Apache-2.0 */
/* What the journal of a store holds, in memory: found by block (newest first), by lsn, and by
 * segment. The entries are taken and given back; nothing is allocated. */
#include "store_inner.h"

void table_init(struct store *s)
{
	struct table *table = &s->table;

	for (uint32_t i = 0; i < table->capacity; i++)
		table->entry[i].lsn_next = i + 1 < table->capacity ? i + 1 : ENTRY_NONE;
	table->free = 0;
	table->count = 0;
	memset(table->bucket, 0xff, ((size_t)table->bucket_mask + 1) * sizeof *table->bucket);
	memset(s->image.block_head, 0xff, s->image.block_count * sizeof *s->image.block_head);
}

static uint32_t *table_bucket(const struct table *table, lsn_t lsn)
{
	/* lsns are dense: their low bits spread better than any hash of them. */
	return &table->bucket[lsn & table->bucket_mask];
}

static uint32_t *block_head(const struct store *s, uint8_t volume, uint64_t block)
{
	must(volume < s->config.volume_count && block < s->image.volume[volume].block_count,
	     "the block is in the volume");
	return &s->image.block_head[s->image.volume[volume].block_base + block];
}

static uint32_t *page_use(const struct store *s, uint8_t volume, uint64_t block)
{
	return &s->image.page_use[s->image.volume[volume].page_base + block / SLOTS_PER_PAGE];
}

/* Of two with one lsn the one that was written last: a record that was damaged is appended again.
 * Recovery finds them in the order of their segments, which is another. */
static bool entry_before(const struct entry *a, const struct entry *b)
{
	if (a->record.lsn != b->record.lsn)
		return a->record.lsn > b->record.lsn;
	return a->sequence > b->sequence;
}

static void bucket_link(struct store *s, uint32_t index)
{
	struct table *table = &s->table;
	struct entry *entry = &table->entry[index];
	uint32_t *link = table_bucket(table, entry->record.lsn), *after = link;

	for (; *link != ENTRY_NONE; link = &table->entry[*link].lsn_next)
		if (table->entry[*link].record.lsn == entry->record.lsn &&
		    entry_before(&table->entry[*link], entry))
			after = &table->entry[*link].lsn_next;
	entry->lsn_next = *after;
	*after = index;
}

static void block_link(struct store *s, uint32_t index)
{
	struct entry *entry = &s->table.entry[index];
	uint32_t *link = block_head(s, entry->volume, entry->record.block);

	/* Newest first. */
	while (*link != ENTRY_NONE && entry_before(&s->table.entry[*link], entry))
		link = &s->table.entry[*link].block_next;
	entry->block_next = *link;
	*link = index;
	++*page_use(s, entry->volume, entry->record.block);
}

static void block_unlink(struct store *s, uint32_t index)
{
	struct entry *entry = &s->table.entry[index];
	uint32_t *link = block_head(s, entry->volume, entry->record.block);

	while (*link != index) {
		must(*link != ENTRY_NONE, "an entry is in the chain of its block");
		link = &s->table.entry[*link].block_next;
	}
	*link = entry->block_next;
	--*page_use(s, entry->volume, entry->record.block);
}

/* In order of position: batches complete in any order, but few are in flight. */
static void segment_link(struct store *s, uint32_t index)
{
	struct entry *entry = &s->table.entry[index];
	struct segment *segment = &s->journal.segment[entry->segment];
	uint32_t before = segment->tail, next = ENTRY_NONE;

	while (before != ENTRY_NONE && s->table.entry[before].sequence > entry->sequence) {
		next = before;
		before = s->table.entry[before].segment_before;
	}
	entry->segment_before = before;
	entry->segment_next = next;
	if (before != ENTRY_NONE)
		s->table.entry[before].segment_next = index;
	else
		segment->head = index;
	if (next != ENTRY_NONE)
		s->table.entry[next].segment_before = index;
	else
		segment->tail = index;
	segment->used++;
}

static void segment_unlink(struct store *s, uint32_t index)
{
	struct entry *entry = &s->table.entry[index];
	struct segment *segment = &s->journal.segment[entry->segment];

	if (entry->segment_before != ENTRY_NONE)
		s->table.entry[entry->segment_before].segment_next = entry->segment_next;
	else
		segment->head = entry->segment_next;
	if (entry->segment_next != ENTRY_NONE)
		s->table.entry[entry->segment_next].segment_before = entry->segment_before;
	else
		segment->tail = entry->segment_before;
	must(segment->used > 0, "a segment in the table is used");
	segment->used--;
}

uint32_t table_insert(struct store *s, const struct record *record, const struct place *place)
{
	struct table *table = &s->table;
	uint32_t index = table->free;

	must(index != ENTRY_NONE, "appending keeps to the capacity of the table");
	struct entry *entry = &table->entry[index];
	table->free = entry->lsn_next;
	table->count++;
	*entry = (struct entry){
		.record = *record,
		.sequence = place->sequence,
		.segment = place->segment,
		.payload_page = place->payload_page,
		.volume = place->volume,
		.block_next = ENTRY_NONE,
		.live = true,
		.counts = spans_count_record(&s->spans, &record->span, record->lsn),
	};
	bucket_link(s, index);
	segment_link(s, index);
	if (kind_has_block(record->kind))
		block_link(s, index);
	return index;
}

void table_remove(struct store *s, uint32_t index)
{
	struct table *table = &s->table;
	struct entry *entry = &table->entry[index];

	must(entry->live, "an entry is removed once");
	uint32_t *link = table_bucket(table, entry->record.lsn);
	while (*link != index) {
		must(*link != ENTRY_NONE, "an entry is in the bucket of its lsn");
		link = &table->entry[*link].lsn_next;
	}
	*link = entry->lsn_next;
	segment_unlink(s, index);
	if (kind_has_block(entry->record.kind))
		block_unlink(s, index);
	entry->live = false;
	entry->lsn_next = table->free;
	table->free = index;
	table->count--;
}

uint32_t table_find(const struct store *s, const struct uuid *span, lsn_t lsn)
{
	const struct table *table = &s->table;
	uint32_t index = *table_bucket(table, lsn);

	while (index != ENTRY_NONE) {
		const struct record *record = &table->entry[index].record;
		if (record->lsn == lsn && (!span || uuid_equal(&record->span, span)) &&
		    (span || table->entry[index].counts))
			return index;
		index = table->entry[index].lsn_next;
	}
	return ENTRY_NONE;
}

/* ---- what is held ---- */

static void order_sift(const struct table *table, uint32_t root, uint32_t count)
{
	uint32_t *order = table->order, moved = order[root];

	for (uint32_t child; (child = 2 * root + 1) < count; root = child) {
		if (child + 1 < count && table->entry[order[child]].record.lsn <
						 table->entry[order[child + 1]].record.lsn)
			child++;
		if (table->entry[order[child]].record.lsn <= table->entry[moved].record.lsn)
			break;
		order[root] = order[child];
	}
	order[root] = moved;
}

/* In place and without recursion (heap sort): a store may hold a million records. */
static void order_sort(const struct table *table, uint32_t count)
{
	bool sorted = true;

	for (uint32_t i = 1; i < count && sorted; i++)
		sorted = table->entry[table->order[i - 1]].record.lsn <=
			 table->entry[table->order[i]].record.lsn;
	if (sorted)
		return;
	for (uint32_t i = count / 2; i-- > 0;)
		order_sift(table, i, count);
	while (count > 1) {
		uint32_t largest = table->order[0];
		table->order[0] = table->order[--count];
		table->order[count] = largest;
		order_sift(table, 0, count);
	}
}

/* In lsn order the set grows at its end only: it can overflow by true holes, not by the order in
 * which they came. */
void table_recount(struct store *s)
{
	struct table *table = &s->table;
	uint32_t count = 0;

	for (uint32_t i = 0; i < table->capacity && count < table->count; i++)
		if (table->entry[i].live)
			table->order[count++] = i;
	order_sort(table, count);
	ranges_clear(&s->held);
	s->journal.held_lossy = false;
	for (uint32_t i = 0; i < count; i++) {
		struct entry *entry = &table->entry[table->order[i]];
		lsn_t lsn = entry->record.lsn;
		entry->counts = spans_count_record(&s->spans, &entry->record.span, lsn);
		if (entry->counts && lsn > s->image_point && ranges_add(&s->held, lsn, lsn + 1))
			s->journal.held_lossy = true;
	}
}
