/* SPDX-License-Identifier: Apache-2.0 */
/* After a restart: the blocks of all intents are compared by tag, and sent again as new writes
 * where they differ. The vault tells (identity, tag) of its version at the consistent point; we
 * seal our own block under that identity and compare 16 bytes (docs/semantics.md "catch-up"). */
#include "primary.h"

#include <errno.h>

static const ns_t compare_timeout_ns = 300 * NS_PER_MS;

void catchup_start(struct primary *primary, struct effects *fx)
{
	if (primary->region_cursor || primary->end_lsn || primary->compared)
		return; /* the vault restarted in the middle: questions are asked again */
	/* What is compared was read, not yet synced by anyone: a crash must not take it back after
	 * its intent was settled. */
	for (unsigned i = 0; i < primary->config->volume_count; i++)
		primary->device[i].asked = true;
	effects_note(fx, NOTE_INFO, primary_subject(primary),
		     "catching up: %llu bytes may differ and are compared",
		     NOTE_NUMBERS(intent_open_bytes(primary->intent), 0, 0));
}

static uint32_t block_bytes_of(const struct primary *primary, uint8_t volume)
{
	return primary->config->volume[volume].block_bytes;
}

/* ---- asking ---- */
static void compare_send(struct primary *primary, struct compare *compare, struct effects *fx)
{
	struct wire_compare ask = {.group = primary->group,
				   .volume = compare->volume,
				   .ask = compare->ask,
				   .block = compare->block,
				   .count = compare->count};
	uint8_t text[WIRE_TEXT_BYTES_MAX];
	link_send_message(&primary->tools->link, text, wire_compare_encode(&ask, text), fx->now);
	compare->asked = fx->now;
}

static bool region_advance(struct primary *primary)
{
	uint64_t offset, length;
	if (primary->region_open && primary->region_block < primary->region_end)
		return true;
	primary->region_open = intent_next(primary->intent, &primary->region_cursor,
					   &primary->region_volume, &offset, &length);
	if (!primary->region_open) {
		primary->regions_done = true;
		return false;
	}
	uint32_t block_bytes = block_bytes_of(primary, primary->region_volume);
	primary->region_block = offset / block_bytes;
	primary->region_end = div_up(offset + length, block_bytes);
	return true;
}

static void compare_begin(struct primary *primary, struct compare *compare, struct effects *fx)
{
	if (primary->regions_done || !region_advance(primary))
		return;
	uint8_t *scratch = compare->scratch;
	uint32_t count =
		(uint32_t)min_u64(WIRE_TAGS_MAX, primary->region_end - primary->region_block);
	*compare = (struct compare){.open = true,
				    .ask = ++primary->ask_next,
				    .volume = primary->region_volume,
				    .block = primary->region_block,
				    .count = count,
				    .scratch = scratch,
				    .primary = primary};
	primary->region_block += count;
	compare_send(primary, compare, fx);
}

void primary_tags_received(struct primary *primary, const struct wire_tags *tags,
			   struct effects *fx)
{
	if (primary->state != PRIMARY_CATCHING_UP)
		return;
	for (unsigned i = 0; i < PRIMARY_COMPARES; i++) {
		struct compare *compare = &primary->compare[i];
		if (!compare->open || compare->answered || compare->ask != tags->ask ||
		    compare->block != tags->block || tags->count == 0 ||
		    tags->count > compare->count || tags->result < 0)
			continue;
		compare->tags = *tags;
		compare->answered = true;
		compare->at = 0;
	}
}

/* ---- comparing ---- */
static bool all_zeros(const uint8_t *bytes, uint32_t length)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

