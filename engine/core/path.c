/* SPDX-License-Identifier: Apache-2.0 */
/* Replay window, pacing and round trip of one path. */
#include "path.h"

enum { PACE_BURST_NS = 2000000, PACE_BURST_BYTES_MIN = 64 * 1024 };

/* Faster than any port; up to it all products of pacing stay within 64 bits. */
static const uint64_t pace_bytes_per_s_max = 1000 * NS_PER_S;

static const ns_t timeout_min_ns = 10 * NS_PER_MS, timeout_max_ns = 1 * NS_PER_S;

void replay_init(struct replay *replay)
{
	memset(replay, 0, sizeof *replay);
}

bool replay_fresh(const struct replay *replay, uint64_t number)
{
	if (number >= replay->next)
		return number < UINT64_MAX;
	if (replay->next - number > REPLAY_WINDOW_PACKETS)
		return false;
	return !(replay->word[number / 64 % REPLAY_WORDS] >> (number % 64) & 1);
}

void replay_mark(struct replay *replay, uint64_t number)
{
	if (number >= replay->next) {
		uint64_t word = replay->next ? (replay->next - 1) / 64 : 0, last = number / 64;
		if (last - word >= REPLAY_WORDS)
			memset(replay->word, 0, sizeof replay->word);
		else
			while (word < last)
				replay->word[++word % REPLAY_WORDS] = 0;
		replay->next = number + 1;
	}
	replay->word[number / 64 % REPLAY_WORDS] |= 1ull << (number % 64);
}

void pace_init(struct pace *pace, uint64_t rate_bytes_per_s, ns_t now)
{
	uint64_t rate = min_u64(rate_bytes_per_s, pace_bytes_per_s_max);
	uint64_t burst = max_u64(rate / (NS_PER_S / PACE_BURST_NS), PACE_BURST_BYTES_MIN);
	*pace = (struct pace){.rate_bytes_per_s = rate,
			      .burst_bytes = burst,
			      .full_ns = rate ? div_up(burst * NS_PER_S, rate) : 0,
			      .tokens = burst,
			      .filled_ns = now};
}

/* Turns are so short that few bytes are gained in each: what is less than a byte is kept for the
 * next fill, or a slow path would lose half of its rate. */
void pace_fill(struct pace *pace, ns_t now)
{
	if (!pace->rate_bytes_per_s || now <= pace->filled_ns)
		return;
	ns_t passed = now - pace->filled_ns;
	pace->filled_ns = now;
	if (passed >= pace->full_ns) {
		pace->tokens = pace->burst_bytes;
		pace->part = 0;
		return;
	}
	uint64_t gained = pace->rate_bytes_per_s * passed + pace->part;
	pace->tokens = min_u64(pace->tokens + gained / NS_PER_S, pace->burst_bytes);
	pace->part = gained % NS_PER_S;
}

bool pace_take(struct pace *pace, uint32_t bytes)
{
	if (!pace->rate_bytes_per_s)
		return true;
	if (pace->tokens < bytes)
		return false;
	pace->tokens -= bytes;
	return true;
}

ns_t pace_ready_ns(const struct pace *pace, uint32_t bytes)
{
	if (!pace->rate_bytes_per_s || pace->tokens >= bytes)
		return pace->filled_ns;
	uint64_t missing = (bytes - pace->tokens) * NS_PER_S - pace->part;
	return pace->filled_ns + div_up(missing, pace->rate_bytes_per_s);
}

void round_trip_sample(struct round_trip *trip, ns_t sample_ns)
{
	if (!trip->smoothed_ns) {
		trip->smoothed_ns = max_u64(sample_ns, 1);
		trip->variation_ns = sample_ns / 2;
		return;
	}
	ns_t distance = sample_ns > trip->smoothed_ns ? sample_ns - trip->smoothed_ns
						      : trip->smoothed_ns - sample_ns;
	trip->variation_ns += (distance / 4) - trip->variation_ns / 4;
	trip->smoothed_ns = max_u64(trip->smoothed_ns - trip->smoothed_ns / 8 + sample_ns / 8, 1);
}

ns_t round_trip_timeout_ns(const struct round_trip *trip)
{
	if (!trip->smoothed_ns)
		return 100 * NS_PER_MS;
	ns_t timeout = trip->smoothed_ns + 4 * trip->variation_ns;
	return min_u64(max_u64(timeout, timeout_min_ns), timeout_max_ns);
}
