/* SPDX-License-Identifier: Apache-2.0 */
/* The image of a store that is made anew, block by block from its peers, while all fold on.
 *
 * Folds and copying take turns: a slot is written while nothing folds, and what is written is what
 * the fold point asks for at that moment. A block that the store's own folds have brought meanwhile
 * needs no copy: a record is a whole block. */
#include "rebuild.h"

#include <errno.h>
#include <stdio.h>

enum { COPIES_IN_FLIGHT = 8, BLOCKS_PER_TURN = 4096, STALE_FINDS_MAX = 16 };

static struct store *copy_target(const struct vault *vault)
{
	return vault->store[vault->rebuild.store].store;
}

static void copy_find(struct gather *gather, struct effects *fx);

static void copy_end(struct gather *gather, int result, struct effects *fx)
{
	struct vault *vault = gather->vault;
	must(vault->rebuild.in_flight, "what is under way is counted");
	vault->rebuild.in_flight--;
	if (result < 0) {
		char why[128];
		snprintf(why, sizeof why,
			 "%s block %llu has fewer than k good shards: casemate scrub tells all",
			 vault->config->volume[gather->volume].name,
			 (unsigned long long)gather->internal);
		rebuild_give_up(vault, result, why, fx);
	}
	gather_give(gather);
}

/* ---- writing ---- */
static void copy_written(struct gather *gather, int result, struct effects *fx)
{
	struct vault *vault = gather->vault;
	vault->rebuild.slot_writes--;
	if (result == 0)
		vault->rebuild.copied++;
	else
		rebuild_failed(vault, result, fx);
	copy_end(gather, 0, fx);
}

/* What is above its image point is in its journal, or will be; it folds that itself. */
static bool copy_wanted(const struct gather *gather)
{
	const struct vault *vault = gather->vault;
	const struct store *target = copy_target(vault);
	lsn_t point = store_image_point(target);
	struct record own;
	if (gather->record.lsn > point)
		return false;
	int result = store_find(target, gather->volume, gather->internal, point, &own);
	return result < 0 || own.lsn < gather->record.lsn;
}

/* A fold has brought nothing newer since it was read: what the target's own fold found bad is not
 * answered by an older version. */
static bool copy_is_newest(const struct gather *gather)
{
	const struct vault *vault = gather->vault;
	struct record record;
	uint32_t holders;
	return gather_find(vault, gather->volume, gather->internal, vault->meta.fold_point,
			   vault_in_service(vault), &record, &holders) == 0 &&
	       record.lsn == gather->record.lsn;
}

/* A fold is under way, or is due and it is not our turn. */
static bool copy_waits(const struct vault *vault, ns_t now)
{
	return vault->fold_version || vault->folding ||
	       (vault_fold_due(vault) && now >= vault->rebuild.turn_until);
}

static void copy_write(struct gather *gather, struct effects *fx)
{
	struct vault *vault = gather->vault;
	if (copy_waits(vault, fx->now)) {
		gather->next = vault->rebuild.parked;
		vault->rebuild.parked = gather;
	} else if (!copy_is_newest(gather)) {
		copy_find(gather, fx);
	} else if (copy_wanted(gather)) {
		vault->rebuild.slot_writes++;
		gather_write_slot(gather, vault->rebuild.store, fx);
	} else {
		copy_end(gather, 0, fx);
	}
}

static void copy_unpark(struct vault *vault, struct effects *fx)
{
	struct gather *parked = vault->rebuild.parked;
	vault->rebuild.parked = NULL;
	while (parked) {
		struct gather *next = parked->next;
		if (rebuild_copies(vault))
			copy_write(parked, fx);
		else
			copy_end(parked, 0, fx);
		parked = next;
	}
}

void copy_drop(struct vault *vault, struct effects *fx)
{
	must(!rebuild_copies(vault), "nothing is dropped that is wanted");
	copy_unpark(vault, fx);
}

/* ---- reading ---- */
static void copy_read(struct gather *gather, int result, struct effects *fx)
{
	unsigned target = gather->vault->rebuild.store;
	if (!rebuild_copies(gather->vault)) {
		copy_end(gather, 0, fx);
		return;
	}
	if (result == -ESTALE && gather->stale_finds++ < STALE_FINDS_MAX) {
		copy_find(gather, fx); /* a fold has brought a newer one */
		return;
	}
	if (result == 0)
		result = gather_rebuild(gather, 1u << target);
	if (result == 0)
		copy_write(gather, fx);
	else if (!gather_start_again(gather, fx))
		copy_end(gather, result, fx);
}

/* Never written stays as it was made. */
static void copy_find(struct gather *gather, struct effects *fx)
{
	struct vault *vault = gather->vault;
	int result = gather_find(vault, gather->volume, gather->internal, vault->meta.fold_point,
				 vault_in_service(vault), &gather->record, &gather->holders);
	if (result < 0)
		copy_end(gather, result == -ENOENT ? 0 : result, fx);
	else if (!copy_wanted(gather))
		copy_end(gather, 0, fx);
	else if (record_kind_has_payload(gather->record.kind))
		gather_start(gather, fx);
	else
		copy_write(gather, fx);
}

/* False when all that may be under way is, or no gather is to be had. */
static bool copy_begin(struct vault *vault, struct effects *fx)
{
	struct gather *gather =
		vault->rebuild.in_flight < COPIES_IN_FLIGHT ? gather_take(vault) : NULL;
	if (!gather)
		return false;
	vault->rebuild.in_flight++;
	gather->volume = vault->rebuild.volume;
	gather->internal = vault->rebuild.block++;
	gather->done = copy_read;
	gather->written = copy_written;
	copy_find(gather, fx);
	return true;
}

bool copy_turn(struct vault *vault, struct effects *fx)
{
	if (vault->rebuild.parked && !copy_waits(vault, fx->now))
		copy_unpark(vault, fx);
	for (unsigned looked = 0; looked < BLOCKS_PER_TURN && rebuild_copies(vault); looked++) {
		if (vault->rebuild.volume == vault->config->volume_count)
			break;
		const struct core_volume *volume = &vault->config->volume[vault->rebuild.volume];
		if (vault->rebuild.block == volume->size / volume->block_bytes) {
			vault->rebuild.volume++;
			vault->rebuild.block = 0;
		} else if (!copy_begin(vault, fx)) {
			break;
		}
	}
	return rebuild_copies(vault) && vault->rebuild.volume == vault->config->volume_count &&
	       !vault->rebuild.in_flight;
}
