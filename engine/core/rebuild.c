/* SPDX-License-Identifier: Apache-2.0 */
/* A store made anew: it takes new records at once, gets those above the fold point from its peers,
 * folds with them from then on, and gets the image (rebuild_copy.c); then its floor counts. All of
 * it from ciphertext (docs/semantics.md "rebuild").
 *
 * Two orders, so that nobody touches the files of a store that the vault still needs: the first
 * judges, gives the old store up and reserves its place; the files are made; the second brings
 * them. What fails in between leaves the store out. */
#include "rebuild.h"

#include <errno.h>
#include <stdio.h>

/* In order; rebuild_enter is the one place that changes it. */
enum rebuild_phase {
	REBUILD_NONE,
	REBUILD_PROVING,  /* nothing has been changed yet */
	REBUILD_RETIRING, /* the old store is recorded as out; its last operations come back */
	REBUILD_RESERVED, /* whoever asked makes the files */
	REBUILD_WAITING,  /* for a fold to end */
	REBUILD_OPENING,
	REBUILD_PREPARING, /* it learns what the group is */
	REBUILD_FILLING,   /* the journal: refill.c */
	REBUILD_COPYING,   /* the image: rebuild_copy.c */
	REBUILD_OWN,	   /* its own superblock says how far it is */
	REBUILD_RECORDING, /* the others' say that it is in service */
	REBUILD_FAILING,   /* what is under way comes back */
};

static const ns_t retire_timeout_ns = 30 * NS_PER_S, proof_timeout_ns = 30 * NS_PER_S,
		  fold_timeout_ns = 600 * NS_PER_S, fold_room_timeout_ns = 30 * NS_PER_S,
		  fill_timeout_ns = 30 * NS_PER_S;
static const char under_way[] = "a rebuild or a promotion is under way: wait for it",
		  unproven[] = "what was acknowledged is not proven to be on the stores that are "
			       "left: bring others back, or promote and accept the loss";

static struct vault_store *target_of(struct vault *vault)
{
	return &vault->store[vault->rebuild.store];
}

static void rebuild_enter(struct vault *vault, enum rebuild_phase phase)
{
	vault->rebuild.phase = (uint8_t)phase;
}

static enum rebuild_phase rebuild_phase(const struct vault *vault)
{
	return (enum rebuild_phase)vault->rebuild.phase;
}

bool rebuild_copies(const struct vault *vault)
{
	return rebuild_phase(vault) == REBUILD_COPYING;
}

bool rebuild_holds_fold(const struct vault *vault)
{
	enum rebuild_phase phase = rebuild_phase(vault);
	return (phase >= REBUILD_WAITING && phase <= REBUILD_PREPARING) ||
	       vault->rebuild.slot_writes;
}

bool rebuild_fills(const struct vault *vault, unsigned index)
{
	enum rebuild_phase phase = rebuild_phase(vault);
	return vault->rebuild.store == index && phase >= REBUILD_FILLING &&
	       phase <= REBUILD_RECORDING;
}

/* ---- the end, good or bad ---- */
static void rebuild_end(struct vault *vault, int result, struct effects *fx)
{
	struct command *command = vault->rebuilding;
	vault->rebuilding = NULL;
	rebuild_enter(vault, REBUILD_NONE);
	command->number[0] = vault->rebuild.copied;
	command->number[1] = vault->refill.filled - vault->rebuild.filled_before;
	vault_answer(command, result, fx);
}

/* The store is given up; the order is answered when no other one works for it any more. Its own
 * disk may never answer: its memory, and its place, are used again only when it has. Once its own
 * superblock may say that it is in service, those of the others say more. */
