/* SPDX-License-Identifier: Apache-2.0 */
/* The queue between two threads: full and empty are told, order is kept, no item is torn. */
#include "drive/spsc.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct item {
	uint64_t number, copy[5];
};

static void full_and_empty_are_told(void **state)
{
	struct spsc queue;
	uint64_t value;
	assert_int_equal(0, spsc_init(&queue, 4, sizeof value));
	/* Started just below the wrap of the counts. */
	atomic_store(&queue.pushed, UINT32_MAX - 5);
	atomic_store(&queue.popped, UINT32_MAX - 5);
	queue.pushed_seen = queue.popped_seen = UINT32_MAX - 5;
	for (uint64_t round = 0; round < 5; round++) {
		assert_false(spsc_pop(&queue, &value));
		assert_null(spsc_front(&queue));
		for (uint64_t i = 0; i < 4; i++)
			assert_true(spsc_push(&queue, &(uint64_t){round * 4 + i}));
		assert_false(spsc_push(&queue, &value));
		assert_null(spsc_reserve(&queue));
		for (uint64_t i = 0; i < 4; i++) {
			assert_ptr_equal(spsc_front(&queue), spsc_front(&queue));
			assert_true(spsc_pop(&queue, &value));
			assert_int_equal(round * 4 + i, value);
		}
	}
	spsc_fini(&queue);
}

enum { ITEMS = 300000 };

static void *produce(void *argument)
{
	struct spsc *queue = argument;
	for (uint64_t i = 0; i < ITEMS;) {
		struct item *slot = spsc_reserve(queue);
		if (!slot) {
			sched_yield();
			continue;
		}
		slot->number = i;
		for (unsigned c = 0; c < 5; c++)
			slot->copy[c] = i ^ c;
		spsc_commit(queue);
		i++;
	}
	return NULL;
}

static void two_threads_keep_order_and_items_whole(void **state)
{
	struct spsc queue;
	pthread_t thread;
	struct item item;
	assert_int_equal(0, spsc_init(&queue, 64, sizeof item));
	assert_int_equal(0, pthread_create(&thread, NULL, produce, &queue));
	for (uint64_t i = 0; i < ITEMS;) {
		if (!spsc_pop(&queue, &item)) {
			sched_yield();
			continue;
		}
		assert_int_equal(i, item.number);
		for (unsigned c = 0; c < 5; c++)
			assert_int_equal(i ^ c, item.copy[c]);
		i++;
	}
	pthread_join(thread, NULL);
	assert_false(spsc_pop(&queue, &item));
	spsc_fini(&queue);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(full_and_empty_are_told),
		cmocka_unit_test(two_threads_keep_order_and_items_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
