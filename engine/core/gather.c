/* SPDX-License-Identifier: Apache-2.0 */
/* Reads one version of a block from the stores that hold it, computes the shards that are missing,
 * and gives a store its shard back. Serving, refilling, rebuilding and scrubbing all stand on this.
 *
 * A gather is taken, started, told done once, perhaps rebuilt and written from, and given back. Its
 * memory, all n shards of it, is used by nobody else meanwhile. */
#include "vault.h"

#include <errno.h>

enum { STALE_RETRIES_MAX = 3 };

/* ---- which version, and who has it ---- */
struct sighting {
	lsn_t lsn;
	uint32_t holders;
	unsigned good; /* stores that gave an answer to go by, "never written" included */
	bool disputed, damaged;
};

static void sighting_add(struct sighting *sighting, unsigned index, const struct record *seen,
			 struct record *record)
{
	if (seen->lsn < sighting->lsn)
		return; /* an older version: this store is stale for the block */
	if (seen->lsn > sighting->lsn) {
		*record = *seen;
		sighting->lsn = seen->lsn;
		sighting->holders = 0;
		sighting->disputed = false;
	}
	/* One lsn counts in one span only; stores that disagree about it cannot be reconciled. */
	if (!uuid_equal(&seen->span, &record->span) || seen->kind != record->kind)
		sighting->disputed = true;
	sighting->holders |= 1u << index;
}

/* docs/semantics.md "reading": a header that is damaged may have named a newer version. The others
 * settle it when they are as many as it takes to open the set: these share a store with every
 * quorum. */
static bool sighting_sure(const struct vault *vault, const struct sighting *sighting)
{
	if (sighting->disputed || !sighting->good)
		return false;
	return !sighting->damaged || sighting->good >= points_open_min(vault->quorum);
}

static unsigned holders_needed(const struct vault *vault, uint8_t kind)
{
	return record_kind_has_payload(kind) ? vault->config->geometry.k : 1;
}

int gather_find(const struct vault *vault, uint8_t volume, uint64_t block, lsn_t limit,
		uint32_t mask, struct record *record, uint32_t *holders)
{
	struct sighting sighting = {0};
	for (unsigned i = 0; i < vault->n; i++) {
		struct record seen;
		if (!(mask >> i & 1))
			continue;
		int result = store_find(vault->store[i].store, volume, block, limit, &seen);
		if (result == 0)
			sighting_add(&sighting, i, &seen, record);
		sighting.good += result == 0 || result == -ENOENT;
		sighting.damaged |= result < 0 && result != -ENOENT;
	}
	*holders = sighting.holders;
	if (!sighting_sure(vault, &sighting))
		return -ENODATA;
	if (!sighting.lsn)
		return -ENOENT;
	unsigned count = (unsigned)__builtin_popcount(sighting.holders);
	return count >= holders_needed(vault, record->kind) ? 0 : -ENODATA;
}

/* ---- reading ---- */
static unsigned count_of(uint32_t mask)
{
	return (unsigned)__builtin_popcount(mask);
}

static bool store_usable(const struct vault *vault, unsigned index)
{
	const struct store *store = vault->store[index].store;
	return store && store_state_of(store) == STORE_READY;
}

/* This store's own record of the version: it may have gone from the journal to the image. */
static int own_record(const struct gather *gather, unsigned index, struct record *record)
{
	const struct store *store = gather->vault->store[index].store;
	if (!store_usable(gather->vault, index))
		return -EIO;
	int result = gather->by_lsn ? store_find_lsn(store, gather->record.lsn, record)
				    : store_find(store, gather->volume, gather->record.block,
						 gather->record.lsn, record);
	if (result < 0)
		return result == -EBADMSG ? -EBADMSG : -ESTALE;
	bool same = record->lsn == gather->record.lsn && record->kind == gather->record.kind &&
		    record->block == gather->record.block &&
		    uuid_equal(&record->span, &gather->record.span);
	return same ? 0 : -ESTALE;
}

static void gather_go_on(struct gather *gather, struct effects *fx);
static void gather_was_left(struct gather *gather);

static void shard_failed(struct gather *gather, unsigned index, int result)
{
	gather->bad |= 1u << index;
	gather->stale |= result == -ESTALE;
}

