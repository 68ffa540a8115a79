/* SPDX-License-Identifier: Apache-2.0 */
/* Shards of one record meet here: gathered by fragment, repaired from parity without a round trip,
 * checked against the block's CRC, and handed to the stores. What stays incomplete is asked for
 * (vault_points.c says it to the primary). */
#include "vault.h"

#include <errno.h>

static const ns_t reorder_min_ns = 300 * NS_PER_US;

static struct arriving *slot_of(const struct vault *vault, lsn_t lsn)
{
	return &vault->arriving[lsn % vault->arriving_count];
}

static uint8_t *slot_shard(const struct vault *vault, const struct arriving *slot, unsigned index)
{
	if (__builtin_expect(slot->moved >> index & 1, 0))
		return slot->elsewhere[index];
	return slot->shard + (uint64_t)index * vault->shard_bytes_max;
}

/* ---- memory ---- */
/* Acknowledgements go on without n - w stores: as many disks may keep places for good. */
static bool spare_new(struct vault *vault)
{
	uint32_t shard_bytes_min = vault->shard_bytes_max;
	for (unsigned i = 0; i < vault->config->volume_count; i++)
		shard_bytes_min = (uint32_t)min_u64(
			shard_bytes_min, shard_bytes_of(vault->config->geometry,
							vault->config->volume[i].block_bytes));
	uint64_t each =
		min_u64(store_appends_in_flight_max(shard_bytes_min), vault->arriving_count);
	uint64_t count = each * (vault->n - vault->quorum.w);
	vault->spare.place = tools_memory(vault->tools, count * sizeof *vault->spare.place);
	uint8_t *shards = tools_memory(vault->tools, count * vault->shard_bytes_max);
	if (!vault->spare.place || !shards)
		return false;
	while (vault->spare.count < count) {
		vault->spare.place[vault->spare.count++] = shards;
		shards += vault->shard_bytes_max;
	}
	return true;
}

bool receive_new(struct vault *vault)
{
	uint64_t record = (uint64_t)vault->shard_bytes_max * vault->n;
	uint64_t count = vault->config->window_bytes / record;
	count = min_u64(max_u64(count, WINDOW_RECORDS_MIN), WINDOW_RECORDS_MAX);
	vault->arriving_count = (unsigned)count;
	vault->arriving = tools_memory(vault->tools, count * sizeof *vault->arriving);
	uint8_t *shards = tools_memory(vault->tools, count * record);
	if (!vault->arriving || !shards)
		return false;
	for (uint64_t i = 0; i < count; i++) {
		vault->arriving[i].shard = shards + i * record;
		vault->arriving[i].vault = vault;
	}
	return spare_new(vault);
}

static void slot_clear(struct arriving *slot)
{
	must(!slot->appending, "a record with a store is not forgotten");
	slot->phase = PHASE_FREE;
	slot->seen = false;
	slot->waiting = 0;
	slot->fragments_enough = 0;
	slot->touched = slot->asked = 0;
}

void receive_reset(struct vault *vault, lsn_t base)
{
	must(receive_idle(vault), "a new beginning waits for the stores");
	for (unsigned i = 0; i < vault->arriving_count; i++)
		slot_clear(&vault->arriving[i]);
	vault->base = vault->received = vault->head = base;
	vault->points_changed = true;
}

bool receive_idle(const struct vault *vault)
{
	return vault->unfinished == 0;
}

void receive_drop_partial(struct vault *vault)
{
	for (unsigned i = 0; i < vault->arriving_count; i++)
		if (vault->arriving[i].phase == PHASE_ARRIVING)
			slot_clear(&vault->arriving[i]);
}

void receive_drop_waiting(struct vault *vault)
{
	for (unsigned i = 0; i < vault->arriving_count; i++) {
		struct arriving *slot = &vault->arriving[i];
		slot->waiting = 0;
		if (slot->appending || slot->phase == PHASE_STORED)
			continue;
		vault->unfinished -= slot->phase > PHASE_ARRIVING;
		slot_clear(slot);
	}
	vault->enough.head = vault->enough.tail = NULL;
}

