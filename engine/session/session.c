/* SPDX-License-Identifier: Apache-2.0 */
/* The handshakes of one peer: which datagram belongs to which, how many there may be, and what a
 * stranger may cost us. Until a HELLO brings back a cookie, it costs an HMAC and one bounded answer
 * that is shorter than the question; after it, a TLS object out of a small budget. */
#include "session.h"

#include "connection.h"
#include "cookie.h"
#include "secret.h"

#include <openssl/crypto.h>

#include <errno.h>
#include <stdio.h>

enum {
	CONNECTIONS_MAX = SESSION_HANDSHAKES_MAX + 4, /* with those that linger */
	REPLIES_MAX = 16,
	EVENTS_MAX = 16,
	RECENT_MAX = 256, /* handshakes begun: more than the rate allows in a cookie's life */
	IDLE_S = 5,	  /* a handshake that stood still that long gives way to another */
};
_Static_assert(RECENT_MAX >= SESSION_BURST + SESSION_RATE_PER_S * COOKIE_LIFE_S,
	       "a cookie is good for one handshake: none is forgotten while its cookie is");

/* An answer to somebody whom we keep nothing about. */
struct reply {
	struct control_message message;
	unsigned path;
};

struct session {
	struct handshake_party party;
	unsigned path_count;
	struct cookie_jar jar;
	struct connection *connection[CONNECTIONS_MAX];
	unsigned turn; /* which connection sends next */

	struct reply reply[REPLIES_MAX];
	unsigned reply_first, reply_count;
	struct session_event event[EVENTS_MAX];
	unsigned event_first, event_count;

	uint64_t recent[RECENT_MAX]; /* clients whose handshake was begun; a ring */
	unsigned recent_next;
	uint64_t tokens_ns; /* of time saved up: a TLS object costs 1 s / rate */
	ns_t tokens_at;

	bool wall_known;
	int64_t wall_unix_s;
	ns_t wall_at;
	struct session_stats stats;
};

static const uint64_t token_ns = NS_PER_S / SESSION_RATE_PER_S;

struct session *session_new(const struct session_config *config, char *why, size_t why_bytes)
{
	struct session *session = secret_take(sizeof *session);
	int error;

	must(config->path_count >= 1 && config->path_count <= PATHS_MAX, "a link has 1 to 8 paths");
	if (!session) {
		snprintf(why, why_bytes, "no memory for session keys: %s", secret_why(errno));
		return NULL;
	}
	error = handshake_party_init(&session->party, config, why, why_bytes);
	if (error) {
		secret_give(session, sizeof *session);
		errno = -error;
		return NULL;
	}
	session->path_count = config->path_count;
	session->tokens_ns = SESSION_BURST * token_ns;
	cookie_jar_init(&session->jar);
	return session;
}

void session_free(struct session *session)
{
	if (!session)
		return;
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		connection_free(session->connection[i]);
	handshake_party_fini(&session->party);
	cookie_jar_fini(&session->jar);
	secret_give(session, sizeof *session);
}

/* ---- what happened ---- */

static int reason_error(int reason)
{
	switch (reason) {
	case SESSION_REASON_TIMEOUT:
		return -ETIMEDOUT;
	case SESSION_REASON_UNKNOWN:
		return -ECONNRESET;
	case SESSION_REASON_VERSION:
	case SESSION_REASON_SUITE:
		return -EPROTONOSUPPORT;
	case SESSION_REASON_EXPIRED:
		return -EKEYEXPIRED;
	case SESSION_REASON_AUTHORITY:
	case SESSION_REASON_SITE:
	case SESSION_REASON_PIN:
	case SESSION_REASON_CERTIFICATE:
		return -EACCES;
	case SESSION_REASON_PSK:
		return -EKEYREJECTED;
	}
	return -EPROTO;
}

/* A full queue loses its oldest event: newer keys and newer reasons are what counts. */
static struct session_event *event_push(struct session *session)
{
	struct session_event *event;

