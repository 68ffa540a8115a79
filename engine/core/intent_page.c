/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding of the intent log. Every page carries its own checksum, its sequence number and the sum
 * of the sizes that give its region numbers a meaning. */
#include "intent_page.h"

#include "crc.h"

#include <errno.h>

/* Each page of a half begins so; the payload fills the rest. */
enum {
	PAGE_AT_MAGIC = 0,
	PAGE_AT_CRC = 4, /* over all that follows it */
	PAGE_AT_SEQUENCE = 8,
	PAGE_AT_SHAPE = 16,
	PAGE_AT_KIND = 20,
	PAGE_AT_COUNT = 22,  /* changes: how many */
	PAGE_AT_NUMBER = 24, /* snapshot: which of its pages */
	PAGE_AT_PAYLOAD = 32,
};
enum page_kind { PAGE_SNAPSHOT = 1, PAGE_CHANGES = 2 };
#define PAGE_MAGIC    0x49544e49u /* INTI */
#define CHANGE_OPENS  0x80000000u
#define REGIONS_LIMIT CHANGE_OPENS

_Static_assert(PAGE_AT_PAYLOAD + INTENT_PAYLOAD_BYTES == PAGE_BYTES, "a page is filled exactly");
_Static_assert(INTENT_REGIONS_PER_PAGE % 64 == 0, "a page of a snapshot holds whole words");

void intent_shape_init(struct intent_shape *shape, const struct intent_config *config)
{
	uint8_t sizes[VOLUMES_PER_GROUP_MAX][12] = {{0}};
	uint64_t regions = 0;

	must(config->volume_count <= VOLUMES_PER_GROUP_MAX, "a group has eight volumes at most");
	memset(shape, 0, sizeof *shape);
	for (unsigned i = 0; i < config->volume_count; i++) {
		must(config->volume[i].region_bytes > 0, "a region has a size");
		shape->first[i] = (uint32_t)regions;
		regions += div_up(config->volume[i].size, config->volume[i].region_bytes);
		must(regions < REGIONS_LIMIT, "a region number has 31 bits");
		put_u64(sizes[i], config->volume[i].size);
		put_u32(sizes[i] + 8, config->volume[i].region_bytes);
	}
	for (unsigned i = config->volume_count; i <= VOLUMES_PER_GROUP_MAX; i++)
		shape->first[i] = (uint32_t)regions;
	shape->regions = (uint32_t)regions;
	shape->snapshot_pages = (uint32_t)max_u64(1, div_up(regions, INTENT_REGIONS_PER_PAGE));
	shape->half_pages = shape->snapshot_pages + INTENT_CHANGES_PAGES;
	shape->crc = crc32c(sizes, sizeof sizes);
}

uint64_t intent_page_offset(const struct intent_shape *shape, unsigned half, unsigned page)
{
	must(half < 2 && page < shape->half_pages, "the page is in the file");
	return (INTENT_HEADER_PAGES + (uint64_t)half * shape->half_pages + page) * PAGE_BYTES;
}

static void page_seal(const struct intent_shape *shape, enum page_kind kind, uint64_t sequence,
		      uint8_t page[PAGE_BYTES])
{
	put_u32(page + PAGE_AT_MAGIC, PAGE_MAGIC);
	put_u64(page + PAGE_AT_SEQUENCE, sequence);
	put_u32(page + PAGE_AT_SHAPE, shape->crc);
	put_u8(page + PAGE_AT_KIND, kind);
	put_u32(page + PAGE_AT_CRC, crc32c(page + PAGE_AT_SEQUENCE, PAGE_BYTES - PAGE_AT_SEQUENCE));
}

uint64_t intent_page_check(const struct intent_shape *shape, const uint8_t in[PAGE_BYTES],
			   unsigned page)
{
	enum page_kind kind = page < shape->snapshot_pages ? PAGE_SNAPSHOT : PAGE_CHANGES;

	if (get_u32(in + PAGE_AT_MAGIC) != PAGE_MAGIC || get_u8(in + PAGE_AT_KIND) != kind ||
	    get_u32(in + PAGE_AT_SHAPE) != shape->crc)
		return 0;
	if (get_u32(in + PAGE_AT_CRC) !=
	    crc32c(in + PAGE_AT_SEQUENCE, PAGE_BYTES - PAGE_AT_SEQUENCE))
		return 0;
	if (kind == PAGE_SNAPSHOT && get_u32(in + PAGE_AT_NUMBER) != page)
		return 0;
	if (kind == PAGE_CHANGES) {
		uint32_t region;
		if (intent_changes_count(in) > INTENT_CHANGES_PER_PAGE)
			return 0;
		for (unsigned i = 0; i < intent_changes_count(in); i++) {
			intent_changes_get(in, i, &region);
			if (region >= shape->regions)
				return 0;
		}
	}
	return get_u64(in + PAGE_AT_SEQUENCE);
}

