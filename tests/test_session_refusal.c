/* SPDX-License-Identifier: Apache-2.0 */
/* Which peers are refused, with which reason and in which words, on both sides. */
#include "session_world.h"

static const struct refusal_row {
	int number;
	struct flaw client, server;
	unsigned judge; /* who finds it */
	int reason, error;
	bool both; /* each finds it on its own */
	const char *judge_says;
	const char *judged_hears;
} refusals[] = {
	{1,
	 {.psk = 1},
	 {.psk = 2},
	 SERVER,
	 SESSION_REASON_PSK,
	 -EKEYREJECTED,
	 true,
	 "pre-shared key differs from the peer's",
	 "pre-shared key differs from the peer's"},
	{2,
	 {.psk = 1},
	 {.psk = 0},
	 SERVER,
	 SESSION_REASON_PSK,
	 -EKEYREJECTED,
	 true,
	 "pre-shared key differs from the peer's",
	 "pre-shared key differs from the peer's"},
	{3,
	 {.psk = 0},
	 {.psk = 1},
	 CLIENT,
	 SESSION_REASON_PSK,
	 -EKEYREJECTED,
	 true,
	 "pre-shared key differs from the peer's",
	 "pre-shared key differs from the peer's"},
	{4,
	 {.pins = "mallory"},
	 {0},
	 CLIENT,
	 SESSION_REASON_PIN,
	 -EACCES,
	 false,
	 "peer certificate is not pinned: SHA256:",
	 "not pinned there; ours is SHA256:"},
	{5,
	 {0},
	 {.pins = "mallory"},
	 SERVER,
	 SESSION_REASON_PIN,
	 -EACCES,
	 false,
	 "(pin it with sites[].pins)",
	 "not pinned there; ours is SHA256:"},
	{6,
	 {.clock_ahead_days = 800},
	 {0},
	 CLIENT,
	 SESSION_REASON_EXPIRED,
	 -EKEYEXPIRED,
	 false,
	 "peer certificate expired on 20",
	 "expired"},
	{7,
	 {0},
	 {.clock_ahead_days = 800},
	 SERVER,
	 SESSION_REASON_EXPIRED,
	 -EKEYEXPIRED,
	 false,
	 "peer certificate expired on 20",
	 "expired"},
	{8,
	 {0},
	 {.clock_ahead_days = -3},
	 SERVER,
	 SESSION_REASON_EXPIRED,
	 -EKEYEXPIRED,
	 false,
	 "is not valid before 20",
	 "not valid yet"},
	{9,
	 {.clock_ahead_days = 4000},
	 {0},
	 CLIENT,
	 SESSION_REASON_EXPIRED,
	 -EKEYEXPIRED,
	 false,
	 "expired on 20",
	 "expired"},
	{10,
	 {.certificate = "mallory"},
	 {0},
	 SERVER,
	 SESSION_REASON_SITE,
	 -EACCES,
	 false,
	 "peer presents site mallory, expected primary",
	 "it expects another site"},
	{11,
	 {0},
	 {.certificate = "mallory"},
	 CLIENT,
	 SESSION_REASON_SITE,
	 -EACCES,
	 false,
	 "peer presents site mallory, expected vault",
	 "it expects another site"},
	{12,
	 {0},
	 {.realm = "other"},
	 CLIENT,
	 SESSION_REASON_AUTHORITY,
	 -EACCES,
	 false,
	 "peer certificate is not signed by our CA",
	 "not signed by its CA"},
	{13,
	 {.tls_version = TLS1_2_VERSION},
	 {0},
	 SERVER,
	 SESSION_REASON_VERSION,
	 -EPROTONOSUPPORT,
	 false,
	 "peer does not speak TLS 1.3",
	 "TLS 1.3 only"},
	{14,
	 {0},
	 {.tls_version = TLS1_2_VERSION},
	 SERVER,
	 SESSION_REASON_VERSION,
	 -EPROTONOSUPPORT,
	 false,
	 "TLS 1.3",
	 "TLS 1.3"},
	{15,
	 {.suite = "TLS_CHACHA20_POLY1305_SHA256"},
	 {0},
	 SERVER,
	 SESSION_REASON_SUITE,
	 -EPROTONOSUPPORT,
	 false,
	 "no common suite",
	 "no common suite"},
	{16,
	 {0},
	 {.suite = "TLS_AES_128_GCM_SHA256"},
	 SERVER,
	 SESSION_REASON_SUITE,
	 -EPROTONOSUPPORT,
	 false,
	 "no common suite",
	 "no common suite"},
};

