/* SPDX-License-Identifier: Apache-2.0 */
/* Reads every shard of every block once and checks it; what is bad or missing is computed from k
 * good ones and written back. The vault needs no key for it. */
#include "vault.h"

#include <errno.h>
#include <stdio.h>

enum { BLOCKS_IN_FLIGHT = 8, BLOCKS_PER_TURN = 4096, STALE_FINDS_MAX = 3 };

/* Up to here nothing is still on its way from memory to a store. */
static lsn_t scrub_limit(const struct vault *vault)
{
	return max_u64(min_u64(vault->consistent, vault->base), vault->meta.fold_point);
}

static void block_end(struct gather *gather)
{
	must(gather->vault->scrub.in_flight, "what is under way is counted");
	gather->vault->scrub.in_flight--;
	gather_give(gather);
}

static void block_lost(struct gather *gather, struct effects *fx)
{
	struct vault *vault = gather->vault;
	const char *name = vault->config->volume[gather->volume].name;
	char *text = vault->scrubbing->text;
	size_t used = strlen(text), room = sizeof vault->scrubbing->text - used;
	static const char more[] = ", ...";
	char block[NAME_BYTES_MAX + 32];
	snprintf(block, sizeof block, "%s%s %llu", vault->scrub.lost ? ", " : "lost: ", name,
		 (unsigned long long)gather->internal);
	if (vault->scrub.lost == 0)
		effects_note(fx, NOTE_ERROR, name,
			     "block %llu has too few good shards: it is lost unless a store comes "
			     "back",
			     NOTE_NUMBERS(gather->internal, 0, 0));
	if (strlen(block) + sizeof more <= room)
		snprintf(text + used, room, "%s", block);
	else if (used && text[used - 1] != '.')
		snprintf(text + used, room, "%s", more);
	vault->scrub.lost++;
	block_end(gather);
}

/* ---- repairing: one store after the other, from the shards of the gather ---- */
static void repair_next(struct gather *gather, struct effects *fx);

static void park(struct gather *gather)
{
	gather->next = gather->vault->scrub.parked;
	gather->vault->scrub.parked = gather;
}

static void repair_written(struct gather *gather, int result, struct effects *fx)
{
	struct vault *vault = gather->vault;
	bool slot = gather->writes_slot;
	vault->scrub.slot_writes -= slot;
	gather->writes_slot = false;
	/* A journal has room again when it is folded. A full disk is not waited for: the fold would
	 * be held meanwhile; the next scrub tries again. */
	if (result == -ENOSPC && !slot) {
		gather->repair |= 1u << gather->target;
		park(gather);
		return;
	}
	vault->scrub.repaired += result == 0;
	repair_next(gather, fx);
}

static bool is_newest(const struct gather *gather)
{
	const struct vault *vault = gather->vault;
	struct record record;
	uint32_t holders;
	int result = gather_find(vault, gather->volume, gather->internal, scrub_limit(vault),
				 vault_in_service(vault), &record, &holders);
	if (result == -ENOENT)
		return !gather->record.lsn;
	return result == 0 && record.lsn == gather->record.lsn;
}

/* What a store should have in its image goes there, while nothing folds and nothing newer can be
 * overwritten; all else goes through its journal. */
static void repair_next(struct gather *gather, struct effects *fx)
{
	struct vault *vault = gather->vault;
	gather->repair &= vault_in_service(vault);
	if (!gather->repair || !is_newest(gather)) {
		block_end(gather);
		return;
	}
	unsigned index = (unsigned)__builtin_ctz(gather->repair);
	bool slot = gather->record.lsn <= store_image_point(vault->store[index].store);
	if (slot && (vault->fold_version || vault->folding)) {
		park(gather);
		return;
	}
	gather->repair &= ~(1u << index);
	gather->writes_slot = slot;
	vault->scrub.slot_writes += slot;
	if (slot)
		gather_write_slot(gather, index, fx);
	else
		gather_append(gather, index, fx);
}

static void repair_begin(struct gather *gather, uint32_t mask, struct effects *fx)
{
	gather->repair = mask;
	gather->vault->scrub.bad += (unsigned)__builtin_popcount(mask);
	repair_next(gather, fx);
}

/* ---- one block ---- */
static void scrub_find(struct gather *gather, struct effects *fx);