void rebuild_give_up(struct vault *vault, int err, const char *why, struct effects *fx)
{
	enum rebuild_phase phase = rebuild_phase(vault);
	struct vault_store *slot = target_of(vault);
	if (phase <= REBUILD_RESERVED || phase == REBUILD_FAILING)
		return;
	snprintf(vault->rebuilding->text, sizeof vault->rebuilding->text, "store %u: %s",
		 vault->rebuild.store, why);
	vault->rebuild.err = err;
	rebuild_enter(vault, REBUILD_FAILING);
	slot->rebuilding = false;
	if (slot->store)
		store_abandon(slot->store);
	vault->folding &= ~(1u << vault->rebuild.store);
	receive_store_gone(vault, vault->rebuild.store);
	if (phase == REBUILD_OWN || phase == REBUILD_RECORDING) {
		vault->meta.incarnation[vault->rebuild.store] = vault->rebuild.incarnation;
		vault->meta.out |= 1u << vault->rebuild.store;
		vault->out_version = vault_meta_changed(vault, fx);
	}
}

void rebuild_failed(struct vault *vault, int err, struct effects *fx)
{
	char why[64] = "there is no room on its disk";
	if (err != -ENOSPC)
		snprintf(why, sizeof why, "a write or sync to it failed (errno %d)", -err);
	rebuild_give_up(vault, err, why, fx);
}

static void failing_turn(struct vault *vault, struct effects *fx)
{
	bool refilling = vault->refill.in_flight && vault->refill.store == vault->rebuild.store;
	copy_drop(vault, fx);
	if (!vault->rebuild.in_flight && !refilling)
		rebuild_end(vault, vault->rebuild.err, fx);
}

/* ---- begin ---- */
static int rebuild_judge(const struct vault *vault, unsigned index, const char **why)
{
	uint32_t others = vault_in_service(vault) & ~(1u << index);
	if (vault->promoting) {
		*why = under_way;
		return -EBUSY;
	}
	if (vault->state != VAULT_READY && vault->state != VAULT_SERVING) {
		*why = vault->state == VAULT_REFUSED && vault->refusal ? vault->refusal
								       : "the group is not ready";
		return -EAGAIN;
	}
	if (vault->store[index].in_service) {
		*why = "is in service: there is nothing to rebuild";
		return -EEXIST;
	}
	if ((unsigned)__builtin_popcount(others) < vault->config->geometry.k) {
		*why = "fewer than k other stores are in service: bring more back first";
		return -ENODATA;
	}
	return 0;
}

static void rebuild_refuse(struct command *command, int result, const char *why, struct effects *fx)
{
	snprintf(command->text, sizeof command->text, "store %u: %s", command->store, why);
	vault_answer(command, result, fx);
}

/* docs/semantics.md "rebuild": a new store knows nothing of what was acknowledged. Counted as
 * present, it would hide from the proof that one of those which knew is gone. */
static bool nothing_is_hidden(const struct vault *vault)
{
	if (vault->state != VAULT_READY)
		return true; /* what is served was proven, or its loss accepted */
	lsn_t consistent = points_consistent_now(vault, vault_in_service(vault));
	return points_promotion_of(vault, consistent).proven;
}

static void give_up_unproven(struct vault *vault, struct effects *fx)
{
	rebuild_give_up(vault, -EAGAIN, unproven, fx);
}

/* The place is recorded as out under a number of its own, and the store that is made has the next:
 * so no two tries have one number, whatever became of the first. */
static void retire(struct vault *vault, struct effects *fx)
{
	unsigned index = vault->rebuild.store;
	if (target_of(vault)->store)
		store_abandon(target_of(vault)->store);
	gather_orphan_store(vault, index);
	vault->meta.out |= 1u << index;
	vault->rebuild.incarnation = ++vault->meta.incarnation[index] + 1;
	vault->rebuild.version = vault_meta_changed(vault, fx);
	vault->rebuild.waiting_since = fx->now;
	rebuild_enter(vault, REBUILD_RETIRING);
}

/* What the old store holds may be the proof that is lacking: its files are left alone until there
 * is one without it. Under load, with fewer than w stores, that may take a moment. */
static void proving_turn(struct vault *vault, struct effects *fx)
{
	struct command *command = vault->rebuilding;
	const char *why = unproven;
	int result = rebuild_judge(vault, vault->rebuild.store, &why);
	if (result == 0 && nothing_is_hidden(vault)) {
		retire(vault, fx);
		return;
	}
	if (result == 0 && fx->now - vault->rebuild.waiting_since < proof_timeout_ns)
		return;
	vault->rebuilding = NULL;
	rebuild_enter(vault, REBUILD_NONE);
	rebuild_refuse(command, result ? result : -EAGAIN, why, fx);
}

