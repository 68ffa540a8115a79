/* SPDX-License-Identifier: Apache-2.0 */
/* What a vault waits for and would wait for without end, looked for a few times a second. A store
 * whose disk does not answer goes out of service, as if a write to it had failed, where the others
 * can go on without it (docs/semantics.md "stores"). */
#include "vault.h"

#include <errno.h>

/* A start first syncs what a page cache may have gathered. */
static const ns_t disk_patience_ns = 10 * NS_PER_S, open_patience_ns = 60 * NS_PER_S,
		  look_interval_ns = 250 * NS_PER_MS;

/* A machine that stood still finds its disks slow once, not so many times in a row; what is stuck
 * stays so. */
enum { SLOW_LOOKS = 4, STUCK_LOOKS = 8, FULL_LOOKS = 8 };

/* Nothing more is asked of the store; what waits in it is answered. */
static void store_give_up(struct vault *vault, unsigned index, int err, struct effects *fx)
{
	struct store *store = vault->store[index].store;
	if (store_state_of(store) == STORE_OPENING) {
		store_open_give_up(store, err, fx);
		return;
	}
	store_abandon(store);
	store_turn(store, fx);
	vault_store_out(vault, index, err, fx);
}

/* Stores by which acknowledgements go on, or a promoted site can be opened again. */
static bool enough(const struct vault *vault, uint32_t mask)
{
	unsigned least =
		vault->state == VAULT_READY ? vault->quorum.w : points_open_min(vault->quorum);
	return (unsigned)__builtin_popcount(mask) >= least;
}

/* ---- disks that do not answer ---- */
static void older(ns_t *oldest, const struct io *io, bool busy)
{
	if (busy && io->since)
		*oldest = min_u64(*oldest, io->since);
}

static ns_t oldest_of(const struct vault *vault, unsigned index)
{
	ns_t oldest = store_oldest(vault->store[index].store);
	for (unsigned i = 0; i < VAULT_GATHER_ALL; i++) {
		const struct gather *gather = &vault->gather[i];
		older(&oldest, &gather->shard_read[index].io, gather->in_flight >> index & 1);
		older(&oldest, &gather->slot_write.io, gather->writing && gather->target == index);
	}
	return oldest;
}

static bool store_opens(const struct vault_store *slot)
{
	return slot->store && store_state_of(slot->store) == STORE_OPENING;
}

/* NS_NEVER: nobody waits for its disk. */
static ns_t patience_of(const struct vault_store *slot)
{
	if (slot->in_service || slot->rebuilding)
		return disk_patience_ns;
	return store_opens(slot) ? open_patience_ns : NS_NEVER;
}

/* Mask of the stores whose disk has kept an operation for too long, for some looks. */
static uint32_t slow_stores(struct vault *vault, ns_t now)
{
	uint32_t slow = 0;
	for (unsigned i = 0; i < vault->n; i++) {
		struct vault_store *slot = &vault->store[i];
		ns_t patience = patience_of(slot);
		ns_t oldest = patience == NS_NEVER ? NS_NEVER : oldest_of(vault, i);
		if (oldest == NS_NEVER || now - oldest < patience)
			slot->slow_looks = 0;
		else if (slot->slow_looks <= SLOW_LOOKS)
			slot->slow_looks++;
		if (slot->slow_looks >= SLOW_LOOKS)
			slow |= 1u << i;
	}
	return slow;
}

/* What the group has without the slow ones: at a start, the stores that have been read. */
static uint32_t answering(const struct vault *vault, uint32_t slow)
{
	uint32_t mask = vault_in_service(vault);
	for (unsigned i = 0; vault->state == VAULT_OPENING && i < vault->n; i++)
		if (vault->store[i].store && store_state_of(vault->store[i].store) == STORE_READY)
			mask |= 1u << i;
	return mask & ~slow;
}

static void slow_turn(struct vault *vault, struct effects *fx)
{
	uint32_t slow = slow_stores(vault, fx->now);
	bool without = enough(vault, answering(vault, slow));
	for (unsigned i = 0; i < vault->n; i++) {
		struct vault_store *slot = &vault->store[i];
		if (!(slow >> i & 1))
			continue;
		bool rebuilt = !slot->in_service && vault->state != VAULT_OPENING;
		bool out = rebuilt || without;
		if (out || slot->slow_looks == SLOW_LOOKS)
			effects_note(
				fx, NOTE_ERROR, slot->subject,
				out ? "its disk has not answered for %llu s"
				    : "its disk has not answered for %llu s, and too few other "
				      "stores are there to go on without it",
				NOTE_NUMBERS(patience_of(slot) / NS_PER_S, 0, 0));
		if (out)
			store_give_up(vault, i, -ETIMEDOUT, fx);
	}
}

/* ---- stores that cannot be given what they lack ---- */
/* Too few of its peers can read it, or there is no room for it and nothing that makes some. */
static bool store_stuck(const struct vault_store *slot)
{
	bool full = !store_journal_room(slot->store) && store_oldest(slot->store) == NS_NEVER;
	return full || slot->unreadable == slot->floor + 1;
}