	if (session->event_count == EVENTS_MAX) {
		event = &session->event[session->event_first];
		OPENSSL_cleanse(event, sizeof *event);
		session->event_first = (session->event_first + 1) % EVENTS_MAX;
		session->event_count--;
	}
	event = &session->event[(session->event_first + session->event_count) % EVENTS_MAX];
	session->event_count++;
	must(session->event_count <= EVENTS_MAX, "the queue has its bound");
	return event;
}

/* After every step of a connection: tells of its end once, and lets go of what is gone. */
static void settle(struct session *session, unsigned index)
{
	struct connection *connection = session->connection[index];

	if (!connection_in_flight(connection) && !connection->told) {
		struct session_event *event = event_push(session);

		connection->told = true;
		*event = (struct session_event){.kind = SESSION_FAILED};
		if (connection->state == CONNECTION_DONE) {
			event->kind = SESSION_KEYS;
			event->keys = connection->keys;
			OPENSSL_cleanse(&connection->keys, sizeof connection->keys);
			session->stats.established++;
		} else {
			event->reason = (uint8_t)connection->reason;
			event->error = reason_error(connection->reason);
			event->by_peer = connection->by_peer;
			memcpy(event->why, connection->why, sizeof event->why);
			session->stats.failed++;
		}
	}
	if (connection->state == CONNECTION_GONE) {
		connection_free(connection);
		session->connection[index] = NULL;
	}
}

bool session_poll(struct session *session, struct session_event *event)
{
	struct session_event *first = &session->event[session->event_first];

	if (!session->event_count)
		return false;
	*event = *first;
	OPENSSL_cleanse(first, sizeof *first);
	session->event_first = (session->event_first + 1) % EVENTS_MAX;
	session->event_count--;
	return true;
}

/* ---- a place for one more ---- */

static void connection_drop(struct session *session, unsigned index)
{
	connection_free(session->connection[index]);
	session->connection[index] = NULL;
}

static unsigned in_flight_count(const struct session *session)
{
	unsigned count = 0;

	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		count += session->connection[i] && connection_in_flight(session->connection[i]);
	return count;
}

/* The one in flight that has stood still for longest, and too long; or CONNECTIONS_MAX. */
static unsigned idle_find(const struct session *session, ns_t now)
{
	unsigned found = CONNECTIONS_MAX;
	ns_t oldest = NS_NEVER;

	for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
		const struct connection *connection = session->connection[i];

		if (!connection || !connection_in_flight(connection) ||
		    connection->progress_at + IDLE_S * NS_PER_S > now ||
		    connection->progress_at >= oldest)
			continue;
		oldest = connection->progress_at;
		found = i;
	}
	return found;
}

/* A free slot; else that of the one whose lingering ends first. */
static unsigned slot_find(struct session *session)
{
	unsigned found = CONNECTIONS_MAX;
	ns_t first = NS_NEVER;

	for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
		const struct connection *connection = session->connection[i];

		if (!connection)
			return i;
		if (connection_in_flight(connection) || connection->give_up_at >= first)
			continue;
		first = connection->give_up_at;
		found = i;
	}
	must(found < CONNECTIONS_MAX, "there are more slots than handshakes in flight");
	connection_drop(session, found);
	return found;
}

static void connection_keep(struct session *session, unsigned slot, struct connection *connection,
			    ns_t now)
{
	session->connection[slot] = connection;
	if (session->wall_known)
		connection_set_date(connection,
				    session->wall_unix_s +
					    (int64_t)((now - session->wall_at) / NS_PER_S));
}

static bool token_take(struct session *session, ns_t now)
{
	const uint64_t earned = now - session->tokens_at;

	session->tokens_ns = min_u64(session->tokens_ns + earned, SESSION_BURST * token_ns);
	session->tokens_at = now;
	if (session->tokens_ns < token_ns)
		return false;
	session->tokens_ns -= token_ns;
	return true;
}

/* ---- receiving ---- */

