/* SPDX-License-Identifier: Apache-2.0 */
/* Opening an intent log: read the identity, look at every page of both halves, judge which half
 * tells the truth, and read that one again to apply it.
 *
 * Pages of changes are written one at a time and each is durable before the next is written. So of
 * a half at most the last page can be torn, and a bad page with a good later one behind it is
 * damage. A snapshot is written whole, may be torn anywhere, and says nothing that the other half
 * does not say until a page of changes follows it: a half with a bad snapshot and no changes after
 * it is passed over. */
#include "intent_log.h"

#include <errno.h>

static void recovery_read(struct intent *intent, struct effects *fx);

/* The largest sequence number in a half; 0 when it has no valid page. */
static uint64_t half_newest(const struct intent *intent, unsigned half)
{
	uint64_t newest = 0;

	for (unsigned page = 0; page < intent->shape.half_pages; page++)
		newest = max_u64(newest, intent->recovery.sequence[half][page]);
	return newest;
}

static bool half_complete(const struct intent *intent, unsigned half)
{
	const uint64_t *sequence = intent->recovery.sequence[half];

	for (unsigned page = 0; page < intent->shape.snapshot_pages; page++)
		if (sequence[page] == 0 || sequence[page] != sequence[0] + page)
			return false;
	return true;
}

/* How many pages of a complete half count; -EBADMSG when one is missing from the middle. What the
 * half held before its snapshot has lower numbers. */
static int half_run(const struct intent *intent, unsigned half)
{
	const uint64_t *sequence = intent->recovery.sequence[half];
	unsigned pages = intent->shape.snapshot_pages;

	while (pages < intent->shape.half_pages && sequence[pages] == sequence[0] + pages)
		pages++;
	for (unsigned page = pages; page < intent->shape.half_pages; page++)
		if (sequence[page] > sequence[0])
			return -EBADMSG;
	return (int)pages;
}

/* Chooses the half to believe. The pages of it that count, or -EBADMSG; the log goes on in the
 * other half in any case. */
static int recovery_judge(struct intent *intent)
{
	uint64_t newest[2] = {half_newest(intent, 0), half_newest(intent, 1)};
	unsigned newer = newest[1] > newest[0], older = !newer;

	intent->half = newer;
	intent->page = intent->shape.half_pages;
	intent->sequence = newest[newer] + intent->shape.half_pages + 1;
	if (half_complete(intent, newer))
		return half_run(intent, newer);
	for (unsigned page = intent->shape.snapshot_pages; page < intent->shape.half_pages; page++)
		if (intent->recovery.sequence[newer][page] > newest[older])
			return -EBADMSG;
	if (!half_complete(intent, older))
		return -EBADMSG;
	intent->half = older;
	return half_run(intent, older);
}

/* Regions found open may differ between the two sides: they stay until a comparison. */
static void recovery_end(struct intent *intent, int result, struct effects *fx)
{
	if (result == -EBADMSG) {
		for (uint32_t region = 0; region < intent->shape.regions; region++)
			intent_bit_set(intent->open, region);
		intent->distrusted = true;
		effects_note(fx, NOTE_WARNING, intent->config.subject,
			     "the intent log is damaged: all %llu regions are compared",
			     NOTE_NUMBERS(intent->shape.regions));
	}
	memcpy(intent->pinned, intent->open, intent_words(intent) * sizeof(uint64_t));
	intent->open_count = 0;
	for (uint32_t word = 0; word < intent_words(intent); word++)
		intent->open_count += (uint32_t)__builtin_popcountll(intent->open[word]);
	intent->state = INTENT_OPEN;
	intent->config.opened(intent, result, fx);
}

static void recovery_apply(struct intent *intent, const uint8_t *bytes, unsigned page)
{
	if (page < intent->shape.snapshot_pages) {
		intent_snapshot_decode(&intent->shape, bytes, page, intent->open);
		/* Bits behind the last region are nobody's. */
		if (intent->shape.regions % 64)
			intent->open[intent_words(intent) - 1] &=
				(1ull << (intent->shape.regions % 64)) - 1;
		return;
	}
	for (unsigned i = 0; i < intent_changes_count(bytes); i++) {
		uint32_t region;
		if (intent_changes_get(bytes, i, &region))
			intent_bit_set(intent->open, region);
		else
			intent_bit_clear(intent->open, region);
	}
}

