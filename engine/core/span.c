/* SPDX-License-Identifier: Apache-2.0 */
/* The table of spans: one chain, oldest first. Each span names the last lsn of the history before
 * it that counts, so what counts of a span is bounded by every span that came after it. */
#include "span.h"

#include <errno.h>

void spans_init(struct spans *spans)
{
	memset(spans, 0, sizeof *spans);
}

const struct span *spans_newest(const struct spans *spans)
{
	must(spans->count <= SPANS_MAX, "a table of spans is never overfull");
	return spans->count ? &spans->span[spans->count - 1] : NULL;
}

const struct span *spans_find(const struct spans *spans, const struct uuid *id)
{
	must(spans->count <= SPANS_MAX, "a table of spans is never overfull");
	for (unsigned i = spans->count; i-- > 0;)
		if (uuid_equal(&spans->span[i].id, id))
			return &spans->span[i];
	return NULL;
}

static bool span_valid(const struct span *span)
{
	return !uuid_is_zero(&span->id) && span->first > 0 && span->parent_last < span->first &&
	       (span->kind == SPAN_IN_ORDER || span->kind == SPAN_CATCH_UP);
}

static bool span_equal(const struct span *a, const struct span *b)
{
	return uuid_equal(&a->id, &b->id) && uuid_equal(&a->parent, &b->parent) &&
	       a->generation == b->generation && a->kind == b->kind && a->first == b->first &&
	       a->parent_last == b->parent_last;
}

int spans_open(struct spans *spans, const struct span *span)
{
	const struct span *newest = spans_newest(spans);

	if (newest && span_equal(newest, span))
		return -EALREADY;
	if (!span_valid(span) || spans_find(spans, &span->id))
		return -ESTALE;
	if (newest) {
		/* DESIGN "spans": the vault refuses lower generations; a new span begins above
		 * every lsn that either side has seen, and continues the newest. */
		if (span->generation < newest->generation ||
		    !uuid_equal(&span->parent, &newest->id) || span->first <= newest->first)
			return -ESTALE;
		if (spans->count == SPANS_MAX)
			return -ENOSPC;
	}
	spans->span[spans->count++] = *span;
	return 0;
}

lsn_t spans_last(const struct spans *spans, unsigned index)
{
	must(index < spans->count, "the span is in the table");
	lsn_t last = UINT64_MAX;

	/* A later span that goes back behind its own parent (a rewind, or a parent in which nothing
	 * became durable) voids the end of the grandparent too. */
	for (unsigned i = index + 1; i < spans->count; i++)
		last = min_u64(last, spans->span[i].parent_last);
	return last;
}

bool spans_count_record(const struct spans *spans, const struct uuid *id, lsn_t lsn)
{
	const struct span *span = spans_find(spans, id);

	return span && lsn >= span->first &&
	       lsn <= spans_last(spans, (unsigned)(span - spans->span));
}

const struct span *spans_at(const struct spans *spans, lsn_t lsn)
{
	/* Firsts strictly increase and each last is below the next first: at most one can match. */
	for (unsigned i = spans->count; i-- > 0;)
		if (spans->span[i].first <= lsn)
			return lsn <= spans_last(spans, i) ? &spans->span[i] : NULL;
	return NULL;
}

static bool inside_catch_up(const struct spans *spans, unsigned index, lsn_t lsn)
{
	const struct span *span = &spans->span[index];

	return span->kind == SPAN_CATCH_UP && lsn > span->parent_last &&
	       lsn < spans_last(spans, index);
}

lsn_t spans_whole(const struct spans *spans, lsn_t lsn)
{
	/* From the newest on: one that is left leads to what it continued, which may be one, too.
	 */
	for (unsigned i = spans->count; i-- > 0;)
		if (inside_catch_up(spans, i, lsn))
			lsn = spans->span[i].parent_last;
	return lsn;
}

lsn_t spans_foldable(const struct spans *spans, lsn_t lsn)
{
	for (unsigned i = spans->count; i-- > 0;)
		if (spans->span[i].parent_last && inside_catch_up(spans, i, lsn))
			lsn = spans->span[i].parent_last;
	return lsn;
}

void spans_prune(struct spans *spans, lsn_t fold_point)
{
	unsigned gone = 0;

	/* Lasts never decrease along the table: what can be forgotten stands in front. */
	while (gone + 1 < spans->count && spans_last(spans, gone) <= fold_point)
		gone++;
	if (gone == 0)
		return;
	spans->count -= gone;
	memmove(spans->span, spans->span + gone, spans->count * sizeof spans->span[0]);
	memset(spans->span + spans->count, 0, gone * sizeof spans->span[0]);
}

int spans_compare(const struct spans *a, const struct spans *b)
{
	const struct span *left = spans_newest(a), *right = spans_newest(b);

	if (!left || !right)
		return !!left - !!right;
	if (left->generation != right->generation)
		return left->generation < right->generation ? -1 : 1;
	return (left->first > right->first) - (left->first < right->first);
}

/* One span on the wire and in the superblock; what carries it has a checksum or a tag of its own.
 */
enum {
	SPAN_AT_ID = 0,
	SPAN_AT_PARENT = 16,
	SPAN_AT_FIRST = 32,
	SPAN_AT_PARENT_LAST = 40,
	SPAN_AT_GENERATION = 48,
	SPAN_AT_KIND = 52,
	SPAN_AT_RESERVED = 53, /* zeros up to the end */
};
_Static_assert((int)SPAN_AT_RESERVED <= (int)SPAN_ENCODED_BYTES, "a span fits its encoding");

void span_encode(const struct span *span, uint8_t out[SPAN_ENCODED_BYTES])
{
	must(span_valid(span), "only spans that make sense are written");
	memset(out, 0, SPAN_ENCODED_BYTES);
	memcpy(out + SPAN_AT_ID, span->id.bytes, UUID_BYTES);
	memcpy(out + SPAN_AT_PARENT, span->parent.bytes, UUID_BYTES);
	put_u64(out + SPAN_AT_FIRST, span->first);
	put_u64(out + SPAN_AT_PARENT_LAST, span->parent_last);
	put_u32(out + SPAN_AT_GENERATION, span->generation);
	put_u8(out + SPAN_AT_KIND, span->kind);
}

int span_decode(struct span *span, const uint8_t in[SPAN_ENCODED_BYTES])
{
	struct span read = {
		.generation = get_u32(in + SPAN_AT_GENERATION),
		.kind = get_u8(in + SPAN_AT_KIND),
		.first = get_u64(in + SPAN_AT_FIRST),
		.parent_last = get_u64(in + SPAN_AT_PARENT_LAST),
	};

	memcpy(read.id.bytes, in + SPAN_AT_ID, UUID_BYTES);
	memcpy(read.parent.bytes, in + SPAN_AT_PARENT, UUID_BYTES);
	for (unsigned i = SPAN_AT_RESERVED; i < SPAN_ENCODED_BYTES; i++)
		if (in[i])
			return -EBADMSG;
	if (!span_valid(&read))
		return -EBADMSG;
	*span = read;
	return 0;
}
