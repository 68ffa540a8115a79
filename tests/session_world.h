/* SPDX-License-Identifier: Apache-2.0 */
/* A world of two ends of a handshake in one process, over a net in memory that loses, doubles,
 * reorders and damages datagrams, in virtual time and by a seed. For the tests of the session. */
#ifndef CASEMATE_TESTS_SESSION_WORLD_H
#define CASEMATE_TESTS_SESSION_WORLD_H

#include "session/session.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>

/* ---- the sites: dir/own has a CA with three sites, dir/other one with a site of the same name */

static char dir[] = "/tmp/casemate-session-XXXXXX";

static const char *in_dir(const char *realm, const char *name)
{
	static char path[8][PATH_MAX];
	static unsigned next;

	next = (next + 1) % ARRAY_COUNT(path);
	snprintf(path[next], PATH_MAX, "%s/%s/%s", dir, realm, name);
	return path[next];
}

static int make_sites(void **state)
{
	static const char *const realms[] = {"own", "other"};
	static const char *const sites[] = {"primary", "vault", "mallory"};
	char why[256];

	if (!mkdtemp(dir))
		return -1;
	for (unsigned i = 0; i < ARRAY_COUNT(realms); i++) {
		if (mkdir(in_dir(realms[i], ""), 0700) ||
		    certificate_make_ca(in_dir(realms[i], ""), why, sizeof why))
			return -1;
		for (unsigned j = 0; j < ARRAY_COUNT(sites); j++)
			if (certificate_make_site(in_dir(realms[i], ""), sites[j], why, sizeof why))
				return -1;
	}
	return 0;
}

static int entry_remove(const char *path, const struct stat *s, int type, struct FTW *ftw)
{
	return remove(path);
}

static int remove_sites(void **state)
{
	return nftw(dir, entry_remove, 8, FTW_DEPTH | FTW_PHYS);
}

/* What can be wrong with one end. */
struct flaw {
	const char *realm;	  /* whose CA and certificate; NULL: own */
	const char *certificate;  /* and whose name; NULL: the right one */
	const char *pins;	  /* the site that is pinned; NULL: the peer */
	unsigned psk;		  /* which one; 0: none */
	int64_t clock_ahead_days; /* of the true time */
	int tls_version;	  /* 0: TLS 1.3 */
	const char *suite;
};

static void pin_set(uint8_t pin[CERTIFICATE_PIN_BYTES], const char *path)
{
	struct certificate_fingerprint text;

	assert_int_equal(certificate_fingerprint(path, &text), 0);
	assert_int_equal(certificate_pin_parse(text.text, pin), 0);
}

static struct session *end_new(bool initiator, const struct flaw *flaw)
{
	const char *own = initiator ? "primary" : "vault";
	const char *peer = initiator ? "vault" : "primary";
	const char *realm = flaw->realm ? flaw->realm : "own";
	const char *name = flaw->certificate ? flaw->certificate : own;
	const char *pins = flaw->pins ? flaw->pins : peer;
	char certificate[64], key[64], pinned[64], uri[PATH_MAX + 8];
	char why[SESSION_WHY_BYTES] = "";
	uint8_t psk[KEY_BYTES];
	struct session_config config = {.site = name,
					.peer = peer,
					.ca_file = in_dir(realm, "ca.pem"),
					.pin_count = 2,
					.psk = flaw->psk ? psk : NULL,
					.path_count = 2,
					.initiator = initiator};
	struct session *session;

	memset(psk, (int)flaw->psk, sizeof psk);
	snprintf(certificate, sizeof certificate, "%s.pem", name);
	snprintf(key, sizeof key, "%s.key", name);
	snprintf(pinned, sizeof pinned, "%s.pem", pins);
	config.certificate_file = in_dir(realm, certificate);
	snprintf(uri, sizeof uri, "file:%s", in_dir(realm, key));
	config.key_uri = uri;
	/* The pin that counts is the second: the first is the one that was. */
	pin_set(config.pin[0], in_dir("own", "ca.pem"));
	pin_set(config.pin[1], in_dir("own", pinned));
	session = session_new(&config, why, sizeof why);
	OPENSSL_cleanse(psk, sizeof psk);
	if (!session)
		fail_msg("%s", why);
	if (flaw->clock_ahead_days)
		session_wall_clock(session, time(NULL) + flaw->clock_ahead_days * 86400, 0);
	if (flaw->tls_version) {
		SSL_CTX_set_min_proto_version(session_tls(session), flaw->tls_version);
		SSL_CTX_set_max_proto_version(session_tls(session), flaw->tls_version);
	}
	if (flaw->suite)
		assert_true(SSL_CTX_set_ciphersuites(session_tls(session), flaw->suite));
	return session;
}

/* ---- the net ---- */

enum { CLIENT, SERVER, FLIGHTS_MAX = 512, CAPTURED_MAX = 256 };