static void shard_done(struct store_read *read, int result, struct effects *fx)
{
	struct gather *gather = read->owner;
	unsigned index = (unsigned)(read - gather->shard_read);
	must(gather->in_flight >> index & 1, "a read is answered once");
	gather->in_flight &= ~(1u << index);
	if (gather->left) {
		gather_was_left(gather);
		return;
	}
	if (result == 0)
		gather->read |= 1u << index;
	else if (result == -ESTALE && gather->stale_retries++ < STALE_RETRIES_MAX)
		gather->asked &= ~(1u << index); /* gone from journal to image: find it again */
	else
		shard_failed(gather, index, result);
	gather_go_on(gather, fx);
}

static void gather_ask(struct gather *gather, unsigned index, struct effects *fx)
{
	struct store_read *read = &gather->shard_read[index];
	struct record record;
	gather->asked |= 1u << index;
	int result = own_record(gather, index, &record);
	if (result < 0) {
		shard_failed(gather, index, result);
		return;
	}
	gather->in_flight |= 1u << index;
	*read = (struct store_read){.record = record,
				    .buffer = gather_shard(gather, index),
				    .done = shard_done,
				    .owner = gather};
	store_read(gather->vault->store[index].store, read, fx);
}

static int gather_result(const struct gather *gather)
{
	unsigned k = gather->vault->config->geometry.k;
	if (count_of(gather->read) >= k)
		return 0;
	if (gather->stale)
		return -ESTALE;
	return count_of(gather->holders) < k ? -ENODATA : -EIO;
}

static void gather_go_on(struct gather *gather, struct effects *fx)
{
	unsigned k = gather->vault->config->geometry.k;
	if (gather->issuing)
		return; /* an answer that came at once: the loop below is still running */
	gather->issuing = true;
	/* The lowest first: data shards need no computing. */
	uint32_t left;
	while ((left = gather->holders & ~gather->asked) &&
	       (gather->want_all || count_of(gather->read | gather->in_flight) < k))
		gather_ask(gather, (unsigned)__builtin_ctz(left), fx);
	gather->issuing = false;
	if (!gather->in_flight)
		gather->done(gather, gather_result(gather), fx);
}

void gather_start(struct gather *gather, struct effects *fx)
{
	must(record_kind_has_payload(gather->record.kind), "there is something to read");
	must(!gather->in_flight, "a gather reads one version at a time");
	gather->asked = gather->read = gather->bad = 0;
	gather->stale = false;
	gather_go_on(gather, fx);
}

static bool records_agree(const struct record *a, const struct record *b)
{
	return a->block_crc == b->block_crc && a->identity.lsn == b->identity.lsn &&
	       a->identity.generation == b->identity.generation &&
	       uuid_equal(&a->identity.span, &b->identity.span) &&
	       memcmp(a->tag, b->tag, TAG_BYTES) == 0;
}

bool gather_start_again(struct gather *gather, struct effects *fx)
{
	if (!gather->want_all && gather->holders & ~gather->asked) {
		gather->want_all = true;
		gather_start(gather, fx);
		return true;
	}
	/* No shard lies, so the header may that named the version. */
	while (gather->opinion < gather->vault->n) {
		unsigned index = gather->opinion++;
		const struct record *other = &gather->shard_read[index].record;
		if (!(gather->read >> index & 1) || records_agree(other, &gather->record))
			continue;
		gather->record = *other;
		gather_start(gather, fx);
		return true;
	}
	return false;
}

void gather_orphan_store(struct vault *vault, unsigned index)
{
	/* What is being read from it is still answered; nothing more is asked of it. */
	struct gather *end = vault->gather + VAULT_GATHER_ALL;
	for (struct gather *gather = vault->gather; gather < end; gather++)
		if (!(gather->in_flight >> index & 1))
			gather->holders &= ~(1u << index);
}

/* ---- computing what is missing ---- */
/* docs/store-format.md "geometry": the block is its data shards, one after the other. */
static bool block_crc_matches(const struct gather *gather, const uint32_t shard_crc[])
{
	const struct crc32c_shift *shift = &gather->vault->shift[gather->volume];
	uint32_t crc = shard_crc[0];
	for (unsigned i = 1; i < gather->vault->config->geometry.k; i++)
		crc = crc32c_shift_combine(shift, crc, shard_crc[i]);
	return crc == gather->record.block_crc;
}

/* Computes the shards of mask computed from those of mask good; one that was read goes to the spare
 * place. Whether the block then has its CRC. */