void rebuild_prepare(struct vault *vault, struct command *command, struct effects *fx)
{
	if (command->store >= vault->n) {
		rebuild_refuse(command, -EINVAL, "no such store: they are counted from 0 to n - 1",
			       fx);
		return;
	}
	if (rebuild_phase(vault)) {
		rebuild_refuse(command, -EBUSY, under_way, fx);
		return;
	}
	memset(&vault->rebuild, 0, sizeof vault->rebuild);
	vault->rebuilding = command;
	vault->rebuild.store = command->store;
	vault->rebuild.waiting_since = fx->now;
	rebuild_enter(vault, REBUILD_PROVING);
	proving_turn(vault, fx);
}

static bool being_read(const struct vault *vault, unsigned index)
{
	for (unsigned i = 0; i < VAULT_GATHER_ALL; i++)
		if (vault->gather[i].in_flight >> index & 1)
			return true;
	return false;
}

/* From the answer on nothing of the core is under way to the old store's files. */
static void retiring_turn(struct vault *vault, struct effects *fx)
{
	struct command *command = vault->rebuilding;
	const struct store *store = target_of(vault)->store;
	unsigned index = vault->rebuild.store;
	bool recorded = vault->meta_durable >= vault->rebuild.version;
	if (recorded && !being_read(vault, index) && (!store || store_idle(store))) {
		vault->rebuilding = NULL;
		command->set = vault->meta.set;
		command->incarnation = vault->rebuild.incarnation;
		rebuild_enter(vault, REBUILD_RESERVED);
		vault_answer(command, 0, fx);
	} else if (fx->now - vault->rebuild.waiting_since >= retire_timeout_ns) {
		vault->rebuilding = NULL;
		rebuild_enter(vault, REBUILD_NONE);
		rebuild_refuse(command, -ETIMEDOUT,
			       recorded
				       ? "operations on the old store do not end: restart casemated"
				       : "the others cannot record that it is out: see their disks",
			       fx);
	}
}

static bool rebuild_reserved(const struct vault *vault, const struct command *command)
{
	return rebuild_phase(vault) == REBUILD_RESERVED && command->store == vault->rebuild.store &&
	       command->incarnation == vault->rebuild.incarnation;
}

void rebuild_start(struct vault *vault, struct command *command, struct effects *fx)
{
	if (!rebuild_reserved(vault, command)) {
		rebuild_refuse(command, -EINVAL, "nothing was prepared for it", fx);
		return;
	}
	vault->rebuilding = command;
	vault->rebuild.waiting_since = fx->now;
	rebuild_enter(vault, REBUILD_WAITING);
}

void rebuild_cancel(struct vault *vault, struct command *command, struct effects *fx)
{
	if (!rebuild_reserved(vault, command)) {
		rebuild_refuse(command, -EINVAL, "nothing was prepared for it", fx);
		return;
	}
	rebuild_enter(vault, REBUILD_NONE);
	vault_answer(command, 0, fx);
}

/* A large journal is long in folding; one that waits for room on a disk may be so for ever. */
static ns_t fold_patience(const struct vault *vault)
{
	for (unsigned i = 0; i < vault->n; i++)
		if (vault->store[i].in_service && store_wants_room(vault->store[i].store))
			return fold_room_timeout_ns;
	return fold_timeout_ns;
}

static void waiting_turn(struct vault *vault, struct effects *fx)
{
	struct vault_store *slot = target_of(vault);
	unsigned index = vault->rebuild.store;
	if (vault->fold_version || vault->folding) {
		if (fx->now - vault->rebuild.waiting_since >= fold_patience(vault))
			rebuild_give_up(vault, -EAGAIN, "a fold does not end: see the other disks",
					fx);
		return;
	}
	if (!nothing_is_hidden(vault)) {
		if (fx->now - vault->rebuild.waiting_since >= proof_timeout_ns)
			give_up_unproven(vault, fx);
		return;
	}
	slot->writing = false;
	slot->floor = slot->unreadable = slot->appended = 0;
	slot->store = vault_store_make(vault, index, &vault->rebuilding->files);
	if (!slot->store) {
		rebuild_give_up(vault, -ENOMEM, "no memory for it: restart casemated", fx);
		return;
	}
	rebuild_enter(vault, REBUILD_OPENING);
	store_open(slot->store, fx);
}