/* How many words of bits the page of a snapshot carries. */
static unsigned snapshot_words(const struct intent_shape *shape, unsigned page)
{
	must(page < shape->snapshot_pages, "the page is in the snapshot");
	uint64_t words = div_up(shape->regions, 64);
	uint64_t before = (uint64_t)page * (INTENT_REGIONS_PER_PAGE / 64);

	return (unsigned)min_u64(words - min_u64(words, before), INTENT_REGIONS_PER_PAGE / 64);
}

void intent_snapshot_encode(const struct intent_shape *shape, const uint64_t *bits, unsigned page,
			    uint64_t sequence, uint8_t out[PAGE_BYTES])
{
	unsigned words = snapshot_words(shape, page);

	memset(out, 0, PAGE_BYTES);
	put_u32(out + PAGE_AT_NUMBER, page);
	memcpy(out + PAGE_AT_PAYLOAD, bits + (size_t)page * (INTENT_REGIONS_PER_PAGE / 64),
	       words * sizeof bits[0]);
	page_seal(shape, PAGE_SNAPSHOT, sequence, out);
}

void intent_snapshot_decode(const struct intent_shape *shape, const uint8_t in[PAGE_BYTES],
			    unsigned page, uint64_t *bits)
{
	memcpy(bits + (size_t)page * (INTENT_REGIONS_PER_PAGE / 64), in + PAGE_AT_PAYLOAD,
	       snapshot_words(shape, page) * sizeof bits[0]);
}

void intent_changes_begin(uint8_t out[PAGE_BYTES])
{
	memset(out, 0, PAGE_BYTES);
}

bool intent_changes_add(uint8_t out[PAGE_BYTES], uint32_t region, bool open)
{
	unsigned count = intent_changes_count(out);

	must(region < REGIONS_LIMIT, "a region number has 31 bits");
	if (count == INTENT_CHANGES_PER_PAGE)
		return false;
	put_u32(out + PAGE_AT_PAYLOAD + count * 4u, region | (open ? CHANGE_OPENS : 0));
	put_u16(out + PAGE_AT_COUNT, (uint16_t)(count + 1));
	return true;
}

void intent_changes_end(const struct intent_shape *shape, uint64_t sequence,
			uint8_t out[PAGE_BYTES])
{
	page_seal(shape, PAGE_CHANGES, sequence, out);
}

unsigned intent_changes_count(const uint8_t in[PAGE_BYTES])
{
	return get_u16(in + PAGE_AT_COUNT);
}

bool intent_changes_get(const uint8_t in[PAGE_BYTES], unsigned index, uint32_t *region)
{
	must(index < intent_changes_count(in), "the change is in the page");
	uint32_t change = get_u32(in + PAGE_AT_PAYLOAD + index * 4u);

	*region = change & ~CHANGE_OPENS;
	return change & CHANGE_OPENS;
}

/* ---- the header ---- */
enum {
	HEADER_AT_MAGIC = 0,
	HEADER_AT_CRC = 8, /* over all that follows it */
	HEADER_AT_VERSION = 12,
	HEADER_AT_VOLUME_COUNT = 14,
	HEADER_AT_GENERATION = 16,
	HEADER_AT_SET = 24,
	HEADER_AT_VOLUMES = 64,
	HEADER_VERSION = 1,
};
enum {
	VOLUME_AT_ID = 0,
	VOLUME_AT_SIZE = 16,
	VOLUME_AT_BLOCK_BYTES = 24,
	VOLUME_AT_WRAPPED_KEY = 32,
	VOLUME_AT_KEY_CHECK = 72,
	VOLUME_BYTES = 96,
};
static const uint8_t header_magic[8] = "CMINTENT";
_Static_assert((int)HEADER_AT_VOLUMES + (int)VOLUME_BYTES * (int)VOLUMES_PER_GROUP_MAX <=
		       (int)INTENT_HEADER_BYTES,
	       "the identity fits its page");

