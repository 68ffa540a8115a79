/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an intent log. A region goes queued -> (its page durable) -> open, and lets writes in
 * only then; it is closed by a change in some later page once it was out of use for a whole sweep.
 *
 * Writes to the file go one at a time, each durable before the next begins. A change that closes a
 * region takes effect here when its page is built: whoever enters after that waits for a new page,
 * which comes later in the log. If the page with the closing is lost, the region is compared once
 * too often. A full half is left by a snapshot of what is durably open into the other half; what
 * waits follows as changes, so a snapshot alone never carries a promise. */
#include "intent.h"

#include "intent_log.h"

#include <errno.h>

#define SWEEP_NS NS_PER_S

static unsigned buffer_pages(const struct intent_shape *shape)
{
	return (unsigned)max_u64(INTENT_READ_PAGES, shape->snapshot_pages);
}

/* Lays the parts out behind each other; with memory NULL only adds up their sizes. */
static size_t intent_layout(struct intent *intent, const struct intent_shape *shape, char *memory)
{
	size_t words = (size_t)div_up(shape->regions, 64), at = align_up(sizeof(struct intent), 64);
	size_t sequence_bytes = shape->half_pages * sizeof(uint64_t);
	struct {
		void **pointer;
		size_t bytes;
	} part[] = {
		{intent ? (void **)&intent->open : NULL, words * 8},
		{intent ? (void **)&intent->queued : NULL, words * 8},
		{intent ? (void **)&intent->pinned : NULL, words * 8},
		{intent ? (void **)&intent->used : NULL, words * 8},
		{intent ? (void **)&intent->stale : NULL, words * 8},
		{intent ? (void **)&intent->recovery.sequence[0] : NULL, sequence_bytes},
		{intent ? (void **)&intent->recovery.sequence[1] : NULL, sequence_bytes},
		{intent ? (void **)&intent->writers : NULL, (size_t)shape->regions * 4},
	};

	for (size_t i = 0; i < ARRAY_COUNT(part); i++) {
		if (intent)
			*part[i].pointer = memory + at;
		at += part[i].bytes;
	}
	if (intent)
		intent->buffer = (uint8_t *)align_up((uintptr_t)(memory + at), PAGE_BYTES);
	/* One page more, for the alignment of the buffer. */
	return at + ((size_t)buffer_pages(shape) + 1) * PAGE_BYTES;
}

size_t intent_bytes(const struct intent_config *config)
{
	struct intent_shape shape;

	intent_shape_init(&shape, config);
	return intent_layout(NULL, &shape, NULL);
}

struct intent *intent_init(void *memory, const struct intent_config *config)
{
	must((uintptr_t)memory % 64 == 0, "the memory of an intent log is aligned to 64 bytes");
	must(config->opened && config->failed && config->synced, "an intent log has an owner");
	struct intent *intent = memory;

	memset(memory, 0, intent_bytes(config));
	intent->config = *config;
	intent_shape_init(&intent->shape, config);
	intent_layout(intent, &intent->shape, memory);
	return intent;
}

void *intent_owner(const struct intent *intent)
{
	return intent->config.owner;
}

const struct intent_identity *intent_identity_of(const struct intent *intent)
{
	return &intent->identity;
}

void intent_set_identity(struct intent *intent, const struct intent_identity *identity)
{
	must(intent->state != INTENT_CLOSED && intent->state != INTENT_OPENING,
	     "an identity is replaced after it was read");
	intent->identity = *identity;
	intent->header_copies_due = INTENT_HEADER_PAGES;
}

bool intent_identity_durable(const struct intent *intent)
{
	return intent->state == INTENT_OPEN && intent->header_copies_due == 0;
}

void intent_fail(struct intent *intent, int err, struct effects *fx)
{
	bool opening = intent->state == INTENT_OPENING;

	must(err < 0, "a failure has an errno");
	intent->state = INTENT_FAILED;
	effects_note(fx, NOTE_ERROR, intent->config.subject,
		     opening ? "the intent log cannot be read: error %llu"
			     : "the intent log cannot be written: error %llu",
		     NOTE_NUMBERS((unsigned long long)-err));
	if (opening)
		intent->config.opened(intent, err, fx);
	else
		intent->config.failed(intent, err, fx);
}

/* ---- regions ---- */
struct region_span {
	uint32_t first, end;
};

static struct region_span regions_of(const struct intent *intent, uint8_t volume, uint64_t offset,
				     uint64_t length)
{
	must(volume < intent->config.volume_count, "the volume is in the group");
	uint64_t size = intent->config.volume[volume].size;
	uint32_t region_bytes = intent->config.volume[volume].region_bytes;

	must(length > 0 && offset < size && length <= size - offset, "the range is in the volume");
	return (struct region_span){
		intent->shape.first[volume] + (uint32_t)(offset / region_bytes),
		intent->shape.first[volume] + (uint32_t)((offset + length - 1) / region_bytes) + 1,
	};
}

