/* SPDX-License-Identifier: Apache-2.0 */
/* When journals may overwrite images: the fold point of a group moves one step at a time. It is
 * recorded on every store in service before the first slot changes, and the next step waits until
 * all of them are at this one (docs/semantics.md "fold"). */
#include "vault.h"

static const ns_t copy_turn_min_ns = 50 * NS_PER_MS;
enum { FOLD_STEPS = 4, FOLD_BYTES_MIN = 16 * MIB /* of a store */ };

/* A store that is being filled folds too, from its own journal. */
static bool folds(const struct vault *vault, unsigned index)
{
	return vault->store[index].in_service || rebuild_fills(vault, index);
}

/* Worth folding once a journal or the table of spans is half full. */
static bool fold_wanted(const struct vault *vault)
{
	if (vault->meta.spans.count > SPANS_MAX / 2)
		return true;
	for (unsigned i = 0; i < vault->n; i++)
		if (folds(vault, i) && store_journal_half_full(vault->store[i].store))
			return true;
	return false;
}

/* docs/semantics.md "fold": an open catch-up is not folded, but for one that continues nothing. The
 * last of its records stays: it may be the one that says that it has ended. */
lsn_t vault_fold_limit(const struct vault *vault)
{
	if (vault_initial_copy(vault))
		return vault->complete - (vault->complete > 0);
	return vault->consistent;
}

/* F <= the f-th largest floor, and here also <= every floor: a store in service, or being filled,
 * never lacks what its peers have folded. F never stands inside a catch-up that has a point before
 * it: one that has ended is not folded before all have it. */
static lsn_t fold_bound(const struct vault *vault)
{
	lsn_t floor[SHARDS_MAX] = {0}, bound = vault_fold_limit(vault);
	for (unsigned i = 0; i < vault->n; i++) {
		if (!folds(vault, i))
			continue;
		bound = min_u64(bound, vault->store[i].floor);
		if (vault->store[i].in_service)
			floor[i] = vault->store[i].floor;
	}
	bound = min_u64(bound, points_fold(vault->quorum, floor, vault_in_service(vault)));
	return spans_foldable(&vault->meta.spans, bound);
}

/* A part of what could be folded at a time, so that room comes back while there still is some and
 * no write waits for all of it; but so much that its superblocks are paid for, and where a catch-up
 * has a point before it the whole of it or nothing. */
static lsn_t fold_step(const struct vault *vault, lsn_t bound)
{
	const struct spans *spans = &vault->meta.spans;
	lsn_t from = vault->meta.fold_point;
	lsn_t least =
		max_u64(vault->config->segment_bytes, FOLD_BYTES_MIN) / vault->shard_bytes_max;
	lsn_t step = from + max_u64((bound - from) / FOLD_STEPS, least);
	for (unsigned i = 0; i < spans->count; i++)
		if (spans->span[i].kind == SPAN_CATCH_UP && spans->span[i].parent_last &&
		    step > spans->span[i].parent_last)
			step = max_u64(step, spans_last(spans, i));
	return min_u64(step, bound);
}

static bool fold_recorded(const struct vault *vault)
{
	for (unsigned i = 0; i < vault->n; i++)
		if (vault->store[i].in_service && vault->meta_on[i] < vault->fold_version)
			return false;
	return true;
}

bool vault_fold_due(const struct vault *vault)
{
	if (vault->state != VAULT_READY || vault->spans_ahead || !fold_wanted(vault))
		return false;
	lsn_t bound = fold_bound(vault);
	/* A fold to where the images are already still takes out what a span has voided. */
	return bound > vault->meta.fold_point ||
	       (bound == vault->meta.fold_point && vault->void_tail);
}

static void fold_begin(struct vault *vault, struct effects *fx)
{
	bool ours = !rebuild_copies(vault) || fx->now >= vault->rebuild.turn_until;
	if (!ours || vault_fold_held(vault) || !vault_fold_due(vault))
		return;
	vault->void_tail = false;
	vault->meta.fold_point = fold_step(vault, fold_bound(vault));
	vault->fold_version = vault_meta_changed(vault, fx);
	vault->fold_started = false;
	vault->fold_began = fx->now;
}

/* Not while a fold is under way: what it has yet to bring counts by its span. */
void vault_spans_forget(struct vault *vault)
{
	if (!vault->fold_version)
		spans_prune(&vault->meta.spans, vault->meta.fold_point);
}

void vault_fold_turn(struct vault *vault, struct effects *fx)
{
	if (!vault->fold_version) {
		fold_begin(vault, fx);
		return;
	}
	if (!vault->fold_started) {
		if (!fold_recorded(vault))
			return;
		vault->fold_started = true;
		/* The superblock of one that is being filled is its own affair: store_fold. */
		for (unsigned i = 0; i < vault->n; i++)
			if (folds(vault, i)) {
				vault->folding |= 1u << i;
				store_fold(vault->store[i].store, vault->meta.fold_point, fx);
			}
		return;
	}
	if (vault->folding)
		return;
	/* What is in every image needs its span no more; the next record of the meta carries that.
	 */
	vault->fold_version = 0;
	/* Whoever copies an image has as much time. */
	vault->rebuild.turn_until =
		fx->now + max_u64(fx->now - vault->fold_began, copy_turn_min_ns);
	vault_spans_forget(vault);
	for (unsigned i = 0; i < vault->n && !vault->spans_ahead; i++)
		if (folds(vault, i))
			store_use_spans(vault->store[i].store, &vault->meta.spans);
}