static void reply(struct session *session, const struct control_message *message, unsigned path)
{
	if (session->reply_count == REPLIES_MAX) {
		session->stats.replies_dropped++;
		return;
	}
	session->reply[(session->reply_first + session->reply_count) % REPLIES_MAX] =
		(struct reply){.message = *message, .path = path};
	session->reply_count++;
}

static bool recent_find(const struct session *session, uint64_t client)
{
	for (unsigned i = 0; i < RECENT_MAX; i++)
		if (session->recent[i] == client)
			return true;
	return false;
}

static unsigned client_find(const struct session *session, uint64_t client)
{
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		if (session->connection[i] && session->connection[i]->ids.peer == client)
			return i;
	return CONNECTIONS_MAX;
}

/* A place among those in flight, if need be that of one that stands still. */
static bool place_take(struct session *session, ns_t now)
{
	unsigned idle;

	if (in_flight_count(session) < SESSION_HANDSHAKES_MAX)
		return token_take(session, now);
	idle = idle_find(session, now);
	if (idle == CONNECTIONS_MAX || !token_take(session, now))
		return false;
	connection_drop(session, idle);
	return true;
}

/* A client that receives at its address: one handshake per id, few at once, few per second. Its
 * slot, or CONNECTIONS_MAX when it is refused. */
static unsigned accept_client(struct session *session, uint64_t client, ns_t now)
{
	struct connection *connection;
	unsigned slot;

	if (recent_find(session, client)) {
		session->stats.replayed++;
		return CONNECTIONS_MAX;
	}
	if (!place_take(session, now)) {
		session->stats.busy++;
		return CONNECTIONS_MAX;
	}
	connection = connection_accept(&session->party, session->path_count, client, now);
	if (!connection)
		return CONNECTIONS_MAX;
	slot = slot_find(session);
	connection_keep(session, slot, connection, now);
	session->recent[session->recent_next] = client;
	session->recent_next = (session->recent_next + 1) % RECENT_MAX;
	session->stats.objects++;
	return slot;
}

static void receive_hello(struct session *session, const struct session_arrival *arrival,
			  const struct control_message *message, ns_t now)
{
	const struct cookie_holder holder = {
		.client = message->sender, .address = arrival->address, .path = arrival->path};
	struct control_message answer = {.type = CONTROL_COOKIE, .receiver = message->sender};
	unsigned index;

	if (session->party.initiator) {
		session->stats.unknown++;
		return;
	}
	if (!cookie_good(&session->jar, &holder, now, message->cookie)) {
		cookie_make(&session->jar, &holder, now, answer.cookie);
		reply(session, &answer, arrival->path);
		session->stats.cookies_sent++;
		return;
	}
	index = client_find(session, message->sender);
	if (index == CONNECTIONS_MAX)
		index = accept_client(session, message->sender, now);
	if (index < CONNECTIONS_MAX)
		connection_hello(session->connection[index], arrival->path);
}

/* The connection that a message is for: by both ids; a client that waits for its server's id takes
 * the first that answers to its own, which only one on the path can know. */
static unsigned receiver_find(const struct session *session, const struct control_message *message)
{
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
		const struct connection *connection = session->connection[i];

		if (!connection || connection->ids.own != message->receiver)
			continue;
		if (connection->ids.peer == message->sender ||
		    (connection->state == CONNECTION_HELLO && message->type != CONTROL_CLOSE))
			return i;
	}
	return CONNECTIONS_MAX;
}

/* A client in mid-handshake with a server that has restarted should not wait for its timeout. */
static void refuse_unknown(struct session *session, const struct session_arrival *arrival,
			   const struct control_message *message)
{
	const struct control_message answer = {.type = CONTROL_CLOSE,
					       .receiver = message->sender,
					       .sender = message->receiver,
					       .reason = SESSION_REASON_UNKNOWN};

	session->stats.unknown++;
	if (!session->party.initiator && message->type == CONTROL_STREAM)
		reply(session, &answer, arrival->path);
}

