/* SPDX-License-Identifier: Apache-2.0 */
/* The points of a group at its vault, worked out from what the stores hold, and said to the
 * primary: acknowledgement is by points, never per packet or per shard (docs/semantics.md
 * "points"). */
#include "vault.h"

static const ns_t say_interval_ns = 200 * NS_PER_US, say_idle_ns = 20 * NS_PER_MS;

/* ---- working them out ---- */
/* The last lsn that counts before the gap that begins at lsn, and the first after it: between two
 * spans nothing was drawn. */
static lsn_t gap_end(const struct spans *spans, lsn_t lsn)
{
	for (unsigned i = 0; i < spans->count; i++) {
		lsn_t last = spans_last(spans, i);
		if (lsn < spans->span[i].first)
			return spans->span[i].first;
		if (lsn <= last)
			return lsn;
	}
	return lsn;
}

/* The last lsn up to which this store holds every record that counts. */
lsn_t points_floor(const struct vault *vault, unsigned index)
{
	const struct vault_store *slot = &vault->store[index];
	const struct ranges *held = store_held(slot->store);
	const struct spans *spans = &vault->meta.spans;
	lsn_t next = max_u64(slot->floor, store_image_point(slot->store)) + 1;
	for (;;) {
		lsn_t gap = ranges_first_gap(held, next);
		lsn_t after = spans->count ? gap_end(spans, gap) : gap;
		if (after == gap)
			return gap - 1;
		next = after;
	}
}

/* What an image gives to a store that is rebuilt it does not lack. */
static lsn_t lacks_from(const struct vault *vault, unsigned index)
{
	const struct vault_store *slot = &vault->store[index];
	lsn_t from = max_u64(slot->floor, store_image_point(slot->store));
	bool rebuilt = vault->rebuild.phase && vault->rebuild.store == index;
	return (rebuilt ? max_u64(from, vault->rebuild.point) : from) + 1;
}

uint64_t points_lacking(const struct vault *vault, unsigned index, lsn_t before)
{
	const struct ranges *held = store_held(vault->store[index].store);
	const struct spans *spans = &vault->meta.spans;
	lsn_t from = lacks_from(vault, index);
	uint64_t count = 0;
	for (unsigned i = 0; i < spans->count; i++) {
		lsn_t first = max_u64(spans->span[i].first, from);
		lsn_t last = min_u64(spans_last(spans, i), before - 1);
		if (first <= last)
			count += last + 1 - first - ranges_count(held, first, last + 1);
	}
	return count;
}

lsn_t points_complete_now(const struct vault *vault, uint32_t mask)
{
	const struct spans *spans = &vault->meta.spans;
	const struct ranges *held[SHARDS_MAX] = {0};
	lsn_t base = 0;
	for (unsigned i = 0; i < vault->n; i++) {
		if (!(mask >> i & 1))
			continue;
		held[i] = store_held(vault->store[i].store);
		base = max_u64(base, store_image_point(vault->store[i].store));
	}
	for (;;) {
		lsn_t point =
			points_consistent(vault->quorum, held, mask, NULL, base, UINT64_MAX - 1);
		lsn_t after = spans->count ? gap_end(spans, point + 1) : point + 1;
		if (after == point + 1)
			return point;
		base = after - 1;
	}
}

bool vault_catch_up_open(const struct vault *vault)
{
	const struct span *newest = spans_newest(&vault->meta.spans);
	return newest && newest->kind == SPAN_CATCH_UP;
}

bool vault_initial_copy(const struct vault *vault)
{
	return vault_catch_up_open(vault) && !spans_newest(&vault->meta.spans)->parent_last;
}

/* docs/semantics.md "points": inside a catch-up no lsn is a consistent point. */
lsn_t points_consistent_now(const struct vault *vault, uint32_t mask)
{
	return spans_whole(&vault->meta.spans, points_complete_now(vault, mask));
}

/* What a store may have helped to acknowledge. Records that are gone from its journal have lowered
 * its floor: then all that it has seen may have been. Nothing was acknowledged inside an open
 * catch-up. */
static lsn_t floor_once(const struct vault *vault, unsigned index)
{
	const struct vault_store *slot = &vault->store[index];
	if (!slot->in_service)
		return 0;
	lsn_t floor = slot->floor;
	if (store_lost_records(slot->store))
		floor = max_u64(floor, store_lsn_max(slot->store));
	if (vault_catch_up_open(vault))
		floor = min_u64(floor, spans_newest(&vault->meta.spans)->parent_last);
	return floor;
}

struct promotion points_promotion_of(const struct vault *vault, lsn_t consistent)
{
	lsn_t floor[SHARDS_MAX] = {0};
	for (unsigned i = 0; i < vault->n; i++)
		floor[i] = floor_once(vault, i);
	struct promotion promotion =
		points_promotion(vault->quorum, floor, vault_in_service(vault), consistent);
	promotion.acknowledged = max_u64(promotion.acknowledged, vault->meta.promised);
	promotion.proven &= vault->meta.promised <= consistent;
	return promotion;
}

/* Up to here at least all was acknowledged, and counts for ever: what a catch-up brings counts once
 * the next span continues it, and what a span leaves out never counted. */
lsn_t points_promised(const struct vault *vault)
{
	const struct span *newest = spans_newest(&vault->meta.spans);
	lsn_t lsn = vault->acknowledged_durable;
	if (newest && (lsn < newest->first || newest->kind == SPAN_CATCH_UP))
		lsn = min_u64(lsn, newest->parent_last);
	return lsn;
}

/* Not before what it rests on is recorded on w stores: a history that is lost takes its promises
 * with it. */
