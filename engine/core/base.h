/* SPDX-License-Identifier: Apache-2.0 */
/* The few words that every room uses: time, assertions, byte order, small arithmetic.
 * Nothing here allocates, reads a clock or talks to the outside. */
#ifndef CASEMATE_CORE_BASE_H
#define CASEMATE_CORE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Monotonic time in nanoseconds; the core never asks for it, it is told. */
typedef uint64_t ns_t;
#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull
#define NS_NEVER  UINT64_MAX

#define KIB 1024ull
#define MIB (1024ull * KIB)
#define GIB (1024ull * MIB)

/* Log sequence number: one per block version, per group; 0 is never drawn. */
typedef uint64_t lsn_t;

enum {
	PAGE_BYTES = 4096,	      /* the unit of every disk write and of alignment in memory */
	DATA_SHARDS_MAX = 16,	      /* k */
	PARITY_SHARDS_MAX = 8,	      /* m */
	SHARDS_MAX = 24,	      /* n = k + m */
	BLOCK_BYTES_MIN = 4096,	      /* 4 KiB */
	BLOCK_BYTES_MAX = 256 * 1024, /* 256 KiB */
	NAME_BYTES_MAX = 32,	      /* of a volume, group or site, with the closing 0 */
	UUID_BYTES = 16,
	KEY_BYTES = 32, /* AES-256 */
	TAG_BYTES = 16,
	VOLUMES_PER_GROUP_MAX = 8,
	PATHS_MAX = 8,
	WINDOW_RECORDS_MIN = 32, /* kept by a primary until durable, by a vault until stored */
	WINDOW_RECORDS_MAX = 65536,
};

/* must() states what we owe ourselves; it is on in release builds. The reason is a sentence. */
_Noreturn void must_fail(const char *file, int line, const char *condition, const char *reason);
#define must(condition, reason)                                                                    \
	do {                                                                                       \
		if (__builtin_expect(!(condition), 0))                                             \
			must_fail(__FILE__, __LINE__, #condition, reason);                         \
	} while (0)

#define ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define container_of(pointer, type, member)                                                        \
	((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}
static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}
static inline uint64_t align_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}
static inline uint64_t align_down(uint64_t value, uint64_t unit)
{
	return value / unit * unit;
}
static inline uint64_t div_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit;
}
static inline bool is_power_of_2(uint64_t value)
{
	return value && !(value & (value - 1));
}

/* All wire and disk integers are little endian and may be unaligned. */
static inline void put_u8(uint8_t *p, uint8_t v)
{
	*p = v;
}
static inline void put_u16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof v);
}
static inline void put_u32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof v);
}
static inline void put_u64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, sizeof v);
}
static inline uint8_t get_u8(const uint8_t *p)
{
	return *p;
}
static inline uint16_t get_u16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof v);
	return v;
}
static inline uint32_t get_u32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof v);
	return v;
}
static inline uint64_t get_u64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof v);
	return v;
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "casemate runs on little-endian machines");

/* A 128-bit random identity (of a span, volume, set, store). */
struct uuid {
	uint8_t bytes[UUID_BYTES];
};

static inline bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a->bytes, b->bytes, UUID_BYTES) == 0;
}

static inline bool uuid_is_zero(const struct uuid *a)
{
	static const struct uuid zero;
	return uuid_equal(a, &zero);
}

/* How the blocks of a group are cut: k data and m parity shards. */
struct geometry {
	uint8_t k;
	uint8_t m;
};

static inline unsigned geometry_n(struct geometry g)
{
	return (unsigned)g.k + g.m;
}

/* Bytes of one shard of a block: the block is cut into whole pages (docs/store-format.md
 * "geometry"). */
static inline uint32_t shard_bytes_of(struct geometry geometry, uint32_t block_bytes)
{
	must(block_bytes % (geometry.k * (uint32_t)PAGE_BYTES) == 0, "a shard is whole pages");
	return block_bytes / geometry.k;
}

#endif
