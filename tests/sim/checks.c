/* SPDX-License-Identifier: Apache-2.0 */
/* Checks that look at the world from outside: no (key, nonce) seals twice, a seal opens in its own
 * place only, a datagram that was altered is not taken, no plaintext and no key reaches the vault's
 * disks. The linker routes the calls of the core that they watch through here. */
#include "world.h"

#include "core/crc.h"
#include "core/link.h"
#include "core/seal.h"

#include <errno.h>
#include <stdlib.h>

static struct world *watched;

/* ---- (key, nonce) at most once, of blocks and of datagrams ---- */
static struct {
	uint64_t *slot; /* prints of what was used; 0: empty */
	uint64_t count, room;
} used;
static bool comparing; /* seal_matches seals again by intent, and shows nobody what comes out */

void check_begin(struct world *world)
{
	watched = world;
	used.count = 0;
	used.room = used.room ? used.room : 1 << 15;
	free(used.slot);
	used.slot = calloc(used.room, sizeof *used.slot);
	comparing = false;
}

static bool used_add(uint64_t print)
{
	print |= !print;
	for (uint64_t at = print;; at++) {
		uint64_t *slot = &used.slot[at % used.room];
		if (*slot == print)
			return false;
		if (*slot)
			continue;
		*slot = print;
		used.count++;
		return true;
	}
}

static void used_grow(void)
{
	if (used.count * 2 < used.room)
		return;
	uint64_t *old = used.slot, room = used.room;
	used.room *= 2;
	used.count = 0;
	used.slot = calloc(used.room, sizeof *used.slot);
	for (uint64_t i = 0; i < room; i++)
		if (old[i])
			used_add(old[i]);
	free(old);
}

void __real_aead_key_init(struct aead *, struct aead_key *, const uint8_t key[KEY_BYTES]);
void __wrap_aead_key_init(struct aead *, struct aead_key *, const uint8_t key[KEY_BYTES]);
void __wrap_aead_key_init(struct aead *aead, struct aead_key *expanded,
			  const uint8_t key[KEY_BYTES])
{
	memset(expanded, 0, sizeof *expanded);
	__real_aead_key_init(aead, expanded, key);
}

void __real_aead_seal(struct aead *, const struct aead_key *, const uint8_t nonce[AEAD_NONCE_BYTES],
		      const void *, size_t, const struct aead_piece *, unsigned,
		      uint8_t tag[TAG_BYTES]);
void __wrap_aead_seal(struct aead *, const struct aead_key *, const uint8_t nonce[AEAD_NONCE_BYTES],
		      const void *, size_t, const struct aead_piece *, unsigned,
		      uint8_t tag[TAG_BYTES]);
void __wrap_aead_seal(struct aead *aead, const struct aead_key *key,
		      const uint8_t nonce[AEAD_NONCE_BYTES], const void *aad, size_t aad_length,
		      const struct aead_piece *piece, unsigned count, uint8_t tag[TAG_BYTES])
{
	/* An expanded key begins with the key, or with what only this key expands to. */
	uint64_t print = chance_mix(get_u64(nonce) ^ chance_mix(get_u32(nonce + 8)));
	for (unsigned at = 0; at < 64; at += 8)
		print = chance_mix(print ^ get_u64(key->state + at));
	used_grow();
	if (!comparing && watched && !used_add(print))
		world_fail(watched, "a nonce was used twice under one key");
	__real_aead_seal(aead, key, nonce, aad, aad_length, piece, count, tag);
}

bool __real_seal_matches(struct aead *, const struct aead_key *, const struct seal_context *,
			 const uint8_t *, const uint8_t[], uint8_t *);
bool __wrap_seal_matches(struct aead *, const struct aead_key *, const struct seal_context *,
			 const uint8_t *, const uint8_t[], uint8_t *);
bool __wrap_seal_matches(struct aead *aead, const struct aead_key *key,
			 const struct seal_context *context, const uint8_t *plaintext,
			 const uint8_t tag[], uint8_t *scratch)
{
	comparing = true;
	bool matches = __real_seal_matches(aead, key, context, plaintext, tag, scratch);
	comparing = false;
	return matches;
}