struct flight {
	bool used;
	unsigned to;
	ns_t at;
	struct session_datagram datagram;
};

struct world {
	struct session *end[2];
	ns_t now;
	uint64_t random;
	unsigned loss, twice, damage; /* percent */
	unsigned dead_path;	      /* bit per path */
	bool mute[2];		      /* what this end says is lost */
	struct flight flight[FLIGHTS_MAX];
	/* what came of it */
	unsigned keys_count[2], failed_count[2];
	struct session_keys keys[2];
	struct session_event failed[2];
	/* everything that was said */
	struct flight captured[CAPTURED_MAX];
	unsigned captured_count;
};

/* SplitMix64. */
static uint64_t draw(struct world *world)
{
	uint64_t z = world->random += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static bool chance(struct world *world, unsigned percent)
{
	return draw(world) % 100 < percent;
}

static struct world *world_new(const struct flaw *client, const struct flaw *server, uint64_t seed)
{
	struct world *world = calloc(1, sizeof *world);

	assert_non_null(world);
	world->random = seed;
	world->now = 1000 * NS_PER_S;
	world->end[CLIENT] = end_new(true, client);
	world->end[SERVER] = end_new(false, server);
	return world;
}

static void world_free(struct world *world)
{
	session_free(world->end[CLIENT]);
	session_free(world->end[SERVER]);
	OPENSSL_cleanse(world, sizeof *world);
	free(world);
}

static void fly(struct world *world, unsigned to, const struct session_datagram *datagram)
{
	for (unsigned i = 0; i < FLIGHTS_MAX; i++) {
		struct flight *flight = &world->flight[i];

		if (flight->used)
			continue;
		*flight = (struct flight){.used = true, .to = to, .datagram = *datagram};
		flight->at = world->now + 5 * NS_PER_MS + draw(world) % (15 * NS_PER_MS);
		if (chance(world, world->damage))
			flight->datagram.bytes[draw(world) % datagram->length] ^=
				(uint8_t)(1u << draw(world) % 8);
		return;
	}
	fail_msg("more datagrams in flight than the test foresaw");
}

static void end_says(struct world *world, unsigned from)
{
	struct session_datagram datagram;

	while (session_send(world->end[from], &datagram, world->now)) {
		assert_in_range(datagram.length, CONTROL_HEADER_BYTES, CONTROL_DATAGRAM_BYTES_MAX);
		if (world->captured_count < CAPTURED_MAX)
			world->captured[world->captured_count++] =
				(struct flight){.to = !from, .datagram = datagram};
		if (world->mute[from] || world->dead_path >> datagram.path & 1)
			continue;
		if (!chance(world, world->loss))
			fly(world, !from, &datagram);
		if (chance(world, world->twice))
			fly(world, !from, &datagram);
	}
}

static void end_hears(struct world *world, unsigned to, const struct session_datagram *datagram)
{
	const struct session_arrival arrival = {.bytes = datagram->bytes,
						.length = datagram->length,
						.address = 100u + !to,
						.path = datagram->path};

	session_receive(world->end[to], &arrival, world->now);
}

static void end_tells(struct world *world, unsigned index)
{
	struct session_event event;

	while (session_poll(world->end[index], &event)) {
		if (event.kind == SESSION_KEYS) {
			world->keys_count[index]++;
			world->keys[index] = event.keys;
		} else {
			world->failed_count[index]++;
			world->failed[index] = event;
		}
		OPENSSL_cleanse(&event, sizeof event);
	}
}

static ns_t next_time(const struct world *world)
{
	ns_t next = min_u64(session_deadline(world->end[0]), session_deadline(world->end[1]));

	for (unsigned i = 0; i < FLIGHTS_MAX; i++)
		if (world->flight[i].used)
			next = min_u64(next, world->flight[i].at);
	return next;
}

/* One turn: both ends speak, time goes on to the next thing, and what arrives is heard. False when
 * nothing will ever happen again. */
static bool turn(struct world *world)
{
	ns_t next;

	for (unsigned end = 0; end < 2; end++) {
		end_says(world, end);
		end_tells(world, end);
	}
	next = next_time(world);
	if (next == NS_NEVER)
		return false;
	world->now = max_u64(world->now, next);
	for (unsigned i = 0; i < FLIGHTS_MAX; i++) {
		struct flight *flight = &world->flight[i];

		if (!flight->used || flight->at > world->now)
			continue;
		flight->used = false;
		end_hears(world, flight->to, &flight->datagram);
	}
	for (unsigned end = 0; end < 2; end++)
		end_tells(world, end);
	return true;
}

static void run_until_quiet(struct world *world)
{
	unsigned turns = 0;

	while (turn(world))
		assert_true(++turns < 20000);
}

static const struct flaw no_flaw;

#endif