static void region_use(struct intent *intent, uint32_t region)
{
	intent_bit_set(intent->used, region);
	if (intent_bit(intent->stale, region)) {
		intent_bit_clear(intent->stale, region);
		intent->stale_count--;
	}
}

static void region_queue(struct intent *intent, uint32_t region)
{
	if (intent_bit(intent->open, region) || intent_bit(intent->queued, region))
		return;
	intent_bit_set(intent->queued, region);
	intent->queued_count++;
}

bool intent_enter(struct intent *intent, uint8_t volume, uint64_t offset, uint64_t length)
{
	struct region_span span = regions_of(intent, volume, offset, length);
	bool open = intent->state == INTENT_OPEN && !intent->distrusted;

	for (uint32_t region = span.first; region < span.end; region++) {
		region_use(intent, region);
		region_queue(intent, region);
		open = open && intent_bit(intent->open, region);
	}
	for (uint32_t region = span.first; open && region < span.end; region++) {
		must(intent->writers[region] < UINT32_MAX, "writes in a region are bounded");
		intent->writers[region]++;
	}
	return open;
}

void intent_leave(struct intent *intent, uint8_t volume, uint64_t offset, uint64_t length)
{
	struct region_span span = regions_of(intent, volume, offset, length);

	for (uint32_t region = span.first; region < span.end; region++) {
		must(intent->writers[region] > 0, "who leaves has entered");
		intent->writers[region]--;
		region_use(intent, region);
	}
}

void intent_pin(struct intent *intent, uint8_t volume, uint64_t offset, uint64_t length)
{
	struct region_span span = regions_of(intent, volume, offset, length);

	for (uint32_t region = span.first; region < span.end; region++) {
		region_use(intent, region);
		region_queue(intent, region);
		intent_bit_set(intent->pinned, region);
	}
}

void intent_settle(struct intent *intent)
{
	memset(intent->pinned, 0, intent_words(intent) * sizeof(uint64_t));
}

/* The first region at or above from that is open or pinned; the number of regions when none is. */
static uint32_t region_next(const struct intent *intent, uint64_t from)
{
	if (from >= intent->shape.regions)
		return intent->shape.regions;
	for (uint32_t word = (uint32_t)(from / 64); word < intent_words(intent); word++) {
		uint64_t bits = intent->open[word] | intent->pinned[word];
		if (word == from / 64)
			bits &= ~0ull << (from % 64);
		if (bits)
			return word * 64 + (uint32_t)__builtin_ctzll(bits);
	}
	return intent->shape.regions;
}

bool intent_next(const struct intent *intent, uint64_t *cursor, uint8_t *volume, uint64_t *offset,
		 uint64_t *length)
{
	uint32_t region = region_next(intent, *cursor);
	uint8_t owner = 0;

	if (region == intent->shape.regions)
		return false;
	while (region >= intent->shape.first[owner + 1])
		owner++;
	must(owner < intent->config.volume_count, "each region is of a volume");
	uint32_t region_bytes = intent->config.volume[owner].region_bytes;
	*volume = owner;
	*offset = (uint64_t)(region - intent->shape.first[owner]) * region_bytes;
	*length = min_u64(region_bytes, intent->config.volume[owner].size - *offset);
	*cursor = (uint64_t)region + 1;
	return true;
}

uint64_t intent_open_bytes(const struct intent *intent)
{
	uint64_t cursor = 0, offset, length, bytes = 0;
	uint8_t volume;

	while (intent_next(intent, &cursor, &volume, &offset, &length))
		bytes += length;
	return bytes;
}

/* ---- writing ---- */
/* Regions stay queued until their page is durable: who asks meanwhile does not queue them again. */
static void page_written(struct intent *intent)
{
	for (unsigned i = 0; i < intent_changes_count(intent->buffer); i++) {
		uint32_t region;
		if (!intent_changes_get(intent->buffer, i, &region))
			continue;
		must(intent_bit(intent->queued, region), "what was written was queued");
		intent_bit_clear(intent->queued, region);
		intent->queued_count--;
		intent_bit_set(intent->open, region);
		intent->open_count++;
	}
}

static void intent_written(struct io *io, int32_t result, struct effects *fx)
{
	struct intent *intent = container_of(io, struct intent, io);
	uint8_t writing = intent->writing;

	intent->writing = INTENT_IDLE;
	if (intent->state == INTENT_FAILED)
		return;
	if (result != (int32_t)io->length) {
		intent_fail(intent, result < 0 ? result : -EIO, fx);
		return;
	}
	if (writing == INTENT_CHANGES)
		page_written(intent);
	else if (writing == INTENT_SNAPSHOT)
		intent->distrusted = false;
	intent->config.synced(intent, fx);
}