static bool compute(struct gather *gather, uint32_t good, uint32_t computed,
		    uint32_t shard_crc[SHARDS_MAX])
{
	struct vault *vault = gather->vault;
	uint8_t *column[SHARDS_MAX];
	for (unsigned i = 0; i < vault->n; i++)
		column[i] = gather_shard(gather, gather->read >> i & ~good >> i & 1 ? vault->n : i);
	if (computed &&
	    stripe_rebuild(vault->stripe, column, good, computed, gather->record.shard_bytes) < 0)
		return false;
	for (unsigned i = 0; i < vault->n; i++)
		if (computed >> i & 1)
			shard_crc[i] = crc32c(column[i], gather->record.shard_bytes);
		else if (good >> i & 1)
			shard_crc[i] = gather->shard_read[i].record.shard_crc;
	return block_crc_matches(gather, shard_crc);
}

static void record_for(const struct gather *gather, unsigned index, uint32_t shard_crc,
		       struct record *record)
{
	*record = gather->record;
	record->shard = (uint8_t)index;
	record->shard_crc = shard_crc;
}

static void commit(struct gather *gather, uint32_t computed, const uint32_t shard_crc[])
{
	for (uint32_t left = computed; left; left &= left - 1) {
		unsigned index = (unsigned)__builtin_ctz(left);
		record_for(gather, index, shard_crc[index], &gather->shard_read[index].record);
	}
}

/* The block has its CRC, so the data shards are what they were: what was read of parity has to
 * follow from them. One that does not lies, though its own CRC is right. */
static void parity_check(struct gather *gather)
{
	struct vault *vault = gather->vault;
	uint32_t data = (1u << vault->config->geometry.k) - 1, bytes = gather->record.shard_bytes;
	uint8_t *spare = gather_shard(gather, vault->n), *column[SHARDS_MAX];
	for (unsigned i = 0; i < vault->n; i++)
		column[i] = gather_shard(gather, i);
	for (uint32_t left = gather->read & ~data; left; left &= left - 1) {
		unsigned index = (unsigned)__builtin_ctz(left);
		uint32_t shard_crc[SHARDS_MAX];
		column[index] = spare;
		if (stripe_rebuild(vault->stripe, column, data, 1u << index, bytes) < 0)
			return;
		column[index] = gather_shard(gather, index);
		shard_crc[index] = crc32c(spare, bytes);
		if (shard_crc[index] == gather->shard_read[index].record.shard_crc)
			continue;
		memcpy(column[index], spare, bytes);
		commit(gather, 1u << index, shard_crc);
		gather->read &= ~(1u << index);
		gather->bad |= 1u << index;
	}
}

int gather_rebuild(struct gather *gather, uint32_t want)
{
	const struct vault *vault = gather->vault;
	uint32_t wanted = want | ((1u << vault->config->geometry.k) - 1);
	uint32_t shard_crc[SHARDS_MAX];
	must(want >> vault->n == 0, "shards are counted from 0 to n - 1");
	must(!gather->in_flight, "nothing is being read into what is computed from");
	if (count_of(gather->read) < vault->config->geometry.k)
		return -EIO;
	if (compute(gather, gather->read, wanted & ~gather->read, shard_crc)) {
		commit(gather, wanted & ~gather->read, shard_crc);
		if (gather->want_all)
			parity_check(gather);
		return 0;
	}
	if (count_of(gather->read) == vault->config->geometry.k)
		return -EIO;
	for (uint32_t left = gather->read; left; left &= left - 1) {
		uint32_t liar = left & -left, good = gather->read & ~liar;
		if (!compute(gather, good, (wanted | liar) & ~good, shard_crc))
			continue;
		commit(gather, (wanted | liar) & ~good, shard_crc);
		memcpy(gather_shard(gather, (unsigned)__builtin_ctz(liar)),
		       gather_shard(gather, vault->n), gather->record.shard_bytes);
		gather->read = good;
		gather->bad |= liar;
		parity_check(gather);
		return 0;
	}
	return -EIO;
}

/* ---- giving a store its shard ---- */
static void write_done(struct gather *gather, int result, struct effects *fx)
{
	gather->writing = false;
	if (gather->left)
		gather_was_left(gather);
	else
		gather->written(gather, result, fx);
}

static void append_done(struct store_append *append, int result, struct effects *fx)
{
	write_done(container_of(append, struct gather, append), result, fx);
}

static void slot_done(struct store_slot_write *write, int result, struct effects *fx)
{
	write_done(container_of(write, struct gather, slot_write), result, fx);
}

static const uint8_t *shard_for(struct gather *gather, unsigned index, struct record *record)
{
	gather->target = (uint8_t)index;
	if (!record_kind_has_payload(gather->record.kind)) {
		record_for(gather, index, 0, record);
		return NULL;
	}
	*record = gather->shard_read[index].record;
	must(record->shard == index && record->lsn == gather->record.lsn,
	     "the shard was read or rebuilt");
	return gather_shard(gather, index);
}