/* Whether the fold cannot move for this floor. */
static bool holds_fold(const struct vault *vault, lsn_t floor)
{
	return spans_foldable(&vault->meta.spans, floor) <= vault->meta.fold_point;
}

/* Mask of those that hold the fold back while records wait for the room that it would make. */
static uint32_t stuck_stores(struct vault *vault)
{
	bool wanted = vault->state == VAULT_READY && vault->room_wanted && !vault->fold_version &&
		      !vault_fold_held(vault);
	uint32_t stuck = 0;
	for (unsigned i = 0; i < vault->n; i++) {
		struct vault_store *slot = &vault->store[i];
		bool here = slot->in_service && holds_fold(vault, slot->floor);
		if (!wanted || !here || !store_stuck(slot))
			slot->stuck_looks = 0;
		else if (slot->stuck_looks <= STUCK_LOOKS)
			slot->stuck_looks++;
		if (slot->stuck_looks >= STUCK_LOOKS)
			stuck |= 1u << i;
	}
	return stuck;
}

static bool folds_without(const struct vault *vault, uint32_t stuck)
{
	bool folds = vault_fold_limit(vault) > vault->meta.fold_point;
	for (unsigned i = 0; i < vault->n; i++)
		if ((vault->store[i].in_service && !(stuck >> i & 1)) || rebuild_fills(vault, i))
			folds &= !holds_fold(vault, vault->store[i].floor);
	return folds;
}

/* docs/semantics.md "fold": as long as it can, a store that is behind stays in service. */
static void stuck_turn(struct vault *vault, struct effects *fx)
{
	uint32_t stuck = stuck_stores(vault);
	bool out = enough(vault, vault_in_service(vault) & ~stuck);
	if (!stuck || !folds_without(vault, stuck))
		return;
	for (unsigned i = 0; i < vault->n; i++) {
		struct vault_store *slot = &vault->store[i];
		if (!(stuck >> i & 1))
			continue;
		bool unreadable = slot->unreadable == slot->floor + 1;
		if (out || slot->stuck_looks == STUCK_LOOKS)
			effects_note(
				fx, NOTE_ERROR, slot->subject,
				out ? "it cannot be given lsn %llu, and the journals are full"
				    : "it cannot be given lsn %llu, the journals are full, and "
				      "too few other stores are in service to go on without it",
				NOTE_NUMBERS(slot->floor + 1, 0, 0));
		if (out)
			store_give_up(vault, i, unreadable ? -ENODATA : -ENOSPC, fx);
	}
}

/* ---- a catch-up that does not fit ---- */
/* docs/semantics.md "fold": while it is open nothing above its start is folded, and up to there
 * all is. */
static bool catch_up_stands(const struct vault *vault)
{
	return vault->state == VAULT_READY && vault->span_accepted && vault_catch_up_open(vault) &&
	       !vault_initial_copy(vault) && vault->room_wanted && !vault->fold_version &&
	       !vault->void_tail && vault->meta.fold_point >= vault->consistent;
}

static void full_turn(struct vault *vault, struct effects *fx)
{
	if (!catch_up_stands(vault))
		vault->full_looks = 0;
	else if (vault->full_looks < FULL_LOOKS)
		vault->full_looks++;
	if (!watch_stalled(vault) || vault->full_told)
		return;
	vault->full_told = true;
	uint64_t journal = (uint64_t)vault->config->segment_count * vault->config->segment_bytes;
	uint64_t taken = vault->base + 1 - spans_newest(&vault->meta.spans)->first;
	effects_note(fx, NOTE_WARNING, vault_subject(vault),
		     "the catch-up does not fit the journals of %llu MiB: it stands still after "
		     "%llu blocks, and lsn %llu stays what a promotion would serve; it takes "
		     "larger journals or less data",
		     NOTE_NUMBERS(journal / MIB, taken, vault->consistent));
}

bool watch_stalled(const struct vault *vault)
{
	return vault->full_looks == FULL_LOOKS;
}

void watch_reset(struct vault *vault)
{
	vault->full_looks = 0;
	vault->full_told = false;
}

/* ---- a few times a second ---- */
/* What a disk still holds of a store that is out, nobody waits for. */
static void leave_disks(struct vault *vault, struct effects *fx)
{
	gather_leave_disks(vault, fx);
	if (!vault->spare.wanted)
		return;
	vault->spare.wanted = false;
	for (unsigned i = 0; i < vault->n; i++)
		if (vault->store[i].appending && !vault->store[i].in_service &&
		    !vault->store[i].rebuilding)
			receive_store_gone(vault, i);
}

void watch_turn(struct vault *vault, struct effects *fx)
{
	if (fx->now - vault->looked_at < look_interval_ns)
		return;
	vault->looked_at = fx->now;
	slow_turn(vault, fx);
	stuck_turn(vault, fx);
	full_turn(vault, fx);
	leave_disks(vault, fx);
}
