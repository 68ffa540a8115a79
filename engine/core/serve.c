/* SPDX-License-Identifier: Apache-2.0 */
/* A promoted vault serves its volumes, read only: any k shards of each block, computed where they
 * are missing, opened with the key that the promotion brought. Right bytes or an error. */
#include "vault.h"

#include <errno.h>

enum { STALE_FINDS_MAX = 3 };

/* ---- the request ---- */
static uint8_t request_volume(const struct vault *vault, const struct request *request)
{
	unsigned volume = (unsigned)request->export - vault->export_first;
	must(request->export >= vault->export_first && volume < vault->config->volume_count,
	     "a request is of a volume of its group");
	return (uint8_t)volume;
}

static void request_answer(struct request *request, int32_t result, struct effects *fx)
{
	request->result = result;
	request_list_push(&fx->replies, request);
}

/* One operation of the request has ended: a block, or the issuing of its blocks. */
static void request_settle(struct request *request, struct effects *fx)
{
	must(request->pending, "what is open is counted");
	if (--request->pending == 0)
		request_list_push(&fx->replies, request);
}

static void request_fail(struct vault *vault, struct request *request, uint64_t block,
			 struct effects *fx)
{
	const struct core_volume *volume = &vault->config->volume[request_volume(vault, request)];
	if (request->result == 0)
		effects_note(fx, NOTE_ERROR, volume->name,
			     "block %llu cannot be read: too few good shards, or its seal does not "
			     "open",
			     NOTE_NUMBERS(block, 0, 0));
	request->result = -EIO;
}

/* The part of a block that a request wants. */
struct part {
	uint8_t *to;
	uint32_t first, length; /* in the block */
	bool whole;
};

static struct part part_of(const struct request *request, uint64_t block, uint32_t block_bytes)
{
	uint64_t start = block * block_bytes, end = start + block_bytes;
	uint64_t first = max_u64(start, request->offset);
	uint64_t last = min_u64(end, request->offset + request->length);
	must(first < last, "the block is in the request");
	return (struct part){.to = request->data + (first - request->offset),
			     .first = (uint32_t)(first - start),
			     .length = (uint32_t)(last - first),
			     .whole = last - first == block_bytes};
}

/* ---- opening ---- */
static int open_seal(struct vault *vault, const struct gather *gather,
		     const struct aead_piece *piece, unsigned piece_count)
{
	const struct record *record = &gather->record;
	uint8_t volume = gather->volume;
	/* Volume and block are those that were asked for, not those that the record claims. */
	struct seal_context context = {.identity = record->identity,
				       .volume = vault->meta.volume[volume].id,
				       .block = gather->internal,
				       .block_bytes = vault->config->volume[volume].block_bytes,
				       .kind = record->kind};
	const struct aead_key *subkey = seal_cache_take(
		&vault->tools->seals, (uint8_t)(vault->group * VOLUMES_PER_GROUP_MAX + volume),
		vault->key[volume], &record->identity.span);
	vault->opens++;
	return seal_open(vault->tools->aead, subkey, &context, piece, piece_count, record->tag);
}

static void copy_part(const struct gather *gather, uint32_t shard_bytes, const struct part *part)
{
	uint32_t done = 0;
	while (done < part->length) {
		uint32_t at = part->first + done;
		uint32_t inside = at % shard_bytes;
		uint32_t length = (uint32_t)min_u64(shard_bytes - inside, part->length - done);
		memcpy(part->to + done, gather_shard(gather, at / shard_bytes) + inside, length);
		done += length;
	}
}

/* A whole block is opened straight to where the client gets it from; a part in place, then copied.
 */
static int open_data(struct vault *vault, struct gather *gather, const struct part *part)
{
	unsigned k = vault->config->geometry.k;
	uint32_t shard_bytes = gather->record.shard_bytes;
	struct aead_piece piece[DATA_SHARDS_MAX];
	for (unsigned i = 0; i < k; i++) {
		uint8_t *shard = gather_shard(gather, i);
		piece[i] = (struct aead_piece){
			.in = shard,
			.out = part->whole ? part->to + (uint64_t)i * shard_bytes : shard,
			.length = shard_bytes};
	}
	int result = open_seal(vault, gather, piece, k);
	if (result == 0 && !part->whole)
		copy_part(gather, shard_bytes, part);
	return result;
}

/* ---- one block ---- */
static void serve_find(struct gather *gather, struct effects *fx);

