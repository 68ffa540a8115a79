/* SPDX-License-Identifier: Apache-2.0 */
/* The set is a sorted array, searched by halves: stores and receivers mostly add at its end, and
 * holes are few. Ranges that touch are one range, so that count is also the number of holes. */
#include "ranges.h"

#include <errno.h>

void ranges_init(struct ranges *ranges, struct range *memory, unsigned capacity)
{
	must(memory || !capacity, "a set of ranges needs the memory that it was promised");
	*ranges = (struct ranges){.range = memory, .capacity = capacity};
}

/* The index of the first range whose end is at or above number; count when there is none. */
static unsigned ranges_search(const struct ranges *ranges, uint64_t number)
{
	unsigned low = 0, high = ranges->count;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		if (ranges->range[middle].end < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Replaces the ranges [from, to) by room for `with` ranges; the caller has checked the capacity. */
static void ranges_splice(struct ranges *ranges, unsigned from, unsigned to, unsigned with)
{
	must(from <= to && to <= ranges->count, "a splice is inside the set");
	must(ranges->count - (to - from) + with <= ranges->capacity, "a splice fits the memory");
	if (to != from + with)
		memmove(&ranges->range[from + with], &ranges->range[to],
			(ranges->count - to) * sizeof ranges->range[0]);
	ranges->count = ranges->count - (to - from) + with;
}

int ranges_add(struct ranges *ranges, uint64_t first, uint64_t end)
{
	must(first <= end, "a range does not end before it begins");
	if (first == end)
		return 0;

	unsigned from = ranges_search(ranges, first), to = from;
	while (to < ranges->count && ranges->range[to].first <= end)
		to++;
	if (from == to && ranges->count == ranges->capacity)
		return -ENOSPC;
	if (from < to) {
		first = min_u64(first, ranges->range[from].first);
		end = max_u64(end, ranges->range[to - 1].end);
	}
	ranges_splice(ranges, from, to, 1);
	ranges->range[from] = (struct range){first, end};
	return 0;
}

int ranges_remove(struct ranges *ranges, uint64_t first, uint64_t end)
{
	must(first <= end, "a range does not end before it begins");
	if (first == end)
		return 0;

	/* A range that ends exactly at first only touches what is removed. */
	unsigned from = ranges_search(ranges, first), to;
	if (from < ranges->count && ranges->range[from].end == first)
		from++;
	for (to = from; to < ranges->count && ranges->range[to].first < end; to++)
		;
	if (from == to)
		return 0;

	struct range left = {ranges->range[from].first, first};
	struct range right = {end, ranges->range[to - 1].end};
	unsigned with = (left.first < left.end) + (right.first < right.end);
	if (with > to - from && ranges->count == ranges->capacity)
		return -ENOSPC;
	ranges_splice(ranges, from, to, with);
	if (left.first < left.end)
		ranges->range[from++] = left;
	if (right.first < right.end)
		ranges->range[from] = right;
	return 0;
}

const struct range *ranges_next(const struct ranges *ranges, uint64_t from)
{
	unsigned index = ranges_search(ranges, from);

	if (index < ranges->count && ranges->range[index].end == from)
		index++;
	return index < ranges->count ? &ranges->range[index] : NULL;
}

bool ranges_contains(const struct ranges *ranges, uint64_t number)
{
	const struct range *range = ranges_next(ranges, number);

	return range && range->first <= number;
}

bool ranges_contains_all(const struct ranges *ranges, uint64_t first, uint64_t end)
{
	must(first <= end, "a range does not end before it begins");
	const struct range *range = ranges_next(ranges, first);

	return first == end || (range && range->first <= first && end <= range->end);
}

uint64_t ranges_count(const struct ranges *ranges, uint64_t first, uint64_t end)
{
	uint64_t count = 0;
	must(first <= end, "a range does not end before it begins");
	const struct range *range = ranges_next(ranges, first);

	for (; range && range < ranges->range + ranges->count && range->first < end; range++)
		count += min_u64(range->end, end) - max_u64(range->first, first);
	return count;
}

uint64_t ranges_first_gap(const struct ranges *ranges, uint64_t from)
{
	const struct range *range = ranges_next(ranges, from);

	return range && range->first <= from ? range->end : from;
}

void ranges_clear(struct ranges *ranges)
{
	ranges->count = 0;
}