static void intent_write(struct intent *intent, enum intent_writing writing, uint64_t offset,
			 uint64_t length, struct effects *fx)
{
	must(intent->writing == INTENT_IDLE, "one write at a time");
	intent->writing = (uint8_t)writing;
	intent->io = (struct io){
		.done = intent_written,
		.kind = IO_WRITE_DURABLE,
		.file = intent->config.file,
		.offset = offset,
		.length = length,
		.piece = &intent->io.single,
		.piece_count = 1,
		.single = {intent->buffer, length},
	};
	effects_io(fx, &intent->io);
}

/* The first copy, then the second: at any moment one of them is whole. */
static void header_write(struct intent *intent, struct effects *fx)
{
	unsigned copy = INTENT_HEADER_PAGES - intent->header_copies_due--;

	intent_identity_encode(&intent->identity, intent->buffer);
	intent_write(intent, INTENT_HEADER, (uint64_t)copy * INTENT_HEADER_BYTES,
		     INTENT_HEADER_BYTES, fx);
}

static void snapshot_write(struct intent *intent, struct effects *fx)
{
	unsigned pages = intent->shape.snapshot_pages;

	intent->half = !intent->half;
	intent->page = pages;
	for (unsigned page = 0; page < pages; page++)
		intent_snapshot_encode(&intent->shape, intent->open, page, intent->sequence++,
				       intent->buffer + (size_t)page * PAGE_BYTES);
	intent_write(intent, INTENT_SNAPSHOT, intent_page_offset(&intent->shape, intent->half, 0),
		     (uint64_t)pages * PAGE_BYTES, fx);
}

/* Adds the regions of bits to the page; false when it is full. */
static bool changes_add(struct intent *intent, const uint64_t *bits, uint32_t count, bool open)
{
	for (uint32_t word = 0; count && word < intent_words(intent); word++)
		for (uint64_t rest = bits[word]; rest; rest &= rest - 1, count--) {
			uint32_t region = word * 64 + (uint32_t)__builtin_ctzll(rest);
			if (!intent_changes_add(intent->buffer, region, open))
				return false;
		}
	return true;
}

/* Closed from here on, whatever becomes of the page. */
static void changes_close(struct intent *intent)
{
	for (unsigned i = 0; i < intent_changes_count(intent->buffer); i++) {
		uint32_t region;
		if (intent_changes_get(intent->buffer, i, &region))
			continue;
		must(!intent->writers[region] && !intent_bit(intent->pinned, region),
		     "a region in use is not closed");
		intent_bit_clear(intent->stale, region);
		intent->stale_count--;
		intent_bit_clear(intent->open, region);
		intent->open_count--;
	}
}

static void changes_write(struct intent *intent, struct effects *fx)
{
	intent_changes_begin(intent->buffer);
	if (changes_add(intent, intent->queued, intent->queued_count, true))
		changes_add(intent, intent->stale, intent->stale_count, false);
	changes_close(intent);
	if (!intent->stale_count)
		intent->stale_waits = false;
	intent_changes_end(&intent->shape, intent->sequence++, intent->buffer);
	intent_write(intent, INTENT_CHANGES,
		     intent_page_offset(&intent->shape, intent->half, intent->page++), PAGE_BYTES,
		     fx);
}

/* Open regions that nobody used since the last sweep become stale: they are closed by the next
 * page that is written for others, or by one of their own after one more sweep. */
static void intent_sweep(struct intent *intent, ns_t now)
{
	if (now < intent->sweep_at)
		return;
	intent->sweep_at = now + SWEEP_NS;
	intent->stale_waits = intent->stale_count > 0;
	for (uint32_t word = 0; intent->open_count && word < intent_words(intent); word++) {
		uint64_t idle = intent->open[word] & ~intent->pinned[word] & ~intent->used[word] &
				~intent->stale[word];
		for (; idle; idle &= idle - 1) {
			uint32_t region = word * 64 + (uint32_t)__builtin_ctzll(idle);
			if (intent->writers[region])
				continue;
			intent_bit_set(intent->stale, region);
			intent->stale_count++;
		}
	}
	memset(intent->used, 0, intent_words(intent) * sizeof(uint64_t));
}

void intent_turn(struct intent *intent, struct effects *fx)
{
	if (intent->state != INTENT_OPEN)
		return;
	intent_sweep(intent, fx->now);
	if (intent->writing != INTENT_IDLE)
		return;
	if (intent->header_copies_due)
		header_write(intent, fx);
	else if (intent->distrusted)
		snapshot_write(intent, fx);
	else if (!intent->queued_count && !intent->stale_waits)
		return;
	else if (intent->page == intent->shape.half_pages)
		snapshot_write(intent, fx);
	else
		changes_write(intent, fx);
}

ns_t intent_deadline(const struct intent *intent)
{
	return intent->state == INTENT_OPEN && intent->open_count ? intent->sweep_at : NS_NEVER;
}