/* ---- storing ---- */
static void record_finish(struct vault *vault, struct arriving *slot)
{
	if (slot->phase == PHASE_WHOLE && !slot->appending && !slot->waiting) {
		slot->phase = PHASE_STORED;
		must(vault->unfinished > 0, "what is finished was unfinished");
		vault->unfinished--;
		vault->points_changed = true;
	}
}

bool receive_fits(const struct vault *vault, unsigned index, lsn_t lsn)
{
	const struct vault_store *slot = &vault->store[index];
	uint64_t room = store_journal_room(slot->store);
	/* Nearly always all from its floor on would fit. */
	if (room > 0 && lsn <= slot->floor + room)
		return true;
	uint64_t lacking = points_lacking(vault, index, lsn);
	/* What is on its way there has its room; a record that comes late waits for those. */
	if (lsn > slot->appended)
		lacking -= min_u64(lacking, slot->appending);
	return room > lacking;
}

/* The disk of a store that is out may read the shard for ever: it keeps that place, and the append
 * in the slot, which no other store uses. The record goes on without. */
static void record_leave(struct vault *vault, struct arriving *slot, unsigned index)
{
	if (slot->append[index].shard) {
		if (!vault->spare.count) {
			vault->spare.wanted = true;
			return;
		}
		slot->elsewhere[index] = vault->spare.place[--vault->spare.count];
		slot->moved |= 1u << index;
	}
	slot->left |= 1u << index;
	slot->appending &= ~(1u << index);
}

static void record_appended(struct store_append *append, int result, struct effects *fx)
{
	struct arriving *slot = append->owner;
	struct vault *vault = slot->vault;
	unsigned index = append->record.shard;
	vault->store[index].appending--;
	if (slot->left >> index & 1) {
		slot->left &= ~(1u << index);
		if (append->shard)
			vault->spare.place[vault->spare.count++] =
				(uint8_t *)(uintptr_t)append->shard;
		return;
	}
	slot->appending &= ~(1u << index);
	/* A failed store has told vault_store_out itself. */
	record_finish(vault, slot);
}

static void record_append(struct vault *vault, struct arriving *slot, unsigned index)
{
	struct vault_store *store = &vault->store[index];
	slot->waiting &= ~(1u << index);
	if (!(store->in_service || store->rebuilding) ||
	    ranges_contains(store_held(store->store), slot->record.lsn))
		return;
	struct store_append *append = &slot->append[index];
	must(!(slot->left >> index & 1), "a store that takes records has given all back");
	*append = (struct store_append){
		.record = slot->record, .done = record_appended, .owner = slot};
	append->record.shard = (uint8_t)index;
	if (record_kind_has_payload(slot->record.kind)) {
		append->shard = slot_shard(vault, slot, index);
		append->record.shard_bytes = slot->shard_bytes;
		append->record.shard_crc = slot->crc[index];
	}
	bool fits = receive_fits(vault, index, slot->record.lsn);
	int result = fits ? store_append(store->store, append) : -ENOSPC;
	if (result == 0) {
		slot->appending |= 1u << index;
		store->appending++;
		store->appended = max_u64(store->appended, slot->record.lsn);
	} else if (result == -ENOSPC && store->in_service) {
		/* One that is being rebuilt gets it from its peers later: nobody waits for it. */
		slot->waiting |= 1u << index;
		vault->room_wanted = true;
	}
}

bool receive_offer(struct vault *vault, unsigned index, lsn_t lsn)
{
	struct arriving *slot = slot_of(vault, lsn);
	must(lsn > vault->base && vault->store[index].rebuilding, "one that is rebuilt lacks it");
	if (lsn >= vault->base + vault->arriving_count || slot->phase < PHASE_WHOLE ||
	    slot->appending >> index & 1)
		return true;
	if (slot->phase == PHASE_STORED) {
		slot->phase = PHASE_WHOLE;
		vault->unfinished++;
	}
	record_append(vault, slot, index);
	bool taken = slot->appending >> index & 1;
	record_finish(vault, slot);
	return taken;
}

bool receive_forgot(const struct vault *vault, lsn_t lsn)
{
	return vault->fenced && slot_of(vault, lsn)->phase <= PHASE_ARRIVING;
}

/* Every shard that is computed here is checked, by the sum of the whole sealed block, before it is
 * stored. */