static void scrub_read(struct gather *gather, int result, struct effects *fx)
{
	struct vault *vault = gather->vault;
	uint32_t mask = vault_in_service(vault);
	if (result == -ESTALE && gather->stale_finds++ < STALE_FINDS_MAX) {
		scrub_find(gather, fx);
		return;
	}
	if (result == 0)
		result = gather_rebuild(gather, mask & ~gather->read);
	if (result < 0 && gather_start_again(gather, fx))
		return;
	vault->scrub.read += (unsigned)__builtin_popcount(gather->asked);
	if (result < 0) {
		vault->scrub.bad += (unsigned)__builtin_popcount(mask & ~gather->read);
		block_lost(gather, fx);
		return;
	}
	repair_begin(gather, mask & ~gather->read, fx);
}

/* Never written, but a store cannot say so: its header is damaged. */
static uint32_t damaged_headers(const struct gather *gather, uint32_t mask)
{
	const struct vault *vault = gather->vault;
	uint32_t damaged = 0;
	struct record record;
	for (unsigned i = 0; i < vault->n; i++)
		if (mask >> i & 1 && store_find(vault->store[i].store, gather->volume,
						gather->internal, UINT64_MAX, &record) == -EBADMSG)
			damaged |= 1u << i;
	return damaged;
}

static void scrub_find(struct gather *gather, struct effects *fx)
{
	struct vault *vault = gather->vault;
	uint32_t mask = vault_in_service(vault);
	int result = gather_find(vault, gather->volume, gather->internal, scrub_limit(vault), mask,
				 &gather->record, &gather->holders);
	if (result == -ENOENT) {
		gather->record = (struct record){.volume = vault->meta.volume[gather->volume].id,
						 .block = gather->internal};
		repair_begin(gather, damaged_headers(gather, mask), fx);
	} else if (result < 0) {
		block_lost(gather, fx);
	} else if (record_kind_has_payload(gather->record.kind)) {
		gather_start(gather, fx);
	} else {
		vault->scrub.read += (unsigned)__builtin_popcount(gather->holders);
		repair_begin(gather, mask & ~gather->holders, fx);
	}
}

/* ---- all of them ---- */
void scrub_start(struct vault *vault, struct command *command, struct effects *fx)
{
	int result = 0;
	command->text[0] = 0;
	if (vault->scrubbing) {
		snprintf(command->text, sizeof command->text, "a scrub is under way: wait for it");
		result = -EBUSY;
	} else if (vault->state != VAULT_READY && vault->state != VAULT_SERVING) {
		snprintf(command->text, sizeof command->text, "%s",
			 vault->state == VAULT_REFUSED && vault->refusal
				 ? vault->refusal
				 : "the group is not ready");
		result = -EAGAIN;
	}
	if (result < 0) {
		vault_answer(command, result, fx);
		return;
	}
	memset(&vault->scrub, 0, sizeof vault->scrub);
	vault->scrubbing = command;
}

static void scrub_end(struct vault *vault, struct effects *fx)
{
	struct command *command = vault->scrubbing;
	vault->scrubbing = NULL;
	command->number[0] = vault->scrub.read;
	command->number[1] = vault->scrub.bad;
	command->number[2] = vault->scrub.repaired;
	command->number[3] = vault->scrub.lost;
	effects_note(fx, vault->scrub.bad ? NOTE_WARNING : NOTE_INFO, vault_subject(vault),
		     "scrub: %llu shards read, %llu bad or missing, %llu repaired",
		     NOTE_NUMBERS(vault->scrub.read, vault->scrub.bad, vault->scrub.repaired));
	vault_answer(command, vault->scrub.lost ? -ENODATA : 0, fx);
}

static void unpark(struct vault *vault, struct effects *fx)
{
	struct gather *parked = vault->scrub.parked;
	vault->scrub.parked = NULL;
	while (parked) {
		struct gather *gather = parked;
		parked = gather->next;
		repair_next(gather, fx);
	}
}

void scrub_turn(struct vault *vault, struct effects *fx)
{
	if (!vault->scrubbing)
		return;
	unpark(vault, fx);
	for (unsigned looked = 0; looked < BLOCKS_PER_TURN; looked++) {
		const struct core_volume *volume = &vault->config->volume[vault->scrub.volume];
		if (vault->scrub.volume == vault->config->volume_count)
			break;
		if (vault->scrub.block == volume->size / volume->block_bytes) {
			vault->scrub.volume++;
			vault->scrub.block = 0;
			continue;
		}
		struct gather *gather =
			vault->scrub.in_flight < BLOCKS_IN_FLIGHT ? gather_take(vault) : NULL;
		if (!gather)
			return;
		vault->scrub.in_flight++;
		gather->volume = vault->scrub.volume;
		gather->internal = vault->scrub.block++;
		gather->want_all = true;
		gather->done = scrub_read;
		gather->written = repair_written;
		scrub_find(gather, fx);
	}
	if (vault->scrub.volume == vault->config->volume_count && !vault->scrub.in_flight)
		scrub_end(vault, fx);
}