static void block_settle(struct gather *gather, int result, struct effects *fx)
{
	struct request *request = gather->owner;
	if (result < 0)
		request_fail(gather->vault, request, gather->internal, fx);
	gather_give(gather);
	request_settle(request, fx);
}

static struct part gather_part(const struct gather *gather)
{
	const struct core_volume *volume = &gather->vault->config->volume[gather->volume];
	return part_of(gather->owner, gather->internal, volume->block_bytes);
}

static void serve_done(struct gather *gather, int result, struct effects *fx)
{
	struct vault *vault = gather->vault;
	uint32_t data = (1u << vault->config->geometry.k) - 1;
	if (result == -ESTALE && gather->stale_finds++ < STALE_FINDS_MAX) {
		serve_find(gather, fx);
		return;
	}
	if (result == 0) {
		struct part part = gather_part(gather);
		result = gather_rebuild(gather, 0);
		if (result == 0 && (data & ~gather->read))
			vault->decoded++;
		if (result == 0)
			result = open_data(vault, gather, &part);
		/* A shard lies, or the header of the store that named the version does. */
		if (result < 0 && gather_start_again(gather, fx))
			return;
	}
	block_settle(gather, result, fx);
}

static void serve_without_payload(struct gather *gather, struct effects *fx)
{
	struct part part = gather_part(gather);
	uint8_t kind = gather->record.kind;
	bool zeros = kind == RECORD_ZERO || kind == RECORD_DISCARD;
	int result = zeros ? open_seal(gather->vault, gather, NULL, 0) : -EIO;
	if (result == 0)
		memset(part.to, 0, part.length);
	block_settle(gather, result, fx);
}

static void serve_find(struct gather *gather, struct effects *fx)
{
	struct vault *vault = gather->vault;
	int result = gather_find(vault, gather->volume, gather->internal, vault->serve_point,
				 vault_in_service(vault), &gather->record, &gather->holders);
	if (result == -ENOENT) {
		struct part part = gather_part(gather);
		memset(part.to, 0, part.length); /* never written */
		block_settle(gather, 0, fx);
	} else if (result < 0) {
		block_settle(gather, result, fx);
	} else if (!record_kind_has_payload(gather->record.kind)) {
		serve_without_payload(gather, fx);
	} else {
		gather_start(gather, fx);
	}
}

/* ---- reads, in order of arrival, many blocks at once ---- */
/* Issues the blocks of the request. False when no gather is left: the rest waits. */
static bool serve_issue(struct vault *vault, struct request *request, struct effects *fx)
{
	uint8_t volume = request_volume(vault, request);
	uint32_t block_bytes = vault->config->volume[volume].block_bytes;
	while (request->progress < request->length && request->result == 0) {
		struct gather *gather = gather_take(vault);
		if (!gather)
			return false;
		uint64_t at = request->offset + request->progress;
		gather->volume = volume;
		gather->internal = at / block_bytes;
		gather->owner = request;
		gather->done = serve_done;
		request->progress += block_bytes - at % block_bytes;
		request->pending++;
		serve_find(gather, fx);
	}
	return true;
}

void serve_turn(struct vault *vault, struct effects *fx)
{
	for (;;) {
		if (!vault->serving_now)
			vault->serving_now = request_list_pop(&vault->serving);
		struct request *request = vault->serving_now;
		if (!request || !serve_issue(vault, request, fx))
			return;
		vault->serving_now = NULL;
		request_settle(request, fx);
	}
}

static void serve_read(struct vault *vault, struct request *request)
{
	const struct core_volume *volume = &vault->config->volume[request_volume(vault, request)];
	must(request->offset <= volume->size && request->length <= volume->size - request->offset,
	     "the front checks ranges");
	request->result = 0;
	request->progress = 0;
	request->pending = 1; /* the issuing itself */
	vault->reads++;
	vault->read_bytes += request->length;
	request_list_push(&vault->serving, request);
}

void vault_request(struct vault *vault, struct request *request, struct effects *fx)
{
	if (vault->state != VAULT_SERVING) {
		request_answer(request, -EIO, fx);
		return;
	}
	switch (request->kind) {
	case REQUEST_READ:
		serve_read(vault, request);
		break;
	case REQUEST_FLUSH:
	case REQUEST_CACHE:
		request_answer(request, 0, fx);
		break;
	case REQUEST_STATUS:
		must(request->extent_count >= 1, "the front leaves room for one extent");
		request->extent[0] = (struct extent){.length = request->length};
		request->extent_count = 1;
		request_answer(request, 0, fx);
		break;
	default:
		request_answer(request, -EROFS, fx);
	}
}
