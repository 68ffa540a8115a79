/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded queue from exactly one thread to exactly one other, of items of one size.
 *
 * `pushed` and `popped` count items for ever and wrap; their difference is what is inside. Only the
 * producer writes `pushed`, only the consumer `popped`, each with release after it has written, or
 * read, the slot; and each reads the other's with acquire before it touches the slot. So a slot
 * belongs to the producer while it is not counted, then to the consumer until it is counted back,
 * and no item is seen half written. Neither side ever waits: a full queue is told to the producer,
 * an empty one to the consumer. The two counts lie on cache lines of their own, with a copy of the
 * other side's count beside them, so that the other line is fetched only when the queue seems full
 * or empty. */
#ifndef CASEMATE_DRIVE_SPSC_H
#define CASEMATE_DRIVE_SPSC_H

#include "core/base.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>

struct spsc {
	uint8_t *slots; /* both: ro */
	uint32_t item_bytes, mask;
	alignas(64) _Atomic uint32_t pushed; /* producer: rw, consumer: ro */
	uint32_t popped_seen;		     /* producer: rw */
	alignas(64) _Atomic uint32_t popped; /* consumer: rw, producer: ro */
	uint32_t pushed_seen;		     /* consumer: rw */
};

/* count: a power of 2. slots: zeroed, the caller's for life. */
static inline void spsc_init_at(struct spsc *queue, void *slots, uint32_t count,
				uint32_t item_bytes)
{
	must(is_power_of_2(count) && count <= 1u << 20, "a queue's size is a power of 2");
	*queue = (struct spsc){.slots = slots, .item_bytes = item_bytes, .mask = count - 1};
}

/* With slots of its own, which spsc_fini frees. 0 or -1 with errno. */
static inline int spsc_init(struct spsc *queue, uint32_t count, uint32_t item_bytes)
{
	spsc_init_at(queue, calloc(count, item_bytes), count, item_bytes);
	return queue->slots ? 0 : -1;
}

static inline void spsc_fini(struct spsc *queue)
{
	free(queue->slots);
	queue->slots = NULL;
}

static inline void *spsc_slot(const struct spsc *queue, uint32_t number)
{
	return queue->slots + (size_t)(number & queue->mask) * queue->item_bytes;
}

/* ---- producer ---- */

/* The next free slot to fill, or NULL when full; the same one until spsc_commit. */
static inline void *spsc_reserve(struct spsc *queue)
{
	uint32_t pushed = atomic_load_explicit(&queue->pushed, memory_order_relaxed);
	if (pushed - queue->popped_seen > queue->mask) {
		queue->popped_seen = atomic_load_explicit(&queue->popped, memory_order_acquire);
		if (pushed - queue->popped_seen > queue->mask)
			return NULL;
	}
	return spsc_slot(queue, pushed);
}

static inline void spsc_commit(struct spsc *queue)
{
	uint32_t pushed = atomic_load_explicit(&queue->pushed, memory_order_relaxed);
	must(pushed - queue->popped_seen <= queue->mask, "what is committed was reserved");
	atomic_store_explicit(&queue->pushed, pushed + 1, memory_order_release);
}

static inline bool spsc_push(struct spsc *queue, const void *item)
{
	void *slot = spsc_reserve(queue);
	if (!slot)
		return false;
	memcpy(slot, item, queue->item_bytes);
	spsc_commit(queue);
	return true;
}

/* ---- consumer ---- */

/* The oldest item, or NULL when empty; the same one until spsc_release. It may be written to. */
static inline void *spsc_front(struct spsc *queue)
{
	uint32_t popped = atomic_load_explicit(&queue->popped, memory_order_relaxed);
	if (popped == queue->pushed_seen) {
		queue->pushed_seen = atomic_load_explicit(&queue->pushed, memory_order_acquire);
		if (popped == queue->pushed_seen)
			return NULL;
	}
	return spsc_slot(queue, popped);
}

static inline void spsc_release(struct spsc *queue)
{
	uint32_t popped = atomic_load_explicit(&queue->popped, memory_order_relaxed);
	must(popped != queue->pushed_seen, "what is released was at the front");
	atomic_store_explicit(&queue->popped, popped + 1, memory_order_release);
}

static inline bool spsc_pop(struct spsc *queue, void *item)
{
	const void *slot = spsc_front(queue);
	if (!slot)
		return false;
	memcpy(item, slot, queue->item_bytes);
	spsc_release(queue);
	return true;
}

#endif
