/* SPDX-License-Identifier: Apache-2.0 */
/* What one path needs of its own: the replay window against a table and a plain list of what was
 * marked, the pace against exact sums of bytes, the round trip against RFC 6298 in real numbers. */
#include "core/path.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bytes.h"

enum { MARKS_MAX = 6 };

/* ---- replay window ---- */
#define FAR (1ull << 40)

/* RFC 6479 and docs/protocol.md "Packets": what was marked, in this order, and whether number may
 * still come. A window of 65,536 stands in 1,025 words: word 0 comes round again at 65,600. */
static const struct replay_row {
	int number;
	unsigned marks;
	uint64_t mark[MARKS_MAX];
	uint64_t asked;
	bool fresh;
} replay_rows[] = {
	/* the first, whichever it is */
	{1, 0, {0}, 0, true},
	{2, 0, {0}, FAR, true},
	/* equal */
	{3, 1, {0}, 0, false},
	{4, 1, {63}, 63, false},
	{5, 1, {64}, 64, false},
	{6, 1, {FAR}, FAR, false},
	/* ahead by one; older, inside */
	{7, 1, {0}, 1, true},
	{8, 1, {5}, 4, true},
	{9, 2, {5, 4}, 4, false},
	{10, 2, {5, 3}, 4, true},
	{11, 3, {1, 2, 0}, 0, false},
	/* the edge of the window: the newest and 65,535 before it */
	{12, 1, {65535}, 0, true},
	{13, 2, {0, 65535}, 0, false},
	{14, 1, {65536}, 0, false},
	{15, 1, {65536}, 1, true},
	{16, 2, {1, 65536}, 1, false},
	{17, 2, {1, 65537}, 1, false},
	{18, 1, {FAR}, FAR - 65535, true},
	{19, 1, {FAR}, FAR - 65536, false},
	{20, 1, {FAR}, 0, false},
	{21, 2, {FAR, FAR - 65535}, FAR - 65535, false},
	{22, 2, {FAR, FAR - 65535}, FAR - 65534, true},
	/* far ahead: nothing of before is left, in whichever word it stood */
	{23, 2, {7, FAR}, 7, false},
	{24, 2, {10, 65620}, 65610, true},
	{25, 2, {130, 65800}, 65730, true},
	{26, 3, {10, 30000, 65900}, 65610, true},
	{27, 3, {130, 30000, 65900}, 65730, true},
	{28, 3, {10, 65663, 65664}, 65610, true},
	/* a jump by one word less than there are, by all, and by one more */
	{29, 3, {10, 70, 65620}, 65610, true},
	{30, 2, {70, 65700}, 65670, true},
	{31, 2, {70, 65748}, 65670, true},
	/* words that the jump does not reach stay */
	{32, 3, {70, 300, 65670}, 300, false},
	{33, 3, {70, 300, 65670}, 301, true},
	{34, 3, {131200, 65700, 131230}, 131200, false},
	{35, 3, {131200, 65700, 131230}, 65700, false},
	{36, 3, {131200, 65700, 131230}, 65701, true},
	/* the last number is never taken: none could follow it */
	{38, 0, {0}, UINT64_MAX, false},
	{39, 0, {0}, UINT64_MAX - 1, true},
	{40, 1, {UINT64_MAX - 1}, UINT64_MAX - 1, false},
	{41, 1, {UINT64_MAX - 1}, UINT64_MAX, false},
	{42, 1, {UINT64_MAX - 1}, UINT64_MAX - 65536, true},
	{43, 1, {UINT64_MAX - 1}, UINT64_MAX - 65537, false},
};

static void replay_window_as_a_table(void **state)
{
	static struct replay replay;
	for (unsigned i = 0; i < ARRAY_COUNT(replay_rows); i++) {
		const struct replay_row *row = &replay_rows[i];
		replay_init(&replay);
		for (unsigned m = 0; m < row->marks; m++) {
			if (!replay_fresh(&replay, row->mark[m]))
				fail_msg("row %d: mark %u is not fresh", row->number, m);
			replay_mark(&replay, row->mark[m]);
		}
		/* Asking marks nothing: that waits until the tag was found right. */
		for (unsigned again = 0; again < 2; again++)
			if (replay_fresh(&replay, row->asked) != row->fresh)
				fail_msg("row %d: asked %u times", row->number, again + 1);
	}
}