/* A shard that is repaired takes room and fills no gap: all that the store lacks goes before. */
static int append_try(struct gather *gather, unsigned index)
{
	const struct vault *vault = gather->vault;
	struct store *store = vault->store[index].store;
	lsn_t lsn = gather->record.lsn;
	if (!store_usable(vault, index))
		return -EIO;
	if (ranges_contains(store_held(store), lsn))
		lsn = max_u64(lsn, vault->head) + 1;
	return receive_fits(vault, index, lsn) ? store_append(store, &gather->append) : -ENOSPC;
}

void gather_append(struct gather *gather, unsigned index, struct effects *fx)
{
	gather->append = (struct store_append){.done = append_done};
	gather->append.shard = shard_for(gather, index, &gather->append.record);
	int result = append_try(gather, index);
	gather->writing = result == 0;
	if (result < 0)
		gather->written(gather, result, fx);
}

void gather_write_slot(struct gather *gather, unsigned index, struct effects *fx)
{
	gather->slot_write = (struct store_slot_write){.done = slot_done};
	gather->slot_write.shard = shard_for(gather, index, &gather->slot_write.record);
	gather->writing = store_usable(gather->vault, index);
	if (gather->writing)
		store_write_slot(gather->vault->store[index].store, &gather->slot_write, fx);
	else
		gather->written(gather, -EIO, fx);
}

/* ---- the pool ---- */
static void gather_free(struct gather *gather)
{
	gather->holders = 0;
	gather->left = false;
	gather->next = gather->vault->gather_free;
	gather->vault->gather_free = gather;
}

bool gather_new(struct vault *vault)
{
	struct tools *tools = vault->tools;
	uint64_t shards_bytes = (uint64_t)(vault->n + 1) * vault->shard_bytes_max;
	vault->gather = tools_memory(tools, VAULT_GATHER_ALL * sizeof *vault->gather);
	uint8_t *shard = tools_memory(tools, VAULT_GATHER_ALL * shards_bytes);
	if (!vault->gather || !shard)
		return false;
	for (unsigned i = 0; i < VAULT_GATHER_ALL; i++) {
		vault->gather[i].vault = vault;
		vault->gather[i].shard = shard + i * shards_bytes;
		gather_free(&vault->gather[i]);
	}
	return true;
}

struct gather *gather_take(struct vault *vault)
{
	struct gather *gather = vault->gather_free;
	if (!gather || vault->gathers_taken == VAULT_GATHER)
		return NULL;
	vault->gathers_taken++;
	vault->gather_free = gather->next;
	*gather = (struct gather){.vault = vault, .shard = gather->shard};
	return gather;
}

void gather_give(struct gather *gather)
{
	must(!gather->in_flight && !gather->writing, "memory that is given back is used by nobody");
	must(gather->vault->gathers_taken > 0, "what is given back was taken");
	gather->vault->gathers_taken--;
	gather_free(gather);
}

/* ---- disks that do not answer ---- */
static void gather_was_left(struct gather *gather)
{
	if (!gather->in_flight && !gather->writing)
		gather_free(gather);
}

/* The owner hears of a write that failed; what was being read is read again, elsewhere. */
static void gather_leave(struct gather *gather, struct effects *fx)
{
	struct vault *vault = gather->vault;
	struct gather *other = vault->gather_free;
	if (!other)
		return;
	vault->gather_free = other->next;
	uint8_t *shard = other->shard;
	*other = *gather;
	other->shard = shard;
	other->in_flight = 0;
	other->writing = false;
	memcpy(shard, gather->shard, (uint64_t)(vault->n + 1) * vault->shard_bytes_max);
	gather->left = true;
	gather->holders = 0;
	if (gather->writing) {
		other->written(other, -EIO, fx);
		return;
	}
	other->asked = other->read | other->bad;
	gather_go_on(other, fx);
}

void gather_leave_disks(struct vault *vault, struct effects *fx)
{
	uint32_t gone = 0;
	for (unsigned i = 0; i < vault->n; i++)
		if (!store_usable(vault, i))
			gone |= 1u << i;
	for (unsigned i = 0; i < VAULT_GATHER_ALL && gone; i++) {
		struct gather *gather = &vault->gather[i];
		bool writes = gather->writing && gone >> gather->target & 1;
		if (!gather->left && (writes || gather->in_flight & gone))
			gather_leave(gather, fx);
	}
}
