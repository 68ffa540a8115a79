/* SPDX-License-Identifier: Apache-2.0 */
/* Checks that look at the world from outside: no seal identity is used twice, no plaintext and no
 * key reaches the vault's disks. */
#include "world.h"

#include <stdlib.h>

/* ---- (subkey, nonce) at most once ---- */
static struct used {
	struct uuid span, volume;
	lsn_t lsn;
	uint64_t next;
} * used;
static unsigned used_count, used_room;
static unsigned bucket[65536];
static bool repeated;

void check_seals_reset(void)
{
	memset(bucket, 0, sizeof bucket);
	used_count = 0;
	repeated = false;
}

void __real_seal_block(struct aead *, const struct aead_key *, const struct seal_context *,
		       const struct aead_piece *, unsigned, uint8_t tag[TAG_BYTES]);
void __wrap_seal_block(struct aead *, const struct aead_key *, const struct seal_context *,
		       const struct aead_piece *, unsigned, uint8_t tag[TAG_BYTES]);

/* The linker routes every seal of the core through here. */
void __wrap_seal_block(struct aead *aead, const struct aead_key *subkey,
		       const struct seal_context *context, const struct aead_piece *piece,
		       unsigned count, uint8_t tag[TAG_BYTES])
{
	const struct seal_identity *identity = &context->identity;
	unsigned slot =
		(unsigned)(get_u64(identity->span.bytes) ^ identity->lsn) % ARRAY_COUNT(bucket);
	for (unsigned i = bucket[slot]; i; i = (unsigned)used[i - 1].next)
		if (used[i - 1].lsn == identity->lsn &&
		    uuid_equal(&used[i - 1].span, &identity->span) &&
		    uuid_equal(&used[i - 1].volume, &context->volume))
			repeated = true;
	if (used_count == used_room) {
		used_room = used_room ? used_room * 2 : 4096;
		used = realloc(used, used_room * sizeof *used);
	}
	used[used_count++] = (struct used){.span = identity->span,
					   .volume = context->volume,
					   .lsn = identity->lsn,
					   .next = bucket[slot]};
	bucket[slot] = used_count;
	__real_seal_block(aead, subkey, context, piece, count, tag);
}

void check_canaries(struct world *world)
{
	const struct site *site = &world->site[SITE_VAULT];
	if (repeated)
		world_fail(world, "a nonce was used twice under one subkey");
	for (unsigned i = 0; i < site->file_count; i++) {
		const struct file *file = &site->file[i];
		if (memmem(file->cached, file->size, "CANARY-plaintext", 16))
			world_fail(world, "plaintext in the vault's %s", file->name);
		for (unsigned v = 0; v < world->options.volumes; v++)
			if (memmem(file->cached, file->size, world->volume_key[v], KEY_BYTES))
				world_fail(world, "a volume key in the vault's %s", file->name);
	}
}
