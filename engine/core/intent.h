/* SPDX-License-Identifier: Apache-2.0 */
/* The intent log of a group at its primary: which regions of blocks may differ between the device
 * and the vault. A region is made durable before a write to it goes to the device or the NIC, and
 * cleared when the durable point has passed the write and the device was synced since
 * (docs/semantics.md "intents"). One file, appended in pages, in two halves: a full half is left by
 * writing a snapshot into the other one. */
#ifndef CASEMATE_CORE_INTENT_H
#define CASEMATE_CORE_INTENT_H

#include "effects.h"

struct intent;
struct intent_config {
	uint16_t file;
	uint8_t volume_count;
	struct {
		uint64_t size;
		uint32_t region_bytes;
	} volume[VOLUMES_PER_GROUP_MAX];
	const char *subject;
	/* 0; -EBADMSG: the log is damaged, all regions count as intended; -ENOENT: not an intent
	 * log, or both headers are damaged; -EIO ...: cannot be read. Good for use with the first
	 * two. */
	void (*opened)(struct intent *, int result, struct effects *);
	void (*failed)(struct intent *, int err,
		       struct effects *); /* a write failed: the group must stop */
	void (*synced)(struct intent *,
		       struct effects *); /* more regions became durable: try again what waited */
	void *owner;
};

enum { INTENT_HEADER_BYTES = 4096 };
/* What the group's primary must find again after a restart, kept in the head of the file beside the
 * log. */
struct intent_identity {
	struct uuid set;     /* names the pairing of device and vault: zero for a new one */
	uint32_t generation; /* last generation this site wrote in */
	uint8_t volume_count;
	struct {
		struct uuid id;
		uint64_t size;
		uint32_t block_bytes;
		uint8_t wrapped_key[40];
		uint8_t key_check[16];
	} volume[VOLUMES_PER_GROUP_MAX];
};

/* Regions of 1 MiB, larger where a volume would have more than 8192 of them. */
static inline uint32_t intent_region_bytes(uint64_t volume_size, uint32_t block_bytes)
{
	uint64_t bytes = max_u64(MIB, block_bytes);
	while (div_up(volume_size, bytes) > 8192)
		bytes *= 2;
	must(bytes <= UINT32_MAX / 2, "a region is counted in 32 bits");
	return (uint32_t)bytes;
}

size_t intent_bytes(const struct intent_config *);
struct intent *intent_init(void *memory, const struct intent_config *);
void *intent_owner(const struct intent *);
/* The bytes of a new file with nothing intended. Returns its size; out may be NULL to ask. */
uint64_t intent_format(const struct intent_config *, const struct intent_identity *, uint8_t *out);
/* 0, -ENOENT (no magic), -EBADMSG (damaged), -EPROTONOSUPPORT (version). The header stands twice at
 * the start of the file; where the first copy is good it is the newer one. */
int intent_identity_decode(const uint8_t header[INTENT_HEADER_BYTES], struct intent_identity *);

void intent_open(struct intent *, struct effects *);
const struct intent_identity *intent_identity_of(const struct intent *);
/* Replaces the identity, copied at the call; intent_turn writes it, synced() tells when to ask
 * whether it is durable. */
void intent_set_identity(struct intent *, const struct intent_identity *);
bool intent_identity_durable(const struct intent *);

/* Whether the region of this byte range is durable already; if not it is queued, and synced() tells
 * when to ask again. A true answer counts one write in the region, which intent_leave takes back.
 */
bool intent_enter(struct intent *, uint8_t volume, uint64_t offset, uint64_t length);
/* The write has passed the durable point and the device was synced since. */
void intent_leave(struct intent *, uint8_t volume, uint64_t offset, uint64_t length);
/* Marks a region as one that stays (a write answered with an error; found at start): left only by
 * intent_settle. */
void intent_pin(struct intent *, uint8_t volume, uint64_t offset, uint64_t length);
/* After a comparison all pinned regions are equal on both sides. */
void intent_settle(struct intent *);
/* Regions open now, in order: cursor starts at 0. false at the end. */
bool intent_next(const struct intent *, uint64_t *cursor, uint8_t *volume, uint64_t *offset,
		 uint64_t *length);
/* Submits what is queued, lazily clears what was left; once at the end of each turn. */
void intent_turn(struct intent *, struct effects *);
/* When intent_turn wants a turn though nothing happens. */
ns_t intent_deadline(const struct intent *);
uint64_t intent_open_bytes(const struct intent *);

#endif