static bool block_matches(struct primary *primary, struct compare *compare, const uint8_t *block)
{
	const struct wire_tag *tag = &compare->tags.tag[compare->at];
	uint32_t block_bytes = block_bytes_of(primary, compare->volume);
	bool data = tag->kind == RECORD_DATA;
	bool reads_as_zeros = tag->kind == RECORD_ZERO || tag->kind == RECORD_DISCARD;
	if (!data && !all_zeros(block, block_bytes))
		return false;
	if (tag->kind == 0)
		return true;
	/* Damaged there, or no version of a block at all: nothing matches that. */
	if ((!data && !reads_as_zeros) || !tag->identity.lsn)
		return false;
	struct seal_context context = {
		.identity = tag->identity,
		.volume = intent_identity_of(primary->intent)->volume[compare->volume].id,
		.block = compare->block + compare->at,
		.block_bytes = block_bytes,
		.kind = tag->kind};
	const struct aead_key *subkey =
		seal_cache_take(&primary->tools->seals,
				(uint8_t)(primary->group * VOLUMES_PER_GROUP_MAX + compare->volume),
				primary->key[compare->volume], &tag->identity.span);
	return seal_matches(primary->tools->aead, subkey, &context, data ? block : NULL, tag->tag,
			    compare->scratch);
}

/* Gives the block to the write path as a copy; false when there is no operation to be had. */
static bool block_send(struct primary *primary, struct compare *compare, uint8_t *block,
		       struct effects *fx)
{
	struct operation *operation = operation_take(primary);
	if (!operation)
		return false;
	uint32_t block_bytes = block_bytes_of(primary, compare->volume);
	operation->volume = compare->volume;
	operation->block = compare->block + compare->at;
	operation->length = block_bytes;
	operation->kind = all_zeros(block, block_bytes) ? RECORD_DISCARD : RECORD_DATA;
	operation->scratch = block;
	primary->copies++;
	operation_admit(primary, operation, fx);
	return true;
}

static void compare_read_done(struct io *io, int32_t result, struct effects *fx)
{
	struct compare *compare = container_of(io, struct compare, io);
	struct primary *primary = compare->primary;
	compare->reading = false;
	uint8_t *block = io->single.iov_base;
	if (result < 0)
		primary_stop(primary, "a read of the device failed", result, fx);
	bool stopped = primary->state == PRIMARY_STOPPED;
	if (stopped || block_matches(primary, compare, block))
		scratch_give(primary, block);
	else if (!block_send(primary, compare, block, fx)) {
		scratch_give(primary, block);
		return; /* the same block again, when an operation is free */
	}
	primary->compared++;
	compare->at++;
}

static void compare_read(struct primary *primary, struct compare *compare, struct effects *fx)
{
	uint8_t *block = scratch_take(primary);
	if (!block)
		return;
	uint32_t block_bytes = block_bytes_of(primary, compare->volume);
	compare->io = (struct io){.kind = IO_READ,
				  .file = primary->config->volume[compare->volume].device,
				  .done = compare_read_done,
				  .offset = (compare->block + compare->at) * block_bytes,
				  .length = block_bytes,
				  .piece_count = 1};
	compare->io.single = (struct iovec){block, block_bytes};
	compare->io.piece = &compare->io.single;
	compare->reading = true;
	effects_io(fx, &compare->io);
}

/* What the vault left out of its answer is asked again from there. */
static void compare_next(struct primary *primary, struct compare *compare, struct effects *fx)
{
	compare->block += compare->at;
	compare->count -= compare->at;
	compare->answered = false;
	compare->open = compare->count > 0;
	if (!compare->open)
		return;
	compare->ask = ++primary->ask_next;
	compare_send(primary, compare, fx);
}

static void compare_turn(struct primary *primary, struct compare *compare, struct effects *fx)
{
	if (!compare->open)
		compare_begin(primary, compare, fx);
	if (!compare->open || compare->reading)
		return;
	if (!compare->answered) {
		if (fx->now - compare->asked > compare_timeout_ns)
			compare_send(primary, compare, fx);
		return;
	}
	if (compare->at < compare->tags.count)
		compare_read(primary, compare, fx);
	else
		compare_next(primary, compare, fx);
}

void catchup_turn(struct primary *primary, struct effects *fx)
{
	bool open = false;
	for (unsigned i = 0; i < PRIMARY_COMPARES; i++) {
		compare_turn(primary, &primary->compare[i], fx);
		open |= primary->compare[i].open;
	}
	bool idle = !primary->intended.head && !primary->ready.head;
	for (unsigned i = 0; i < primary->config->volume_count; i++)
		idle &= !primary->device[i].asked && !primary->device[i].syncing;
	if (primary->regions_done && !open && idle && !primary->end_lsn && window_has_room(primary))
		window_commit_end(primary, fx);
}
