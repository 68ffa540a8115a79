/* SPDX-License-Identifier: Apache-2.0 */
/* Every byte that a store keeps on disk (docs/store-format.md). The structs are the layout: little
 * endian, naturally aligned, no padding, read and written in memory that is page aligned. */
#ifndef CASEMATE_CORE_FORMAT_H
#define CASEMATE_CORE_FORMAT_H

#include "base.h"
#include "span.h"
#include "store.h"

enum {
	FORMAT_VERSION = 1,
	BATCH_RECORDS_MAX = 256,
	BATCH_HEADER_BYTES = 256,
	RECORD_HEADER_BYTES = 192,
	/* The longest batch: batch_bytes_max, or one record with the largest shard. */
	BATCH_TOTAL_BYTES_MAX = 1024 * 1024,
	SLOT_BYTES = 96,
	SLOT_PAGE_HEADER_BYTES = 64,
	SLOTS_PER_PAGE = (PAGE_BYTES - SLOT_PAGE_HEADER_BYTES) / SLOT_BYTES,
};

#define SUPERBLOCK_MAGIC 0x45524f54534d5343ull /* "CSMSTORE" */
#define BATCH_MAGIC	 0x48435441424d5343ull /* "CSMBATCH" */
#define SLOT_PAGE_MAGIC	 0x53544f4c534d5343ull /* "CSMSLOTS" */

/* ---- docs/store-format.md "superblock": two copies in one file; the next one goes over the other
 */
struct disk_volume {
	char name[NAME_BYTES_MAX];
	struct uuid id;
	uint64_t size;
	uint32_t block_bytes;
	uint8_t wrapped_key[40];
	uint8_t key_check[16];
	uint8_t reserved[12];
};

struct disk_superblock {
	uint64_t magic;
	uint32_t version;
	uint32_t length; /* of the copy, its CRC included */
	uint64_t sequence;
	struct uuid store;
	struct uuid set;
	uint8_t index, k, m, quorum, volume_count;
	uint8_t reserved_a[3];
	uint32_t incarnation;
	uint32_t segment_count;
	uint64_t segment_bytes;
	uint64_t image_point;
	uint64_t fold_point;
	uint64_t lsn_max;	 /* highest lsn seen when written */
	uint64_t batch_sequence; /* last one used when written */
	uint64_t segment_epoch;	 /* last one used when written */
	uint64_t powered_ns;
	uint32_t generation;
	uint32_t promoted;
	uint32_t out;
	uint32_t span_count;
	char name[NAME_BYTES_MAX];
	uint32_t store_incarnation[SHARDS_MAX];
	struct disk_volume volume[VOLUMES_PER_GROUP_MAX];
	uint8_t span[SPANS_MAX][SPAN_ENCODED_BYTES];
	/* of each segment: what it holds up to this epoch is free */
	uint64_t freed_epoch[STORE_SEGMENTS_MAX];
	uint64_t assembly; /* number of the vault's start that wrote it */
	uint64_t promised; /* up to here at least the group has acknowledged as durable */
	uint8_t reserved_b[3804];
	uint32_t crc; /* CRC-32C of all before it */
};

/* ---- docs/store-format.md "batch header": stands at the start of the header pages of a batch */
struct disk_batch {
	uint64_t magic;
	uint32_t version;
	uint32_t incarnation;
	struct uuid set;
	struct uuid store;
	uint32_t segment;
	uint32_t record_count;
	uint64_t epoch;		 /* of the segment */
	uint64_t offset;	 /* in the segment */
	uint64_t sequence;	 /* of the batch: dense */
	uint64_t first_sequence; /* of the first batch of this segment in this epoch */
	uint64_t start_sequence; /* of the first batch since the store was last opened */
	uint64_t synced; /* all batches since then up to here were durable: the synced mark */
	uint64_t powered_ns;
	uint32_t header_bytes;	/* batch header and record headers, whole pages */
	uint32_t payload_bytes; /* shards, whole pages */
	uint64_t promised;	/* as in the superblock, when the batch was written */
	uint32_t promised_generation;
	uint8_t reserved[120];
	uint32_t crc; /* CRC-32C of all before it */
};