static bool record_checks(struct vault *vault, struct arriving *slot)
{
	unsigned k = slot->record.geometry.k;
	uint32_t block_crc = 0;
	for (unsigned i = 0; i < vault->n; i++)
		slot->crc[i] = crc32c(slot_shard(vault, slot, i), slot->shard_bytes);
	block_crc = slot->crc[0];
	for (unsigned i = 1; i < k; i++)
		block_crc =
			crc32c_shift_combine(&vault->shift[slot->volume], block_crc, slot->crc[i]);
	return block_crc == slot->record.block_crc;
}

static void record_rebuild(struct vault *vault, struct arriving *slot)
{
	uint32_t all = (1u << vault->n) - 1;
	bool computed = false;
	for (unsigned f = 0; f < slot->fragments; f++) {
		uint32_t present = slot->column[f], want = all & ~present;
		if (!want)
			continue;
		uint8_t *column[SHARDS_MAX];
		uint32_t offset = f * slot->cut_bytes;
		uint32_t length = (uint32_t)min_u64(slot->cut_bytes, slot->shard_bytes - offset);
		for (unsigned i = 0; i < vault->n; i++)
			column[i] = slot_shard(vault, slot, i) + offset;
		int result = stripe_rebuild(vault->stripe, column, present, want, length);
		must(result == 0, "a record with enough columns rebuilds");
		computed = true;
	}
	vault->repaired += computed;
}

static void record_whole(struct vault *vault, struct arriving *slot, struct effects *fx)
{
	if (record_kind_has_payload(slot->record.kind)) {
		record_rebuild(vault, slot);
		if (!record_checks(vault, slot)) {
			vault->crc_failed++;
			effects_note(fx, NOTE_WARNING, vault_subject(vault),
				     "lsn %llu does not add up to its block: asked for again",
				     NOTE_NUMBERS(slot->record.lsn, 0, 0));
			memset(slot->column, 0, sizeof slot->column);
			slot->fragments_enough = 0;
			slot->phase = PHASE_ARRIVING;
			vault->unfinished--;
			vault->received = min_u64(vault->received, slot->record.lsn - 1);
			return;
		}
	}
	slot->record.powered_ns = fx->now;
	slot->phase = PHASE_WHOLE;
	vault->records_received++;
	for (unsigned i = 0; i < vault->n; i++)
		record_append(vault, slot, i);
	record_finish(vault, slot);
}

void receive_store_gone(struct vault *vault, unsigned index)
{
	for (unsigned i = 0; i < vault->arriving_count; i++) {
		struct arriving *slot = &vault->arriving[i];
		slot->waiting &= ~(1u << index);
		if (slot->appending >> index & 1)
			record_leave(vault, slot, index);
		record_finish(vault, slot);
	}
}

/* ---- arriving ---- */
static bool shard_acceptable(const struct vault *vault, const struct wire_shard *shard,
			     uint32_t payload_bytes)
{
	const struct record *record = &shard->record;
	const struct span *newest = spans_newest(&vault->meta.spans);
	if (vault->state != VAULT_READY || vault->fenced || !vault->span_accepted || !newest ||
	    !uuid_equal(&record->span, &newest->id) || record->lsn < newest->first)
		return false;
	if (record->geometry.k != vault->config->geometry.k ||
	    record->geometry.m != vault->config->geometry.m)
		return false;
	if (record->kind == RECORD_END || record->kind == RECORD_MARK ||
	    record->kind == RECORD_VOID)
		return payload_bytes == 0;
	if (shard->volume >= vault->config->volume_count)
		return false;
	const struct core_volume *volume = &vault->config->volume[shard->volume];
	if (record->block >= volume->size / volume->block_bytes ||
	    record->block_bytes != volume->block_bytes)
		return false;
	if (!record_kind_has_payload(record->kind))
		return payload_bytes == 0;
	uint32_t bytes = shard_bytes_of(record->geometry, volume->block_bytes),
		 cut = shard->cut_bytes;
	if (!cut || shard->offset % cut || shard->offset >= bytes ||
	    div_up(bytes, cut) > VAULT_FRAGMENTS_MAX)
		return false;
	return payload_bytes == min_u64(cut, bytes - shard->offset);
}