/* ---- a seal opens in its own place only ---- */
enum { MOVES = 6, MOVED_BYTES_MAX = 64 * 1024 };

static struct seal_context moved(const struct seal_context *context, unsigned how)
{
	struct seal_context other = *context;
	switch (how) {
	case 0:
		other.block ^= 1;
		break;
	case 1:
		other.volume.bytes[0] ^= 1;
		break;
	case 2:
		other.identity.generation++;
		break;
	case 3:
		other.identity.lsn++;
		break;
	case 4:
		other.identity.span.bytes[3] ^= 1;
		break;
	default:
		other.kind = context->kind == RECORD_ZERO ? RECORD_DISCARD : RECORD_ZERO;
	}
	return other;
}

/* What a vault could claim of a block: that it is another one, or that another time has come. */
static void seal_try_moved(struct aead *aead, const struct aead_key *subkey,
			   const struct seal_context *context, const struct aead_piece *piece,
			   unsigned count, const uint8_t tag[TAG_BYTES])
{
	static uint8_t text[MOVED_BYTES_MAX], out[MOVED_BYTES_MAX];
	size_t length = 0;
	for (unsigned i = 0; i < count; i++) {
		must(length + piece[i].length <= sizeof text, "simulated blocks are small");
		memcpy(text + length, piece[i].out, piece[i].length);
		length += piece[i].length;
	}
	struct aead_piece whole = {.in = text, .out = out, .length = length};
	if (seal_open(aead, subkey, context, &whole, length ? 1 : 0, tag) < 0)
		world_fail(watched, "a seal does not open in its own place");
	for (unsigned how = 0; how < MOVES; how++) {
		struct seal_context other = moved(context, how);
		if (how == 5 && length)
			continue; /* a block with a text is of one kind */
		if (seal_open(aead, subkey, &other, &whole, length ? 1 : 0, tag) == 0)
			world_fail(watched,
				   "a seal opens in another place (%u): what it binds is "
				   "not all there is",
				   how);
	}
}

void __real_seal_block(struct aead *, const struct aead_key *, const struct seal_context *,
		       const struct aead_piece *, unsigned, uint8_t tag[TAG_BYTES]);
void __wrap_seal_block(struct aead *, const struct aead_key *, const struct seal_context *,
		       const struct aead_piece *, unsigned, uint8_t tag[TAG_BYTES]);
void __wrap_seal_block(struct aead *aead, const struct aead_key *subkey,
		       const struct seal_context *context, const struct aead_piece *piece,
		       unsigned count, uint8_t tag[TAG_BYTES])
{
	__real_seal_block(aead, subkey, context, piece, count, tag);
	if (watched && watched->seals++ % 32 == 0)
		seal_try_moved(aead, subkey, context, piece, count, tag);
}

/* ---- a datagram that was altered on its way ---- */
int __real_link_open(struct link *, struct packet *, struct opened *, ns_t now);
int __wrap_link_open(struct link *, struct packet *, struct opened *, ns_t now);
int __wrap_link_open(struct link *link, struct packet *packet, struct opened *opened, ns_t now)
{
	int result = __real_link_open(link, packet, opened, now);
	/* -EAGAIN and 0: taken. */
	if (watched && watched->altered && (result == 0 || result == -EAGAIN))
		world_fail(watched, "a datagram that was altered on its way is taken");
	return result;
}

/* ---- what must never reach the vault ---- */
void check_canaries(struct world *world)
{
	const struct site *site = &world->site[SITE_VAULT];
	for (unsigned i = 0; i < site->file_count; i++) {
		const struct file *file = &site->file[i];
		if (memmem(file->cached, file->size, "CANARY-plaintext", 16))
			world_fail(world, "plaintext in the vault's %s", file->name);
		for (unsigned v = 0; v < world->options.volumes; v++)
			if (memmem(file->cached, file->size, world->volume_key[v], KEY_BYTES))
				world_fail(world, "a volume key in the vault's %s", file->name);
	}
}