/* ---- opened: it learns what the group is, and takes new records from here on ---- */
/* From here on it folds with the others, each block as a whole, though its image is not there yet:
 * else those whose journals are full would wait for it, and it for what they cannot take. */
static void filling_begin(struct vault *vault, struct effects *fx)
{
	must(vault->rebuild.point == vault->meta.fold_point, "no fold came in between");
	store_set_image_point(target_of(vault)->store, vault->rebuild.point);
	vault->rebuild.filled_before = vault->refill.filled;
	/* docs/semantics.md "rebuild": the old store may have helped to acknowledge up to here, and
	 * to nothing above. With fewer than w stores in service no lsn is durable, yet what k of
	 * them hold may have been acknowledged before. */
	vault->rebuild.goal =
		max_u64(vault->rebuild.point, max_u64(vault->durable, vault->complete));
	vault->rebuild.floor_since = fx->now;
	rebuild_enter(vault, REBUILD_FILLING);
}

static void prepared(struct store_superblock_write *write, int result, struct effects *fx)
{
	struct vault_store *slot = container_of(write, struct vault_store, write);
	slot->writing = false;
	if (result == 0 && rebuild_phase(slot->vault) == REBUILD_PREPARING)
		filling_begin(slot->vault, fx);
}

static void write_own(struct vault *vault, const struct store_group *meta,
		      void (*done)(struct store_superblock_write *, int, struct effects *),
		      struct effects *fx)
{
	struct vault_store *slot = target_of(vault);
	must(!slot->writing, "nobody else writes the superblock of a store being rebuilt");
	slot->writing = true;
	slot->vault = vault;
	slot->write = (struct store_superblock_write){.group = meta, .done = done};
	store_write_group(slot->store, &slot->write, fx);
}

void rebuild_opened(struct vault *vault, int result, struct effects *fx)
{
	struct vault_store *slot = target_of(vault);
	if (rebuild_phase(vault) != REBUILD_OPENING)
		return;
	if (result < 0) {
		rebuild_give_up(vault, result,
				result == -ETIMEDOUT ? "its disk does not answer"
						     : "what was made for it cannot be opened",
				fx);
		return;
	}
	if (!uuid_equal(&store_group_of(slot->store)->set, &vault->meta.set) ||
	    store_incarnation(slot->store) != vault->rebuild.incarnation) {
		rebuild_give_up(vault, -EEXIST, "is not a new store of this group", fx);
		return;
	}
	store_use_spans(slot->store, &vault->meta.spans);
	slot->rebuilding = true;
	vault->promised = (struct promise){0}; /* it was told nothing yet */
	vault->rebuild.point = vault->meta.fold_point;
	effects_note(fx, NOTE_INFO, slot->subject, "rebuild from lsn %llu",
		     NOTE_NUMBERS(vault->rebuild.point, 0, 0));
	rebuild_enter(vault, REBUILD_PREPARING);
	write_own(vault, &vault->meta, prepared, fx);
}

/* ---- the journal, and into service ---- */
static void own_written(struct store_superblock_write *write, int result, struct effects *fx)
{
	struct vault_store *slot = container_of(write, struct vault_store, write);
	struct vault *vault = slot->vault;
	unsigned index = vault->rebuild.store;
	slot->writing = false;
	if (result < 0 || rebuild_phase(vault) != REBUILD_OWN)
		return;
	vault->meta.incarnation[index] = vault->rebuild.incarnation;
	vault->meta.out &= ~(1u << index);
	vault->rebuild.version = vault_meta_changed(vault, fx);
	rebuild_enter(vault, REBUILD_RECORDING);
}

