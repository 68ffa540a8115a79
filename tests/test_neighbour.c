/* SPDX-License-Identifier: Apache-2.0 */
/* When ARP requests are due and what is believed, step by step; and the arguments of virtual
 * devices as text. */
#include "drive/device_argument.h"
#include "drive/neighbour.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { PEER = 0x0a000002, OTHER = 0x0a000003 };

static void requests_repeat_until_answered_and_are_refreshed(void **state)
{
	static const struct {
		uint64_t at_ms;
		enum { TURN, LEARN, LEARN_OTHER, LEARN_GROUP, CLAIM, LINK_UP } event;
		uint8_t mac;
		bool expected; /* turn: asks; learn: news */
	} row[] = {
		/* 0 */ {5, TURN, 0, true},
		/* 1 */ {6, TURN, 0, false},
		/* 2 */ {1004, TURN, 0, false},
		/* 3 */ {1005, TURN, 0, true},
		/* 4 */ {1100, LEARN_OTHER, 9, false},
		/* 5 */ {1101, LEARN_GROUP, 9, false},
		/* 6 */ {2005, TURN, 0, true},
		/* 7 */ {2100, LEARN, 1, true},
		/* 8 */ {2101, LEARN, 1, false},
		/* 9 */ {62100, TURN, 0, false},
		/* 10 */ {62101, TURN, 0, true},
		/* 11: still in use, asked each second again */ {63101, TURN, 0, true},
		/* 12 */ {63200, LEARN, 2, true},
		/* 13 */ {64500, TURN, 0, false},
		/* 14 */ {64600, LINK_UP, 0, false},
		/* 15 */ {64600, TURN, 0, true},
		/* 16 */ {64601, LEARN, 2, false},
		/* 17: unasked, by whom? it is asked again */ {64700, CLAIM, 7, false},
		/* 18: but not more often than once a second */ {64700, TURN, 0, false},
		/* 19 */ {65600, TURN, 0, true},
		/* 20 */ {65601, LEARN, 2, false},
		/* 21: too late */ {65602, CLAIM, 7, false},
		/* 22 */ {70000, CLAIM, 7, false},
		/* 23 */ {70000, TURN, 0, true},
		/* 24: it has moved indeed */ {70001, LEARN, 3, true},
		/* 25 */ {71000, TURN, 0, false},
	};
	struct neighbour neighbour;
	neighbour_init(&neighbour, PEER);
	for (unsigned i = 0; i < ARRAY_COUNT(row); i++) {
		print_message("row %u\n", i);
		ns_t now = row[i].at_ms * NS_PER_MS;
		struct mac mac = {{0x02, 0, 0, 0, 0, row[i].mac}};
		bool result = false;
		switch (row[i].event) {
		case TURN:
			result = neighbour_asks(&neighbour, now);
			break;
		case LEARN:
			result = neighbour_learn(&neighbour, PEER, &mac, now);
			assert_true(neighbour.known && neighbour.mac.bytes[5] == row[i].mac);
			break;
		case LEARN_OTHER:
			result = neighbour_learn(&neighbour, OTHER, &mac, now);
			assert_false(neighbour.known);
			break;
		case LEARN_GROUP:
			mac.bytes[0] = 3;
			result = neighbour_learn(&neighbour, PEER, &mac, now);
			assert_false(neighbour.known);
			break;
		case CLAIM:
			result = neighbour_learn(&neighbour, PEER, &mac, now);
			assert_true(neighbour.known && neighbour.mac.bytes[5] != row[i].mac);
			break;
		case LINK_UP:
			neighbour_link_up(&neighbour, now);
			break;
		}
		assert_int_equal(row[i].expected, result);
	}
}

static void arguments_are_found_by_their_whole_key(void **state)
{
	static const struct {
		const char *arguments, *key, *value;
	} row[] = {
		/* 0 */ {"net_memif0,role=server,bsize=9216", "role", "server"},
		/* 1 */ {"net_memif0,role=server,bsize=9216", "bsize", "9216"},
		/* 2 */ {"role=client", "role", "client"},
		/* 3 */ {"net_memif0,xrole=server", "role", NULL},
		/* 4 */ {"net_memif0,role2=server", "role", NULL},
		/* 5 */ {"net_memif0,role", "role", NULL},
		/* 6 */ {"a,role=,b", "role", ""},
		/* 7 */ {"", "role", NULL},
		/* 8 */ {NULL, "role", NULL},
		/* 9 */ {"a,,role=x,", "role", "x"},
		/* 10: too long for the room */ {"role=0123456789abcdef", "role", NULL},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(row); i++) {
		char value[16];
		print_message("row %u\n", i);
		bool found = device_argument(row[i].arguments, row[i].key, value, sizeof value);
		assert_int_equal(row[i].value != NULL, found);
		if (found)
			assert_string_equal(row[i].value, value);
	}
	assert_int_equal(9216, device_argument_number("x,bsize=9216", "bsize", 5));
	assert_int_equal(5, device_argument_number("x,bsize=9216k", "bsize", 5));
	assert_int_equal(5, device_argument_number("x,bsize=", "bsize", 5));
	char name[12];
	assert_true(device_name("net_memif0,role=x", name, sizeof name));
	assert_string_equal("net_memif0", name);
	assert_false(device_name("net_af_packet0,role=x", name, sizeof name));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_repeat_until_answered_and_are_refreshed),
		cmocka_unit_test(arguments_are_found_by_their_whole_key),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