/* A number that the window would come to: near the newest, mostly; at times far ahead. */
static uint64_t number_draw(uint64_t *seed, uint64_t next)
{
	uint64_t draw = bytes_next(seed), step = bytes_next(seed);
	if (draw % 1000 == 0)
		return next + step % 140000;
	if (draw % 4 == 0)
		return next + step % 200;
	uint64_t back = 1 + (draw % 3 ? step % 70000 : step % 200);
	return next < back ? next : next - back;
}

static void replay_window_as_a_list_of_all(void **state)
{
	enum { NUMBERS = 20000000 };
	const uint64_t first_seed = 0x5eed0011;
	uint64_t seed = first_seed, next = 0, fresh = 0, stale = 0;
	static struct replay replay;
	uint8_t *seen = calloc(NUMBERS, 1);
	replay_init(&replay);
	for (unsigned round = 0; round < 150000 && next < NUMBERS - 200000; round++) {
		uint64_t number = number_draw(&seed, next);
		bool expected = number >= next || (next - number <= 65536 && !seen[number]);
		if (replay_fresh(&replay, number) != expected)
			fail_msg("seed %#llx, round %u: number %llu, next %llu, fresh %d",
				 (unsigned long long)first_seed, round, (unsigned long long)number,
				 (unsigned long long)next, !expected);
		stale += !expected;
		if (!expected || round % 7 == 0) /* one in seven is forged: asked, not marked */
			continue;
		fresh++;
		replay_mark(&replay, number);
		seen[number] = 1;
		next = max_u64(next, number + 1);
	}
	free(seen);
	assert_true(fresh > 100000 && stale > 5000);
}

/* ---- pace ---- */
#define YEAR_NS (365ull * 24 * 3600 * NS_PER_S)

/* docs/protocol.md "Pacing": a bucket of 2 ms of the rate, but at least 64 KiB. */
static void bucket_holds_two_ms_or_64_kib(void **state)
{
	static const struct {
		int number;
		uint64_t rate, burst; /* bytes per second, bytes */
	} rows[] = {
		{1, 125, 65536},	    /* 1 kbit/s */
		{2, 32768000, 65536},	    /* the rate at which both are the same */
		{3, 32768500, 65537},	    /* just above */
		{4, 125000000, 250000},	    /* 1 Gbit/s */
		{5, 12500000000, 25000000}, /* 100 Gbit/s */
		{6, 50000000000, 100000000} /* 400 Gbit/s */
	};
	static const ns_t pause[] = {0, 2 * NS_PER_MS, 600 * NS_PER_S, YEAR_NS, 100 * YEAR_NS};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		for (unsigned p = 0; p < ARRAY_COUNT(pause); p++) {
			struct pace pace;
			uint64_t left = 0;
			pace_init(&pace, rows[i].rate, NS_PER_S);
			/* In parts, for the bound holds for each of them. */
			for (unsigned part = 1; part <= 3; part++)
				pace_fill(&pace, NS_PER_S + pause[p] / 3 * part);
			while (pace_take(&pace, 64))
				left += 64;
			while (pace_take(&pace, 1))
				left++;
			if (left != rows[i].burst)
				fail_msg("row %d, pause %u: %llu bytes", rows[i].number, p,
					 (unsigned long long)left);
		}
	}
}

static void no_rate_is_no_pace(void **state)
{
	struct pace pace;
	pace_init(&pace, 0, 77);
	for (unsigned i = 0; i < 1000000; i++)
		assert_true(pace_take(&pace, UINT32_MAX));
	assert_int_equal(77, pace_ready_ns(&pace, UINT32_MAX));
	pace_fill(&pace, YEAR_NS);
	assert_true(pace_take(&pace, UINT32_MAX));
	assert_true(pace_ready_ns(&pace, 1472) <= YEAR_NS);
}

/* Takes all there is, in datagrams of this size; gives the bytes. */
static uint64_t pace_empty(struct pace *pace, uint32_t bytes)
{
	uint64_t taken = 0;
	while (pace_take(pace, bytes))
		taken += bytes;
	return taken;
}

static void time_that_stands_or_goes_back_gives_nothing(void **state)
{
	struct pace pace;
	pace_init(&pace, 125000000, NS_PER_S);
	assert_int_equal(250000, pace_empty(&pace, 1));
	static const ns_t stands[] = {NS_PER_S, NS_PER_S - 1, 0};
	for (unsigned i = 0; i < ARRAY_COUNT(stands); i++) {
		pace_fill(&pace, stands[i]);
		assert_false(pace_take(&pace, 1));
	}
	pace_fill(&pace, NS_PER_S + 8);
	assert_int_equal(1, pace_empty(&pace, 1));
}