/* The pages of one half have been read: what next? */
static void recovery_next(struct intent *intent, struct effects *fx)
{
	if (intent->recovery.applying) {
		recovery_end(intent, 0, fx);
		return;
	}
	intent->recovery.page = 0;
	if (intent->recovery.half == 0) {
		intent->recovery.half = 1;
		recovery_read(intent, fx);
		return;
	}
	int pages = recovery_judge(intent);
	if (pages < 0) {
		recovery_end(intent, pages, fx);
		return;
	}
	intent->recovery.applying = true;
	intent->recovery.half = intent->half;
	intent->recovery.end = (unsigned)pages;
	recovery_read(intent, fx);
}

static void recovery_pages_read(struct io *io, int32_t result, struct effects *fx)
{
	struct intent *intent = container_of(io, struct intent, io);
	unsigned half = intent->recovery.half;

	if (result != (int32_t)io->length) {
		intent_fail(intent, result < 0 ? result : -EIO, fx);
		return;
	}
	for (unsigned i = 0; i < io->length / PAGE_BYTES; i++) {
		unsigned page = intent->recovery.page++;
		const uint8_t *bytes = intent->buffer + (size_t)i * PAGE_BYTES;
		uint64_t sequence = intent_page_check(&intent->shape, bytes, page);
		if (!intent->recovery.applying) {
			intent->recovery.sequence[half][page] = sequence;
			continue;
		}
		if (sequence != intent->recovery.sequence[half][page]) {
			recovery_end(intent, -EBADMSG, fx);
			return;
		}
		recovery_apply(intent, bytes, page);
	}
	if (intent->recovery.page < intent->recovery.end)
		recovery_read(intent, fx);
	else
		recovery_next(intent, fx);
}

static void intent_read(struct intent *intent, uint64_t offset, uint64_t length,
			void (*done)(struct io *, int32_t, struct effects *), struct effects *fx)
{
	intent->io = (struct io){
		.done = done,
		.kind = IO_READ,
		.file = intent->config.file,
		.offset = offset,
		.length = length,
		.piece = &intent->io.single,
		.piece_count = 1,
		.single = {intent->buffer, length},
	};
	effects_io(fx, &intent->io);
}

static void recovery_read(struct intent *intent, struct effects *fx)
{
	unsigned pages = intent->recovery.end - intent->recovery.page;

	must(intent->recovery.page < intent->recovery.end, "there is something to read");
	if (pages > INTENT_READ_PAGES)
		pages = INTENT_READ_PAGES;
	intent_read(
		intent,
		intent_page_offset(&intent->shape, intent->recovery.half, intent->recovery.page),
		(uint64_t)pages * PAGE_BYTES, recovery_pages_read, fx);
}

/* The first copy is written first: where it is good it is the newer one. */
static void recovery_header_read(struct io *io, int32_t result, struct effects *fx)
{
	struct intent *intent = container_of(io, struct intent, io);
	const uint8_t *first = intent->buffer, *second = intent->buffer + INTENT_HEADER_BYTES;

	if (result != (int32_t)io->length) {
		intent_fail(intent, result < 0 ? result : -EIO, fx);
		return;
	}
	int err = intent_identity_decode(first, &intent->identity);
	if (err)
		err = intent_identity_decode(second, &intent->identity);
	if (err) {
		intent_fail(intent, -ENOENT, fx);
		return;
	}
	if (memcmp(first, second, INTENT_HEADER_BYTES) != 0)
		intent->header_copies_due = INTENT_HEADER_PAGES;
	recovery_read(intent, fx);
}

void intent_open(struct intent *intent, struct effects *fx)
{
	must(intent->state == INTENT_CLOSED, "an intent log is opened once");
	intent->state = INTENT_OPENING;
	intent->recovery.end = intent->shape.half_pages;
	intent_read(intent, 0, (uint64_t)INTENT_HEADER_PAGES * PAGE_BYTES, recovery_header_read,
		    fx);
}