/* ---- docs/store-format.md "record header": record_count of them follow the batch header */
struct disk_record {
	uint64_t sequence; /* of the batch: a header of an older batch does not pass */
	uint64_t lsn;
	struct uuid span;
	struct uuid identity_span;
	uint64_t identity_lsn;
	uint32_t identity_generation;
	uint8_t kind, shard, k, m;
	struct uuid volume;
	uint64_t block;
	uint32_t block_bytes;
	uint32_t shard_bytes;
	uint32_t shard_crc;
	uint32_t block_crc;
	uint8_t tag[TAG_BYTES];
	uint64_t wall_ns;
	uint64_t powered_ns;
	uint32_t payload_page; /* of its shard, in pages from the start of the segment */
	uint16_t number;       /* in the batch */
	uint8_t volume_index;  /* in the group; NO_VOLUME for kinds without a block */
	uint8_t reserved[45];
	uint32_t crc; /* CRC-32C of all before it */
};
enum { NO_VOLUME = 0xff };

/* ---- docs/store-format.md "slot header": what the image holds of one block */
enum { SLOT_NEVER_WRITTEN = 0, SLOT_HOLE = 0xff }; /* beside enum record_kind */
struct disk_slot {
	uint64_t lsn;
	struct uuid span;
	struct uuid identity_span;
	uint64_t identity_lsn;
	uint32_t identity_generation;
	uint8_t kind;
	uint8_t reserved[3];
	uint32_t shard_crc;
	uint32_t block_crc;
	uint8_t tag[TAG_BYTES];
	uint64_t wall_ns;
	uint64_t powered_ns;
};

/* ---- docs/store-format.md "slot page": two copies of each, side by side */
struct disk_slot_page {
	uint64_t magic;
	uint64_t sequence; /* odd: first copy; even: second */
	uint64_t page;	   /* of the volume, counting pairs */
	struct uuid store; /* zero as formatted */
	uint32_t version;
	uint8_t volume_index; /* zero as formatted */
	uint8_t reserved[3];
	uint64_t changed; /* slots that differ from the copy of the sequence before, a bit each */
	uint32_t header_crc; /* CRC-32C of all before it */
	uint32_t crc;	     /* CRC-32C of the page without these four bytes */
	struct disk_slot slot[SLOTS_PER_PAGE];
};

/* In `changed`: all slots, and the copy before is not to be believed at all. */
#define SLOTS_ALL UINT64_MAX
_Static_assert(SLOTS_PER_PAGE < 64, "a bit for each slot, and one more");

_Static_assert(sizeof(struct disk_volume) == 128, "no padding");
_Static_assert(sizeof(struct disk_superblock) == STORE_SUPERBLOCK_BYTES, "the copy is full");
_Static_assert(offsetof(struct disk_superblock, crc) == STORE_SUPERBLOCK_BYTES - 4, "CRC is last");
_Static_assert(offsetof(struct disk_superblock, span) == 1296, "no padding");
_Static_assert(sizeof(struct disk_batch) == BATCH_HEADER_BYTES, "no padding");
_Static_assert(offsetof(struct disk_batch, crc) == BATCH_HEADER_BYTES - 4, "CRC is last");
_Static_assert(sizeof(struct disk_record) == RECORD_HEADER_BYTES, "no padding");
_Static_assert(offsetof(struct disk_record, crc) == RECORD_HEADER_BYTES - 4, "CRC is last");
_Static_assert(sizeof(struct disk_slot) == SLOT_BYTES, "no padding");
_Static_assert(offsetof(struct disk_slot_page, slot) == SLOT_PAGE_HEADER_BYTES, "no padding");
_Static_assert(sizeof(struct disk_slot_page) == PAGE_BYTES, "slots fill their page");

/* Bytes of the header pages of a batch of so many records. */
static inline uint32_t batch_header_bytes(unsigned record_count)
{
	return (uint32_t)align_up(BATCH_HEADER_BYTES + record_count * (uint64_t)RECORD_HEADER_BYTES,
				  PAGE_BYTES);
}
enum { BATCH_HEADER_BYTES_MAX = 53248 };
_Static_assert((BATCH_HEADER_BYTES + BATCH_RECORDS_MAX * RECORD_HEADER_BYTES + PAGE_BYTES - 1) /
			       PAGE_BYTES * PAGE_BYTES ==
		       BATCH_HEADER_BYTES_MAX,
	       "as batch_header_bytes has it");

#endif