/* Nothing is lost between two fills, however short they are: what came out since the bucket was
 * empty is rate * time, to the byte. Starts a year after the clock did. */
static void bytes_are_rate_times_time(void **state)
{
	static const struct {
		int number;
		uint64_t rate; /* bytes per second */
		ns_t step;
		uint32_t steps, datagram, expected;
	} rows[] = {
		{1, 1, NS_PER_S, 100, 1, 100},
		{2, 125, 100 * NS_PER_S, 10, 1, 125000}, /* 1 kbit/s */
		{3, 125, NS_PER_US, 1000000, 1, 125},
		{4, 999, NS_PER_MS, 10000, 1, 9990},
		{5, 1250000, 500, 100000, 1, 62500}, /* 10 Mbit/s */
		{6, 1250000, 1500, 100000, 1472, 187500},
		{7, 12500000, 1500, 100000, 1472, 1875000}, /* 100 Mbit/s */
		{8, 125000000, 999, 100000, 8972, 12487500},
		{9, 1250000000, 777, 100001, 1472, 97125971},  /* 10 Gbit/s */
		{10, 50000000000, 1, 1000000, 1472, 50000000}, /* 400 Gbit/s */
		{11, 50000000000, 1900000, 20, 8972, 1900000000},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct pace pace;
		ns_t now = YEAR_NS;
		uint64_t taken = 0;
		pace_init(&pace, rows[i].rate, now);
		pace_empty(&pace, 64);
		pace_empty(&pace, 1);
		for (uint32_t step = 0; step < rows[i].steps; step++) {
			pace_fill(&pace, now += rows[i].step);
			taken += pace_empty(&pace, rows[i].datagram);
		}
		taken += pace_empty(&pace, 1);
		if (taken != rows[i].expected)
			fail_msg("row %d: %llu bytes instead of %u", rows[i].number,
				 (unsigned long long)taken, rows[i].expected);
	}
}

static void ready_is_when_it_may_leave(void **state)
{
	static const uint64_t rate[] = {1, 125, 999, 1250000, 125000001, 12500000000, 50000000000};
	const uint64_t first_seed = 0x5eed0012;
	uint64_t seed = first_seed;
	for (unsigned i = 0; i < ARRAY_COUNT(rate); i++) {
		struct pace pace;
		pace_init(&pace, rate[i], YEAR_NS);
		for (unsigned round = 0; round < 20000; round++) {
			uint32_t bytes = 1 + (uint32_t)(bytes_next(&seed) % 65507);
			if (pace_take(&pace, bytes))
				continue;
			ns_t ready = pace_ready_ns(&pace, bytes);
			pace_fill(&pace, ready - 1);
			bool early = pace_take(&pace, bytes);
			pace_fill(&pace, ready);
			if (early || !pace_take(&pace, bytes))
				fail_msg("seed %#llx, rate %llu, round %u: ready, but %s",
					 (unsigned long long)first_seed,
					 (unsigned long long)rate[i], round,
					 early ? "it was before" : "it is not");
		}
	}
}

/* An hour is 1,800,000 buckets: each time just one is there. */
static void a_year_in_hours_at_400_gbit(void **state)
{
	struct pace pace;
	pace_init(&pace, 50000000000, 0);
	for (unsigned hour = 0; hour < 365 * 24; hour++) {
		pace_fill(&pace, hour * 3600 * NS_PER_S);
		assert_int_equal(100000000, pace_empty(&pace, 50000));
	}
}

/* A rate that no port has: the sums stay within their integers. */
static void rates_beyond_all_ports(void **state)
{
	static const uint64_t rate[] = {1000000000000, 18446744073709, UINT64_MAX / 1000,
					UINT64_MAX};
	for (unsigned i = 0; i < ARRAY_COUNT(rate); i++) {
		struct pace pace;
		pace_init(&pace, rate[i], YEAR_NS);
		for (ns_t now = YEAR_NS; now < YEAR_NS + 100000; now += 100) {
			pace_fill(&pace, now);
			for (unsigned datagram = 0; datagram < 10; datagram++)
				assert_true(pace_take(&pace, 8972));
		}
		pace.tokens = 0;
		assert_in_range(pace_ready_ns(&pace, UINT32_MAX), pace.filled_ns + 1,
				pace.filled_ns + 4294968);
	}
}