/* Its floor holds the fold of all: it may not stand below this for long. False: given up. */
static bool floor_moves(struct vault *vault, lsn_t least, struct effects *fx)
{
	const struct vault_store *slot = target_of(vault);
	if (slot->unreadable > slot->floor) {
		rebuild_give_up(vault, -ENODATA, "a record has fewer than k good shards", fx);
		return false;
	}
	/* Stores are filled one after the other: while one is, the others wait for their turn. */
	uint64_t progress = slot->floor + vault->refill.filled;
	if (slot->floor >= least || progress != vault->rebuild.progress) {
		vault->rebuild.progress = progress;
		vault->rebuild.floor_since = fx->now;
	} else if (fx->now - vault->rebuild.floor_since >= fill_timeout_ns) {
		rebuild_give_up(vault, -ENOSPC,
				store_journal_room(slot->store)
					? "what it lacks does not come: see the other disks"
					: "its journal has no room for all that the others hold: "
					  "try again when less is written",
				fx);
	}
	return vault->rebuild.phase != REBUILD_FAILING;
}

static void filling_turn(struct vault *vault, struct effects *fx)
{
	if (floor_moves(vault, vault->rebuild.goal, fx) &&
	    target_of(vault)->floor >= vault->rebuild.goal)
		rebuild_enter(vault, REBUILD_COPYING);
}

/* Its own superblock first: a crash between the two leaves it out of service, or in service with
 * all that it needs, never half in. */
static void copying_turn(struct vault *vault, struct effects *fx)
{
	unsigned index = vault->rebuild.store;
	if (!floor_moves(vault, max_u64(vault->complete, vault->durable), fx))
		return;
	if (!copy_turn(vault, fx)) {
		vault->rebuild.waiting_since = fx->now;
		return;
	}
	if (!nothing_is_hidden(vault)) {
		if (fx->now - vault->rebuild.waiting_since >= proof_timeout_ns)
			give_up_unproven(vault, fx);
		return;
	}
	struct store_group meta = vault->meta;
	meta.incarnation[index] = vault->rebuild.incarnation;
	meta.out &= ~(1u << index);
	vault->meta_on[index] = vault->meta_sent[index] = vault->meta_version;
	rebuild_enter(vault, REBUILD_OWN);
	write_own(vault, &meta, own_written, fx);
}

static void recording_turn(struct vault *vault, struct effects *fx)
{
	struct vault_store *slot = target_of(vault);
	if (vault->meta_durable < vault->rebuild.version)
		return;
	slot->rebuilding = false;
	slot->in_service = true;
	vault->points_changed = true;
	vault_meta_changed(vault, fx); /* what changed since its own was written */
	effects_note(fx, NOTE_INFO, slot->subject,
		     "rebuilt and in service: %llu blocks, %llu records",
		     NOTE_NUMBERS(vault->rebuild.copied,
				  vault->refill.filled - vault->rebuild.filled_before, 0));
	rebuild_end(vault, 0, fx);
}

/* Where it wants room the folds of all would wait for it. */
static void room_look(struct vault *vault, struct effects *fx)
{
	if (rebuild_fills(vault, vault->rebuild.store) && store_wants_room(target_of(vault)->store))
		rebuild_failed(vault, -ENOSPC, fx);
}

void rebuild_turn(struct vault *vault, struct effects *fx)
{
	room_look(vault, fx);
	switch (rebuild_phase(vault)) {
	case REBUILD_NONE:
	case REBUILD_RESERVED: /* an order goes on */
	case REBUILD_OPENING:
	case REBUILD_PREPARING:
	case REBUILD_OWN:
		break; /* a completion goes on */
	case REBUILD_PROVING:
		proving_turn(vault, fx);
		break;
	case REBUILD_RETIRING:
		retiring_turn(vault, fx);
		break;
	case REBUILD_WAITING:
		waiting_turn(vault, fx);
		break;
	case REBUILD_COPYING:
		copying_turn(vault, fx);
		break;
	case REBUILD_FILLING:
		filling_turn(vault, fx);
		break;
	case REBUILD_RECORDING:
		recording_turn(vault, fx);
		break;
	case REBUILD_FAILING:
		failing_turn(vault, fx);
		break;
	}
}
