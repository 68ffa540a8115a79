/* SPDX-License-Identifier: Apache-2.0 */
/* A store that lacks records which its peers hold gets them from there, computed from ciphertext:
 * after a restart, after damage in its journal, and at the end of its rebuild. One store at a time,
 * a few records at once, a bounded look per turn. */
#include "vault.h"

#include <errno.h>

enum { REFILL_IN_FLIGHT = 16, LSNS_PER_TURN = 1024 };
static const ns_t no_room_pause_ns = 20 * NS_PER_MS, unreadable_pause_ns = 5 * NS_PER_S;

/* Up to the base no record is still on its way from memory to a store. What is above it may wait
 * there for a store without room, which may in its turn wait for one that is being rebuilt. */
static lsn_t refill_limit(const struct vault *vault, unsigned index)
{
	lsn_t readable = max_u64(vault->complete, vault->durable);
	return rebuild_fills(vault, index) ? readable : min_u64(readable, vault->base);
}

static bool refillable(const struct vault *vault, unsigned index)
{
	return vault->store[index].in_service || rebuild_fills(vault, index);
}

/* ---- one record ---- */
static void refill_end(struct gather *gather)
{
	must(gather->vault->refill.in_flight, "what is under way is counted");
	gather->vault->refill.in_flight--;
	gather_give(gather);
}

static void unreadable(struct vault *vault, lsn_t lsn, struct effects *fx)
{
	struct vault_store *slot = &vault->store[vault->refill.store];
	if (slot->unreadable <= slot->floor || slot->unreadable > lsn)
		slot->unreadable = lsn;
	vault->refill.unreadable++;
	vault->refill.pause_until = fx->now + unreadable_pause_ns;
	if (!vault->refill.noted)
		effects_note(fx, NOTE_ERROR, vault_subject(vault),
			     "lsn %llu cannot be read from enough stores: store %llu stays behind",
			     NOTE_NUMBERS(lsn, vault->refill.store, 0));
	vault->refill.noted = true;
}

/* A fold makes room, and may wait for another store: that one has its turn. */
static void no_room(struct vault *vault, struct effects *fx)
{
	vault->refill.next = vault->refill.end + 1;
	vault->refill.pause_until = fx->now + no_room_pause_ns;
}

static void refill_written(struct gather *gather, int result, struct effects *fx)
{
	struct vault *vault = gather->vault;
	if (result == 0)
		vault->refill.filled++;
	else if (result == -ENOSPC)
		no_room(vault, fx);
	refill_end(gather); /* a store that failed has told so itself */
}

static void refill_read(struct gather *gather, int result, struct effects *fx)
{
	struct vault *vault = gather->vault;
	unsigned target = (unsigned)gather->internal;
	if (result == 0 && gather_rebuild(gather, 1u << target) == 0) {
		gather_append(gather, target, fx);
		return;
	}
	if (result == 0 && gather_start_again(gather, fx))
		return;
	if (result != -ESTALE) /* folded meanwhile: then the image has it, or what replaced it */
		unreadable(vault, gather->record.lsn, fx);
	refill_end(gather);
}

static void find_lsn(const struct vault *vault, lsn_t lsn, unsigned target, struct gather *gather)
{
	for (unsigned i = 0; i < vault->n; i++) {
		struct record record;
		if (i == target || !vault->store[i].in_service ||
		    store_find_lsn(vault->store[i].store, lsn, &record) < 0)
			continue;
		if (!gather->holders)
			gather->record = record;
		if (uuid_equal(&record.span, &gather->record.span))
			gather->holders |= 1u << i;
	}
}

/* False when all gathers are busy. */
static bool refill_record(struct vault *vault, lsn_t lsn, struct effects *fx)
{
	unsigned target = vault->refill.store;
	struct gather *gather = gather_take(vault);
	if (!gather)
		return false;
	vault->refill.in_flight++;
	gather->by_lsn = true;
	gather->internal = target;
	gather->done = refill_read;
	gather->written = refill_written;
	find_lsn(vault, lsn, target, gather);
	bool payload = record_kind_has_payload(gather->record.kind);
	int volume = payload ? vault_volume_of(vault, &gather->record.volume) : 0;
	unsigned count = (unsigned)__builtin_popcount(gather->holders);
	if (volume < 0 || count < (payload ? vault->config->geometry.k : 1)) {
		unreadable(vault, lsn, fx);
		refill_end(gather);
		return true;
	}
	gather->volume = (uint8_t)volume;
	if (payload)
		gather_start(gather, fx);
	else
		gather_append(gather, target, fx);
	return true;
}

/* ---- one store ---- */
/* The first lsn from here on that counts by the spans; UINT64_MAX when there is none. A span that
 * is void as a whole, as a catch-up that was broken off, drew none. */
static lsn_t drawn_from(const struct spans *spans, lsn_t lsn)
{
	if (spans_at(spans, lsn))
		return lsn;
	for (unsigned i = 0; i < spans->count; i++)
		if (spans->span[i].first > lsn && spans_at(spans, spans->span[i].first))
			return spans->span[i].first;
	return UINT64_MAX;
}

static void refill_pass(struct vault *vault, struct effects *fx)
{
	const struct store *store = vault->store[vault->refill.store].store;
	/* A store that has gone into service meanwhile waits for memory like the others. */
	lsn_t end = min_u64(vault->refill.end, refill_limit(vault, vault->refill.store));
	vault->refill.end = end;
	for (unsigned looked = 0; looked < LSNS_PER_TURN; looked++) {
		lsn_t lsn = ranges_first_gap(store_held(store), vault->refill.next);
		lsn = drawn_from(&vault->meta.spans, lsn);
		vault->refill.next = lsn;
		if (lsn > end || vault->refill.in_flight >= REFILL_IN_FLIGHT)
			return;
		if (ranges_contains(store_held(store), lsn))
			continue;
		if (lsn > vault->base && !receive_forgot(vault, lsn)) {
			if (!receive_offer(vault, vault->refill.store, lsn)) {
				no_room(vault, fx);
				return;
			}
			vault->refill.next = lsn + 1;
			continue;
		}
		if (!refill_record(vault, lsn, fx) || vault->refill.next > end)
			return;
		vault->refill.next = lsn + 1;
		if (fx->now < vault->refill.pause_until)
			return;
	}
}

/* The next store, in turn, that is behind. */
static bool refill_begin(struct vault *vault)
{
	for (unsigned i = 1; i <= vault->n; i++) {
		unsigned index = (vault->refill.store + i) % vault->n;
		lsn_t limit = refill_limit(vault, index);
		const struct vault_store *slot = &vault->store[index];
		if (!refillable(vault, index) || slot->floor >= limit)
			continue;
		vault->refill.active = true;
		vault->refill.store = (uint8_t)index;
		vault->refill.next = max_u64(slot->floor, store_image_point(slot->store)) + 1;
		vault->refill.end = limit;
		return true;
	}
	return false;
}

void refill_turn(struct vault *vault, struct effects *fx)
{
	if (fx->now < vault->refill.pause_until)
		return;
	if (!vault->refill.active && !refill_begin(vault))
		return;
	bool over = !refillable(vault, vault->refill.store);
	if (!over) {
		refill_pass(vault, fx);
		over = vault->refill.next > vault->refill.end;
	}
	/* Its floor moves when the last append is done; only then is it looked at again. */
	if (over && !vault->refill.in_flight)
		vault->refill.active = false;
}