static void slot_begin(struct vault *vault, struct arriving *slot, const struct wire_shard *shard)
{
	slot->record = shard->record;
	slot->volume = shard->volume;
	slot->seen = true;
	slot->phase = PHASE_ARRIVING;
	slot->fragments_enough = 0;
	slot->cut_bytes = shard->cut_bytes;
	slot->shard_bytes = 0;
	slot->fragments = 1;
	if (record_kind_has_payload(shard->record.kind)) {
		slot->shard_bytes =
			shard_bytes_of(shard->record.geometry, shard->record.block_bytes);
		slot->fragments = (uint16_t)div_up(slot->shard_bytes, shard->cut_bytes);
	}
	memset(slot->column, 0, slot->fragments * sizeof slot->column[0]);
	slot->record.volume = vault->meta.volume[shard->volume].id;
	slot->record.shard = 0;
}

/* All datagrams of one record say the same of it. */
static bool slot_agrees(const struct arriving *slot, const struct wire_shard *shard)
{
	const struct record *a = &slot->record, *b = &shard->record;
	return a->kind == b->kind && a->block == b->block && slot->volume == shard->volume &&
	       uuid_equal(&a->span, &b->span) && a->identity.lsn == b->identity.lsn &&
	       uuid_equal(&a->identity.span, &b->identity.span) && a->block_crc == b->block_crc &&
	       slot->cut_bytes == shard->cut_bytes && memcmp(a->tag, b->tag, TAG_BYTES) == 0;
}

static void enough_push(struct vault *vault, struct arriving *slot)
{
	slot->next = NULL;
	if (vault->enough.tail)
		vault->enough.tail->next = slot;
	else
		vault->enough.head = slot;
	vault->enough.tail = slot;
}

static void slot_enough(struct vault *vault, struct arriving *slot)
{
	slot->phase = PHASE_ENOUGH;
	vault->unfinished++;
	enough_push(vault, slot);
	while (vault->received < vault->head &&
	       slot_of(vault, vault->received + 1)->phase >= PHASE_ENOUGH)
		vault->received++;
	vault->points_changed = true;
}

static void slot_take(struct vault *vault, struct arriving *slot, const struct wire_shard *shard,
		      const uint8_t *payload)
{
	if (!record_kind_has_payload(slot->record.kind)) {
		slot_enough(vault, slot);
		return;
	}
	unsigned f = shard->offset / shard->cut_bytes, column = shard->record.shard;
	uint32_t length = (uint32_t)min_u64(slot->cut_bytes, slot->shard_bytes - shard->offset);
	memcpy(slot_shard(vault, slot, column) + shard->offset, payload, length);
	slot->column[f] |= 1u << column;
	if (__builtin_popcount(slot->column[f]) == slot->record.geometry.k &&
	    ++slot->fragments_enough == slot->fragments)
		slot_enough(vault, slot);
}

/* The primary has sent up to here: what is between and did not come is missing. */
static void head_move(struct vault *vault, lsn_t head, ns_t now)
{
	head = min_u64(head, vault->base + vault->arriving_count - 1);
	while (vault->head < head) {
		struct arriving *slot = slot_of(vault, ++vault->head);
		if (slot->phase == PHASE_FREE)
			slot->touched = now;
	}
	vault->highest = max_u64(vault->highest, head);
}

void vault_shard_received(struct vault *vault, const struct wire_shard *shard,
			  const uint8_t *payload, uint32_t payload_bytes, struct effects *fx)
{
	lsn_t lsn = shard->record.lsn;
	if (!shard_acceptable(vault, shard, payload_bytes)) {
		vault->refused++;
		return;
	}
	if (lsn >= vault->base + vault->arriving_count) {
		vault->refused++; /* beyond the credit */
		return;
	}
	if (lsn <= vault->base) {
		vault->duplicates++;
		vault->points_changed = true; /* the primary may have missed our points */
		return;
	}
	head_move(vault, lsn, fx->now);
	struct arriving *slot = slot_of(vault, lsn);
	if (slot->phase == PHASE_FREE)
		slot_begin(vault, slot, shard);
	if (!slot_agrees(slot, shard)) {
		vault->refused++;
		return;
	}
	bool had = slot->phase >= PHASE_WHOLE ||
		   (slot->shard_bytes &&
		    slot->column[shard->offset / shard->cut_bytes] >> shard->record.shard & 1) ||
		   (!slot->shard_bytes && slot->phase >= PHASE_ENOUGH);
	if (had) {
		vault->duplicates++;
		return;
	}
	slot->touched = fx->now;
	if (slot->phase == PHASE_ENOUGH) {
		/* The rest arrives after all: it need not be computed. */
		unsigned f = shard->offset / shard->cut_bytes, column = shard->record.shard;
		memcpy(slot_shard(vault, slot, column) + shard->offset, payload, payload_bytes);
		slot->column[f] |= 1u << column;
		return;
	}
	slot_take(vault, slot, shard, payload);
}