static void receive_cookie(struct session *session, const struct session_arrival *arrival,
			   const struct control_message *message, ns_t now)
{
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
		struct connection *connection = session->connection[i];

		if (connection && connection->ids.own == message->receiver &&
		    connection->state == CONNECTION_HELLO) {
			connection_cookie(connection, message, arrival->path, now);
			return;
		}
	}
	session->stats.unknown++;
}

void session_receive(struct session *session, const struct session_arrival *arrival, ns_t now)
{
	struct control_message message;
	const int error = control_decode(arrival->bytes, arrival->length, &message);
	unsigned index;

	must(arrival->path < session->path_count, "a datagram comes in on a path of ours");
	if (error) {
		if (error == -EPROTONOSUPPORT)
			session->stats.version++;
		else
			session->stats.malformed++;
		return;
	}
	if (message.type == CONTROL_HELLO) {
		receive_hello(session, arrival, &message, now);
		return;
	}
	if (message.type == CONTROL_COOKIE) {
		receive_cookie(session, arrival, &message, now);
		return;
	}
	index = receiver_find(session, &message);
	if (index == CONNECTIONS_MAX) {
		refuse_unknown(session, arrival, &message);
		return;
	}
	connection_receive(session->connection[index], &message, arrival->path, now);
	settle(session, index);
}

/* ---- sending ---- */

void session_start(struct session *session, ns_t now)
{
	struct connection *connection;

	must(session->party.initiator, "the vault waits to be spoken to");
	if (in_flight_count(session))
		return;
	connection = connection_ask(&session->party, session->path_count, now);
	if (!connection)
		return;
	connection_keep(session, slot_find(session), connection, now);
	session->stats.objects++;
}

static bool send_one(struct session *session, struct control_message *message, unsigned *path,
		     ns_t now)
{
	if (session->reply_count) {
		const struct reply *first = &session->reply[session->reply_first];

		*message = first->message;
		*path = first->path;
		session->reply_first = (session->reply_first + 1) % REPLIES_MAX;
		session->reply_count--;
		return true;
	}
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
		const unsigned index = (session->turn + i) % CONNECTIONS_MAX;
		struct connection *connection = session->connection[index];
		bool sends;

		if (!connection)
			continue;
		sends = connection_send(connection, message, path, now);
		settle(session, index);
		if (!sends)
			continue;
		session->turn = index;
		return true;
	}
	return false;
}

bool session_send(struct session *session, struct session_datagram *out, ns_t now)
{
	struct control_message message;
	unsigned path;

	if (!send_one(session, &message, &path, now))
		return false;
	out->length = (uint16_t)control_encode(&message, out->bytes);
	out->path = (uint8_t)path;
	return true;
}

ns_t session_deadline(const struct session *session)
{
	ns_t next = session->reply_count ? 0 : NS_NEVER;

	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		if (session->connection[i])
			next = min_u64(next, connection_deadline(session->connection[i]));
	return next;
}

/* ---- small things ---- */

void session_wall_clock(struct session *session, int64_t unix_s, ns_t now)
{
	session->wall_known = true;
	session->wall_unix_s = unix_s;
	session->wall_at = now;
}

bool session_busy(const struct session *session)
{
	return in_flight_count(session) > 0;
}

const struct session_stats *session_stats(const struct session *session)
{
	return &session->stats;
}

const char *session_fingerprint(const struct session *session)
{
	return session->party.fingerprint.text;
}

SSL_CTX *session_tls(struct session *session)
{
	return session->party.tls;
}

const char *session_reason_name(enum session_reason reason)
{
	static const char *const name[SESSION_REASON_COUNT] = {
		"none", "timeout", "unknown",	  "version", "suite", "authority", "expired",
		"site", "pin",	   "certificate", "psk",     "tls",   "local",
	};

	return (unsigned)reason < SESSION_REASON_COUNT ? name[reason] : "unknown reason";
}