static void failed_as(const struct world *world, unsigned end, const struct refusal_row *row,
		      const char *words)
{
	const struct session_event *failed = &world->failed[end];

	if (world->failed_count[end] != 1 || failed->reason != row->reason ||
	    failed->error != row->error || !strstr(failed->why, words))
		fail_msg("row %d, %s: %u failed, reason %s, error %d: %s", row->number,
			 end == CLIENT ? "client" : "server", world->failed_count[end],
			 session_reason_name(failed->reason), failed->error, failed->why);
	if (!row->both)
		assert_int_equal(failed->by_peer, end != row->judge);
}

static void test_refusals(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(refusals); i++) {
		const struct refusal_row *row = &refusals[i];

		for (unsigned loss = 0; loss <= 20; loss += 20) {
			struct world *world = world_new(&row->client, &row->server, i + 1);

			world->loss = loss;
			session_start(world->end[CLIENT], world->now);
			run_until_quiet(world);
			assert_int_equal(world->keys_count[CLIENT], 0);
			assert_int_equal(world->keys_count[SERVER], 0);
			failed_as(world, row->judge, row, row->judge_says);
			failed_as(world, !row->judge, row, row->judged_hears);
			world_free(world);
		}
	}
}

static void test_bad_configuration(void **state)
{
	static const struct {
		int number;
		const char *site, *peer, *certificate, *key, *ca;
		unsigned pin_count;
		const char *words;
	} rows[] = {
		{1, "primary", "vault", "vault.pem", "vault.key", "ca.pem", 1, "of site vault"},
		{2, "primary", "vault", "primary.pem", "vault.key", "ca.pem", 1, "is not the key"},
		{3, "primary", "vault", "absent", "primary.key", "ca.pem", 1, "no certificate"},
		{4, "primary", "vault", "primary.pem", "absent", "ca.pem", 1, "No such file"},
		{5, "primary", "vault", "primary.pem", "primary.key", "ca.key", 1, "no CA"},
		{6, "primary", "vault", "primary.pem", "primary.key", "ca.pem", 0, "not pinned"},
		{7, "primary", "primary", "primary.pem", "primary.key", "ca.pem", 1, "different"},
	};

	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		char uri[PATH_MAX + 8];
		const struct session_config config = {.site = rows[i].site,
						      .peer = rows[i].peer,
						      .certificate_file =
							      in_dir("own", rows[i].certificate),
						      .key_uri = uri,
						      .ca_file = in_dir("own", rows[i].ca),
						      .pin_count = rows[i].pin_count,
						      .path_count = 1,
						      .initiator = true};
		char why[SESSION_WHY_BYTES] = "";

		snprintf(uri, sizeof uri, "file:%s", in_dir("own", rows[i].key));
		assert_null(session_new(&config, why, sizeof why));
		if (!strstr(why, rows[i].words))
			fail_msg("row %d: %s", rows[i].number, why);
	}
}

static void test_timeout(void **state)
{
	struct world *world = world_new(&no_flaw, &no_flaw, 1);
	const ns_t begun = world->now;

	world->mute[SERVER] = true;
	session_start(world->end[CLIENT], world->now);
	run_until_quiet(world);
	assert_int_equal(world->failed_count[CLIENT], 1);
	assert_int_equal(world->failed[CLIENT].error, -ETIMEDOUT);
	assert_non_null(strstr(world->failed[CLIENT].why, "timeout"));
	assert_in_range((world->now - begun) / NS_PER_S, SESSION_TIMEOUT_S, SESSION_TIMEOUT_S + 1);
	assert_int_equal(session_stats(world->end[SERVER])->objects, 0);
	world_free(world);
}

/* The server's last word does not come: it has keys, the client has none and says why. */
static void test_no_keys_before_the_confirmation(void **state)
{
	struct world *world = world_new(&no_flaw, &no_flaw, 1);

	session_start(world->end[CLIENT], world->now);
	while (!world->keys_count[SERVER])
		assert_true(turn(world));
	world->mute[SERVER] = true;
	memset(world->flight, 0, sizeof world->flight);
	run_until_quiet(world);
	assert_int_equal(world->keys_count[CLIENT], 0);
	assert_int_equal(world->failed[CLIENT].reason, SESSION_REASON_TIMEOUT);
	world_free(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_bad_configuration),
		cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_no_keys_before_the_confirmation),
	};

	return cmocka_run_group_tests_name("session_refusal", tests, make_sites, remove_sites);
}