/* ---- round trip ---- */
static void round_trip_as_a_table(void **state)
{
	/* RFC 6298 section 2, worked out by hand: SRTT = R, RTTVAR = R/2; then RTTVAR = 3/4 RTTVAR
	 * + 1/4 |SRTT - R|, SRTT = 7/8 SRTT + 1/8 R; the timeout is SRTT + 4 RTTVAR, but 10 ms to
	 * 1 s (docs/protocol.md "Round trip"). */
	static const struct {
		int number;
		unsigned samples;
		uint64_t sample_us[3], smoothed_us, timeout_us;
	} rows[] = {
		{1, 0, {0}, 0, 100000},
		{2, 1, {100000}, 100000, 300000},
		{3, 2, {100000, 100000}, 100000, 250000},
		{4, 2, {100000, 200000}, 112500, 362500},
		{5, 2, {200000, 100000}, 187500, 587500},
		{6, 3, {100000, 200000, 112500}, 112500, 300000},
		{7, 2, {100000, 0}, 87500, 337500},
		{8, 2, {100000, 60000000}, 7587500, 1000000},
		{9, 1, {100}, 100, 10000},
		{10, 1, {3333}, 3333, 10000},
		{11, 1, {3334}, 3334, 10002},
		{12, 1, {333000}, 333000, 999000},
		{13, 1, {334000}, 334000, 1000000},
		{14, 1, {100 * YEAR_NS / NS_PER_US}, 100 * YEAR_NS / NS_PER_US, 1000000},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct round_trip trip = {0};
		for (unsigned s = 0; s < rows[i].samples; s++)
			round_trip_sample(&trip, rows[i].sample_us[s] * NS_PER_US);
		if (trip.smoothed_ns != rows[i].smoothed_us * NS_PER_US ||
		    round_trip_timeout_ns(&trip) != rows[i].timeout_us * NS_PER_US)
			fail_msg("row %d: smoothed %llu ns, timeout %llu ns", rows[i].number,
				 (unsigned long long)trip.smoothed_ns,
				 (unsigned long long)round_trip_timeout_ns(&trip));
	}
}

/* A first sample of nothing is a sample: the next one is smoothed, not taken as the first. */
static void nothing_at_all_is_a_sample(void **state)
{
	struct round_trip trip = {0};
	round_trip_sample(&trip, 0);
	assert_int_equal(10 * NS_PER_MS, round_trip_timeout_ns(&trip));
	round_trip_sample(&trip, 80 * NS_PER_MS);
	assert_in_range(trip.smoothed_ns, 10 * NS_PER_MS, 10 * NS_PER_MS + 1);
}

static void round_trip_in_real_numbers(void **state)
{
	const uint64_t first_seed = 0x5eed0013;
	uint64_t seed = first_seed;
	for (unsigned path = 0; path < 200; path++) {
		struct round_trip trip = {0};
		double smoothed = 0, variation = 0;
		uint64_t usual = 10000 + bytes_next(&seed) % (200 * NS_PER_MS);
		for (unsigned sample = 0; sample < 500; sample++) {
			uint64_t r = usual + bytes_next(&seed) % (usual + 1);
			if (bytes_next(&seed) % 50 == 0)
				r *= 20;
			variation = sample ? variation * 3 / 4 + fabs(smoothed - (double)r) / 4
					   : (double)r / 2;
			smoothed = sample ? smoothed * 7 / 8 + (double)r / 8 : (double)r;
			round_trip_sample(&trip, r);
			double timeout = smoothed + 4 * variation;
			timeout = timeout < 1e7 ? 1e7 : timeout > 1e9 ? 1e9 : timeout;
			/* Each step rounds down a few ns; the sum of all of them stays small. */
			if (fabs(smoothed - (double)trip.smoothed_ns) > 20 ||
			    fabs(timeout - (double)round_trip_timeout_ns(&trip)) > 200)
				fail_msg("seed %#llx, path %u, sample %u: %llu instead of %.0f",
					 (unsigned long long)first_seed, path, sample,
					 (unsigned long long)trip.smoothed_ns, smoothed);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(replay_window_as_a_table),
		cmocka_unit_test(replay_window_as_a_list_of_all),
		cmocka_unit_test(bucket_holds_two_ms_or_64_kib),
		cmocka_unit_test(no_rate_is_no_pace),
		cmocka_unit_test(time_that_stands_or_goes_back_gives_nothing),
		cmocka_unit_test(bytes_are_rate_times_time),
		cmocka_unit_test(ready_is_when_it_may_leave),
		cmocka_unit_test(a_year_in_hours_at_400_gbit),
		cmocka_unit_test(rates_beyond_all_ports),
		cmocka_unit_test(round_trip_as_a_table),
		cmocka_unit_test(nothing_at_all_is_a_sample),
		cmocka_unit_test(round_trip_in_real_numbers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
