/* SPDX-License-Identifier: Apache-2.0 */
/* The handshake with the peer site, on the control thread. The site that comes first in the
 * configuration begins; the lane says when a session is wanted. */
#include "engine.h"
#include "log.h"
#include "status.h"

#include "session/key_uri.h"
#include "session/secret.h"

#include <errno.h>
#include <stdio.h>

#define RETRY_NS      NS_PER_S
#define PATH_LOOK_NS  (50 * NS_PER_MS)
#define SAID_AGAIN_NS (30 * NS_PER_S)

static bool begins(const struct engine *engine)
{
	return engine->self == 0;
}

static int pins_parse(const struct config_site *peer, struct session_config *out)
{
	out->pin_count = peer->pin_count;
	for (unsigned i = 0; i < peer->pin_count; i++)
		if (certificate_pin_parse(peer->pin[i], out->pin[i]))
			return -EINVAL;
	return 0;
}

static int session_make(struct engine *engine, const uint8_t *psk)
{
	const struct config_site *own = &engine->config->site[engine->self];
	const struct config_site *peer = &engine->config->site[!engine->self];
	char why[SESSION_WHY_BYTES] = "";
	struct session_config config = {
		.site = own->name,
		.peer = peer->name,
		.ca_file = own->ca,
		.certificate_file = own->certificate,
		.key_uri = own->key,
		.psk = psk,
		.path_count = engine->config->path_count,
		.initiator = begins(engine),
	};

	if (pins_parse(peer, &config)) {
		log_line(NOTE_ERROR, NULL, "a pin of site %s is no fingerprint", peer->name);
		return -EINVAL;
	}
	engine->session = session_new(&config, why, sizeof why);
	if (engine->session)
		return 0;
	int err = errno ? -errno : -EINVAL;
	log_line(NOTE_ERROR, NULL, "site %s: %s", own->name, why[0] ? why : strerror(-err));
	return err;
}

int session_open(struct engine *engine)
{
	const char *uri = engine->config->psk;
	char why[ENGINE_WHY_BYTES];

	if (!uri)
		return session_make(engine, NULL);
	uint8_t *psk = secret_take(PSK_BYTES);
	if (!psk) {
		int err = -errno;
		log_line(NOTE_ERROR, NULL, "no memory for the pre-shared key: %s",
			 secret_why(-err));
		return err;
	}
	int err = key_uri_load_psk(uri, psk, why, sizeof why);
	if (err)
		log_line(NOTE_ERROR, NULL, "%s", why);
	else
		err = session_make(engine, psk);
	secret_give(psk, PSK_BYTES);
	return err;
}

void session_close(struct engine *engine)
{
	session_free(engine->session);
	engine->session = NULL;
}

static void datagrams_in(struct engine *engine, ns_t now)
{
	struct lane_datagram datagram;

	while (lane_control_receive(engine->lane, &datagram)) {
		const struct config_path *path = &engine->config->path[datagram.path];
		/* The port takes datagrams of the peer's address alone. */
		const struct session_arrival arrival = {
			.bytes = datagram.bytes,
			.length = datagram.length,
			.address = path->end[!engine->self].address.ip,
			.path = datagram.path,
		};
		session_receive(engine->session, &arrival, now);
	}
}

static void datagrams_out(struct engine *engine, ns_t now)
{
	struct session_datagram datagram;
	struct lane_datagram out;

	_Static_assert((int)CONTROL_DATAGRAM_BYTES_MAX <= (int)LANE_CONTROL_BYTES_MAX,
		       "a datagram of the handshake fits the lane's queue");
	/* What finds no room in the queue is lost, as on a network: the handshake sends again. */
	while (session_send(engine->session, &datagram, now)) {
		memcpy(out.bytes, datagram.bytes, datagram.length);
		out.length = datagram.length;
		out.path = datagram.path;
		lane_control_send(engine->lane, &out);
	}
}

static void failure_told(struct engine *engine, const struct session_event *event, ns_t now)
{
	bool same = strcmp(engine->handshake.why, event->why) == 0;

	if (same && now < engine->handshake.why_at + SAID_AGAIN_NS)
		return;
	memcpy(engine->handshake.why, event->why, sizeof engine->handshake.why);
	engine->handshake.why_at = now;
	/* What a stranger says at our port ends nothing. */
	log_line(NOTE_WARNING, NULL,
		 lane_wants_session(engine->lane)
			 ? "no session with site %s: %s"
			 : "a handshake as site %s failed, the session goes on: %s",
		 engine->config->site[!engine->self].name, event->why);
}

static void events_take(struct engine *engine, ns_t now)
{
	struct session_event event;

	while (session_poll(engine->session, &event)) {
		if (event.kind == SESSION_KEYS) {
			engine->handshake.why[0] = 0;
			if (lane_session(engine->lane, &event.keys))
				log_line(NOTE_INFO, NULL, "session with site %s",
					 engine->config->site[!engine->self].name);
			keys_wipe(&event.keys, sizeof event.keys);
		} else {
			failure_told(engine, &event, now);
		}
	}
}

static bool wants_start(const struct engine *engine)
{
	return begins(engine) && lane_wants_session(engine->lane) && !session_busy(engine->session);
}

static bool path_exists(const struct engine *engine)
{
	struct lane_counters counters;

	lane_counters(engine->lane, &counters);
	for (unsigned p = 0; p < engine->config->path_count; p++)
		if (counters.port[p].link_up && counters.port[p].next_hop_known)
			return true;
	return false;
}

/* What is said while nothing can go out is said again seconds later: better to wait for a path. */
static void start_turn(struct engine *engine, ns_t now)
{
	if (!path_exists(engine)) {
		engine->handshake.retry_at = now + PATH_LOOK_NS;
		return;
	}
	/* New keys need a moment until the core counts them. */
	engine->handshake.retry_at = now + RETRY_NS;
	session_start(engine->session, now);
}

void session_turn(struct engine *engine, ns_t now)
{
	datagrams_in(engine, now);
	if (wants_start(engine) && now >= engine->handshake.retry_at)
		start_turn(engine, now);
	datagrams_out(engine, now);
	events_take(engine, now);
}

json_t *session_json(const struct engine *engine)
{
	const char *why = lane_wants_session(engine->lane) ? engine->handshake.why : "";
	return status_handshake_json(session_stats(engine->session), why);
}

ns_t session_next(const struct engine *engine, ns_t now)
{
	ns_t next = session_deadline(engine->session);

	if (wants_start(engine))
		next = min_u64(next, max_u64(engine->handshake.retry_at, now));
	return next;
}