void intent_identity_encode(const struct intent_identity *identity,
			    uint8_t header[INTENT_HEADER_BYTES])
{
	must(identity->volume_count <= VOLUMES_PER_GROUP_MAX, "a group has eight volumes at most");
	memset(header, 0, INTENT_HEADER_BYTES);
	memcpy(header + HEADER_AT_MAGIC, header_magic, sizeof header_magic);
	put_u16(header + HEADER_AT_VERSION, HEADER_VERSION);
	put_u8(header + HEADER_AT_VOLUME_COUNT, identity->volume_count);
	put_u32(header + HEADER_AT_GENERATION, identity->generation);
	memcpy(header + HEADER_AT_SET, identity->set.bytes, UUID_BYTES);
	for (unsigned i = 0; i < identity->volume_count; i++) {
		uint8_t *volume = header + HEADER_AT_VOLUMES + (size_t)i * VOLUME_BYTES;
		memcpy(volume + VOLUME_AT_ID, identity->volume[i].id.bytes, UUID_BYTES);
		put_u64(volume + VOLUME_AT_SIZE, identity->volume[i].size);
		put_u32(volume + VOLUME_AT_BLOCK_BYTES, identity->volume[i].block_bytes);
		memcpy(volume + VOLUME_AT_WRAPPED_KEY, identity->volume[i].wrapped_key,
		       sizeof identity->volume[i].wrapped_key);
		memcpy(volume + VOLUME_AT_KEY_CHECK, identity->volume[i].key_check,
		       sizeof identity->volume[i].key_check);
	}
	put_u32(header + HEADER_AT_CRC,
		crc32c(header + HEADER_AT_VERSION, INTENT_HEADER_BYTES - HEADER_AT_VERSION));
}

int intent_identity_decode(const uint8_t header[INTENT_HEADER_BYTES],
			   struct intent_identity *identity)
{
	if (memcmp(header + HEADER_AT_MAGIC, header_magic, sizeof header_magic) != 0)
		return -ENOENT;
	if (get_u32(header + HEADER_AT_CRC) !=
	    crc32c(header + HEADER_AT_VERSION, INTENT_HEADER_BYTES - HEADER_AT_VERSION))
		return -EBADMSG;
	if (get_u16(header + HEADER_AT_VERSION) != HEADER_VERSION)
		return -EPROTONOSUPPORT;
	if (get_u8(header + HEADER_AT_VOLUME_COUNT) > VOLUMES_PER_GROUP_MAX)
		return -EBADMSG;

	memset(identity, 0, sizeof *identity);
	identity->volume_count = get_u8(header + HEADER_AT_VOLUME_COUNT);
	identity->generation = get_u32(header + HEADER_AT_GENERATION);
	memcpy(identity->set.bytes, header + HEADER_AT_SET, UUID_BYTES);
	for (unsigned i = 0; i < identity->volume_count; i++) {
		const uint8_t *volume = header + HEADER_AT_VOLUMES + (size_t)i * VOLUME_BYTES;
		memcpy(identity->volume[i].id.bytes, volume + VOLUME_AT_ID, UUID_BYTES);
		identity->volume[i].size = get_u64(volume + VOLUME_AT_SIZE);
		identity->volume[i].block_bytes = get_u32(volume + VOLUME_AT_BLOCK_BYTES);
		memcpy(identity->volume[i].wrapped_key, volume + VOLUME_AT_WRAPPED_KEY,
		       sizeof identity->volume[i].wrapped_key);
		memcpy(identity->volume[i].key_check, volume + VOLUME_AT_KEY_CHECK,
		       sizeof identity->volume[i].key_check);
	}
	return 0;
}

uint64_t intent_format(const struct intent_config *config, const struct intent_identity *identity,
		       uint8_t *out)
{
	struct intent_shape shape;

	intent_shape_init(&shape, config);
	uint64_t bytes = (INTENT_HEADER_PAGES + 2ull * shape.half_pages) * PAGE_BYTES;
	if (!out)
		return bytes;
	memset(out, 0, bytes);
	for (unsigned i = 0; i < INTENT_HEADER_PAGES; i++)
		intent_identity_encode(identity, out + (size_t)i * PAGE_BYTES);
	for (unsigned page = 0; page < shape.snapshot_pages; page++) {
		uint8_t *place = out + intent_page_offset(&shape, 0, page);
		put_u32(place + PAGE_AT_NUMBER, page);
		page_seal(&shape, PAGE_SNAPSHOT, page + 1, place);
	}
	return bytes;
}
