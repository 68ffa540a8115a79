/* SPDX-License-Identifier: Apache-2.0 */
/* Spans: stretches of history (docs/semantics.md "spans"). A table of them says which records
 * count: those of a span from its first lsn up to the last lsn that its child names. All else is
 * void for ever, whichever store brings it back. */
#ifndef CASEMATE_CORE_SPAN_H
#define CASEMATE_CORE_SPAN_H

#include "base.h"

enum span_kind { SPAN_IN_ORDER = 1, SPAN_CATCH_UP = 2 };

enum { SPANS_MAX = 48, SPAN_ENCODED_BYTES = 64 };

struct span {
	struct uuid id; /* random; the salt of the subkey */
	uint32_t generation;
	uint8_t kind;	    /* enum span_kind */
	lsn_t first;	    /* first lsn that may be drawn in it */
	struct uuid parent; /* zero for the first span of a group */
	lsn_t parent_last;  /* last lsn of the parent that counts */
};

/* Oldest first; span[i + 1].parent == span[i].id; firsts strictly increase. */
struct spans {
	struct span span[SPANS_MAX];
	unsigned count;
};

void spans_init(struct spans *);
const struct span *spans_newest(const struct spans *); /* NULL when empty */
const struct span *spans_find(const struct spans *, const struct uuid *id);

/* Takes a new span after the newest. 0; -EALREADY when it is the newest already and equal; -ESTALE
 * when its generation is lower, its parent is not the newest, its first is not above the newest's
 * first and its own parent_last, or an older span has its id; -ENOSPC when the table is full. */
int spans_open(struct spans *, const struct span *);

/* Whether a record with this place counts. */
bool spans_count_record(const struct spans *, const struct uuid *span, lsn_t);
/* The last lsn up to this one at which the volumes are as they once were: itself, but for one
 * inside a catch-up, which leads to the point that the catch-up continued. */
lsn_t spans_whole(const struct spans *, lsn_t);
/* The last lsn up to this one at which a fold may end. The same, but that there is nothing to keep
 * of what came before an initial copy: a catch-up that continued nothing. */
lsn_t spans_foldable(const struct spans *, lsn_t);
/* The span in which this lsn counts; NULL when in none (a gap between spans, or pruned). */
const struct span *spans_at(const struct spans *, lsn_t);
/* The last lsn of span[index] that counts; UINT64_MAX for the newest. */
lsn_t spans_last(const struct spans *, unsigned index);
/* Forgets spans that end at or below the fold point (all of their records are in the image). Keeps
 * the newest. */
void spans_prune(struct spans *, lsn_t fold_point);
/* Of two tables of one history (from two stores), the one that knows more: higher generation, then
 * higher first of the newest. < 0, 0, > 0 */
int spans_compare(const struct spans *, const struct spans *);

void span_encode(const struct span *, uint8_t out[SPAN_ENCODED_BYTES]);
/* 0 or -EBADMSG */
int span_decode(struct span *, const uint8_t in[SPAN_ENCODED_BYTES]);

#endif
