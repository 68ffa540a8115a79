/* SPDX-License-Identifier: Apache-2.0 */
/* A record: one block version in the history of a group, and the shard of it that one store holds.
 * It is self-describing: enough shards and the key are enough for each block alone
 * (docs/store-format.md). */
#ifndef CASEMATE_CORE_RECORD_H
#define CASEMATE_CORE_RECORD_H

#include "base.h"
#include "seal.h"

struct record {
	struct uuid span; /* place */
	lsn_t lsn;
	struct seal_identity identity; /* equal to the place but for copies */
	struct uuid volume;
	uint64_t block;
	uint8_t kind;  /* enum record_kind */
	uint8_t shard; /* index of the shard that this store holds */
	struct geometry geometry;
	uint32_t block_bytes;
	uint32_t shard_bytes; /* 0 when the kind has no payload */
	uint8_t tag[TAG_BYTES];
	uint32_t shard_crc; /* CRC-32C of the shard; 0 without payload */
	uint32_t block_crc; /* CRC-32C of the whole sealed block */
	uint64_t wall_ns;   /* the primary's clock: a label */
	uint64_t
		powered_ns; /* the vault's own powered time: the only clock that expires anything */
};

#endif