void vault_head_received(struct vault *vault, const struct wire_head *head, struct effects *fx)
{
	const struct span *newest = spans_newest(&vault->meta.spans);
	if (vault->state != VAULT_READY || !vault->span_accepted || vault->fenced || !newest ||
	    !uuid_equal(&newest->id, &head->span))
		return;
	head_move(vault, head->last, fx->now);
	vault->points_changed = true;
}

/* ---- turn ---- */
static bool slot_complete(const struct vault *vault, const struct arriving *slot)
{
	uint32_t all = (1u << vault->n) - 1;
	if (!record_kind_has_payload(slot->record.kind))
		return true;
	for (unsigned f = 0; f < slot->fragments; f++)
		if (slot->column[f] != all)
			return false;
	return true;
}

ns_t receive_reorder_ns(const struct vault *vault)
{
	return max_u64(link_round_trip_ns(&vault->tools->link) / 8, reorder_min_ns);
}

static void base_move(struct vault *vault, lsn_t base)
{
	vault->base = base;
	vault->received = max_u64(vault->received, base);
	vault->head = max_u64(vault->head, base);
	vault->points_changed = true;
}

/* Done with in memory is what every store has taken, and, after a restart, what k stores held
 * already: the rest of the stores get that from their peers. Beyond the head no slot is in use: up
 * to what is held, maybe far away in another span, it is one step. */
static void base_advance(struct vault *vault)
{
	must(vault->head - vault->base < vault->arriving_count, "the head is inside the ring");
	while (vault->base < vault->head) {
		lsn_t lsn = vault->base + 1;
		struct arriving *slot = slot_of(vault, lsn);
		bool held = lsn <= vault->complete && slot->phase <= PHASE_ARRIVING;
		if (slot->phase != PHASE_STORED && !held)
			return;
		slot_clear(slot);
		base_move(vault, lsn);
	}
	if (vault->base < vault->complete)
		base_move(vault, vault->complete);
}

/* Those that have all n columns, or have waited long enough for the rest. */
static void enough_turn(struct vault *vault, struct effects *fx)
{
	ns_t patience = receive_reorder_ns(vault);
	struct arriving *slot = vault->enough.head;
	vault->enough.head = vault->enough.tail = NULL;
	while (slot) {
		struct arriving *next = slot->next;
		must(slot->phase == PHASE_ENOUGH, "only what is enough waits to be whole");
		bool over = fx->now - slot->touched >= patience || vault->fenced;
		if (over || slot_complete(vault, slot))
			record_whole(vault, slot, fx);
		else
			enough_push(vault, slot);
		slot = next;
	}
}

/* Journals were full: those that waited try again, in order, until each store says no. */
static void waiting_turn(struct vault *vault)
{
	uint32_t full = 0, all = (1u << vault->n) - 1;
	vault->room_wanted = false;
	for (lsn_t lsn = vault->base + 1; lsn <= vault->head && full != all; lsn++) {
		struct arriving *slot = slot_of(vault, lsn);
		uint32_t tries = slot->waiting & ~full;
		for (unsigned i = 0; tries && i < vault->n; i++)
			if (tries >> i & 1)
				record_append(vault, slot, i);
		full |= slot->waiting;
		record_finish(vault, slot);
	}
	vault->room_wanted |= full != 0;
}

void receive_turn(struct vault *vault, struct effects *fx)
{
	if (vault->room_wanted)
		waiting_turn(vault);
	enough_turn(vault, fx);
	base_advance(vault);
}