static void promises_tell(struct vault *vault)
{
	struct promise promise = {vault->meta.generation, points_promised(vault)};
	if (vault->meta_durable < vault->assembled_version ||
	    (promise.generation == vault->promised.generation &&
	     promise.lsn == vault->promised.lsn))
		return;
	vault->promised = promise;
	for (unsigned i = 0; i < vault->n; i++)
		if (vault->store[i].in_service || vault->store[i].rebuilding)
			store_promise(vault->store[i].store, promise);
}

void points_turn(struct vault *vault, struct effects *fx)
{
	if (vault->spans_ahead)
		return;
	lsn_t floor[SHARDS_MAX] = {0};
	uint32_t in_service = vault_in_service(vault);
	bool moved = false;
	for (unsigned i = 0; i < vault->n; i++) {
		struct vault_store *slot = &vault->store[i];
		if (!slot->in_service && !slot->rebuilding)
			continue;
		lsn_t now = points_floor(vault, i);
		must(now >= slot->floor, "a floor never falls");
		moved |= now != slot->floor;
		slot->floor = now;
		floor[i] = slot->in_service ? now : 0;
	}
	if (!moved && vault->points_mask == in_service && !vault->points_changed)
		return;
	vault->points_mask = in_service;
	lsn_t durable = points_durable(vault->quorum, floor, in_service);
	lsn_t consistent = points_consistent_now(vault, in_service);
	vault->points_changed |= durable > vault->durable || consistent > vault->consistent;
	vault->durable = max_u64(vault->durable, durable);
	vault->consistent = max_u64(vault->consistent, consistent);
	vault->complete = max_u64(vault->complete, points_complete_now(vault, in_service));
	vault->highest = max_u64(vault->highest, vault->durable);
	vault->proof = points_promotion_of(vault, vault->consistent);
	/* A store that went out is recorded as out before anything is acknowledged without it. */
	if (vault->meta_durable >= vault->out_version)
		vault->acknowledged_durable = vault->durable;
	promises_tell(vault);
}

/* ---- saying them ---- */
/* Which columns of a fragment to ask for: as many as are missing to k, the lowest first. */
static uint32_t columns_wanted(const struct vault *vault, uint32_t present)
{
	unsigned k = vault->config->geometry.k, have = (unsigned)__builtin_popcount(present);
	uint32_t wanted = 0;
	for (unsigned i = 0; i < vault->n && have < k; i++)
		if (!(present >> i & 1)) {
			wanted |= 1u << i;
			have++;
		}
	return wanted;
}

static void nack_record(struct vault *vault, const struct arriving *slot, lsn_t lsn,
			struct wire_points *points)
{
	if (slot->phase == PHASE_FREE) {
		points->nack[points->nack_count++] = (struct wire_nack){
			.lsn = lsn, .columns = columns_wanted(vault, 0), .count = UINT16_MAX};
		return;
	}
	for (unsigned f = 0; f < slot->fragments && points->nack_count < WIRE_NACKS_MAX; f++) {
		uint32_t wanted = columns_wanted(vault, slot->column[f]);
		if (!wanted)
			continue;
		unsigned end = f + 1;
		while (end < slot->fragments && columns_wanted(vault, slot->column[end]) == wanted)
			end++;
		points->nack[points->nack_count++] =
			(struct wire_nack){.lsn = lsn,
					   .columns = wanted,
					   .fragment = (uint16_t)f,
					   .count = (uint16_t)(end - f)};
		f = end - 1;
	}
}

/* Parity first: only what did not become enough in its time is asked for, and not again before an
 * answer could be here. */
static void nacks_collect(struct vault *vault, struct wire_points *points, ns_t now)
{
	ns_t patience = receive_reorder_ns(vault), timeout = link_timeout_ns(&vault->tools->link);
	for (lsn_t lsn = vault->received + 1;
	     lsn <= vault->head && points->nack_count < WIRE_NACKS_MAX; lsn++) {
		struct arriving *slot = &vault->arriving[lsn % vault->arriving_count];
		if (slot->phase > PHASE_ARRIVING || now - slot->touched < patience ||
		    (slot->asked && now - slot->asked < timeout))
			continue;
		slot->asked = now;
		vault->nacks++;
		nack_record(vault, slot, lsn, points);
	}
}

static bool nacks_due(const struct vault *vault, ns_t now)
{
	return vault->received < vault->head && now - vault->points_said >= NS_PER_MS;
}

static bool points_wanted(const struct vault *vault)
{
	return vault->state == VAULT_READY && vault->span_accepted && !vault->fenced &&
	       spans_newest(&vault->meta.spans);
}

/* An acknowledgement that waits for its interval is not left until something else happens. */
ns_t points_deadline(const struct vault *vault)
{
	if (!points_wanted(vault))
		return NS_NEVER;
	return vault->points_said + (vault->points_changed ? say_interval_ns : NS_PER_S);
}

void points_say(struct vault *vault, struct effects *fx)
{
	const struct span *newest = spans_newest(&vault->meta.spans);
	if (!points_wanted(vault))
		return;
	ns_t since = fx->now - vault->points_said;
	bool busy = vault->base < vault->head;
	if (!(vault->points_changed && since >= say_interval_ns) && !nacks_due(vault, fx->now) &&
	    !(busy && since >= say_idle_ns) && since < NS_PER_S)
		return;
	struct wire_points points = {.group = vault->peer_group,
				     .span = newest->id,
				     .received = vault->received,
				     .durable = vault->acknowledged_durable,
				     .consistent = vault->consistent,
				     .credit = vault->base + vault->arriving_count - 1};
	nacks_collect(vault, &points, fx->now);
	uint8_t text[WIRE_TEXT_BYTES_MAX];
	link_send_message(&vault->tools->link, text, wire_points_encode(&points, text), fx->now);
	vault->points_said = fx->now;
	vault->points_changed = false;
}
