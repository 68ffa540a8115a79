/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a handshake, in one direction only:
 *
 *   client: HELLO -> TALKING -> DONE   -> GONE        server: TALKING -> DONE   -> GONE
 *             |         \----> FAILED -> GONE                    \----> FAILED -> GONE
 *             \--> GONE (nobody answered)
 *
 * The one way back: a client whose server says that it knows nothing of it (it has restarted)
 * begins again under a new id, within the same time. The TLS object lives only while TALKING.
 * What did not arrive is sent again by the timer of the stream, each time on the next path. */
#include "connection.h"

#include "secret.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include <stdio.h>

static const ns_t rto_min = CONTROL_STREAM_RTO_MIN_MS * NS_PER_MS;
static const ns_t rto_max = CONTROL_STREAM_RTO_MAX_MS * NS_PER_MS;

static uint64_t id_draw(void)
{
	uint64_t id = 0;

	while (!id)
		must(RAND_bytes((uint8_t *)&id, sizeof id) == 1, "the system has randomness");
	return id;
}

static struct connection *connection_new(const struct handshake_party *party, unsigned path_count,
					 ns_t now)
{
	struct connection *connection = secret_take(sizeof *connection);

	if (!connection)
		return NULL;
	connection->party = party;
	connection->path_count = path_count;
	connection->ids.own = id_draw();
	connection->give_up_at = now + SESSION_TIMEOUT_S * NS_PER_S;
	connection->progress_at = now;
	control_stream_init(&connection->stream);
	return connection;
}

struct connection *connection_ask(const struct handshake_party *party, unsigned path_count,
				  ns_t now)
{
	struct connection *connection = connection_new(party, path_count, now);

	must(party->initiator, "only the client asks");
	if (!connection)
		return NULL;
	connection->state = CONNECTION_HELLO;
	connection->hello.send_at = now;
	connection->hello.rto = rto_min;
	/* The timer moves on to the next path before it sends. */
	connection->path = path_count - 1;
	return connection;
}

struct connection *connection_accept(const struct handshake_party *party, unsigned path_count,
				     uint64_t client, ns_t now)
{
	struct connection *connection = connection_new(party, path_count, now);

	must(!party->initiator, "only the server accepts");
	if (!connection)
		return NULL;
	connection->state = CONNECTION_TALKING;
	connection->ids.peer = client;
	return connection;
}

void connection_free(struct connection *connection)
{
	if (!connection)
		return;
	handshake_free(connection->handshake);
	control_stream_fini(&connection->stream);
	secret_give(connection, sizeof *connection);
}

void connection_set_date(struct connection *connection, int64_t unix_s)
{
	connection->unix_s = unix_s;
}

bool connection_in_flight(const struct connection *connection)
{
	return connection->state == CONNECTION_HELLO || connection->state == CONNECTION_TALKING;
}

/* ---- the end ---- */

static void tls_drop(struct connection *connection)
{
	handshake_free(connection->handshake);
	connection->handshake = NULL;
}

/* We end it, and say so to a peer that we know. */
static void fail(struct connection *connection, enum session_reason reason, const char *why,
		 ns_t now)
{
	must(connection_in_flight(connection), "what is over does not fail again");
	connection->reason = reason;
	snprintf(connection->why, sizeof connection->why, "%s", why);
	tls_drop(connection);
	control_stream_flush(&connection->stream);
	if (!connection->ids.peer) {
		connection->state = CONNECTION_GONE;
		return;
	}
	connection->state = CONNECTION_FAILED;
	connection->give_up_at = now + CONNECTION_LINGER_S * NS_PER_S;
	connection->close.due = true;
	connection->close.rto = rto_min;
	connection->close.send_at = NS_NEVER;
}

static void succeed(struct connection *connection, ns_t now)
{
	handshake_keys(connection->handshake, &connection->keys);
	tls_drop(connection);
	/* The server's confirmation answers the client's: all that the client said has arrived. */
	if (connection->party->initiator)
		control_stream_flush(&connection->stream);
	connection->state = CONNECTION_DONE;
	connection->give_up_at = now + CONNECTION_LINGER_S * NS_PER_S;
}

static const char *peer_words(enum session_reason reason)
{
	switch (reason) {
	case SESSION_REASON_TIMEOUT:
		return "timeout: the peer gave up";
	case SESSION_REASON_UNKNOWN:
		return "the peer knows nothing of this handshake (it has restarted)";
	case SESSION_REASON_VERSION:
		return "the peer says: no common version (we speak TLS 1.3 only)";
	case SESSION_REASON_SUITE:
		return "the peer says: no common suite";
	case SESSION_REASON_AUTHORITY:
		return "the peer refuses our certificate: not signed by its CA";
	case SESSION_REASON_EXPIRED:
		return "the peer refuses our certificate: expired, or not valid yet, by its clock";
	case SESSION_REASON_SITE:
		return "the peer refuses our certificate: it expects another site";
	case SESSION_REASON_PIN:
		return "the peer refuses our certificate: not pinned there";
	case SESSION_REASON_CERTIFICATE:
		return "the peer refuses our certificate";
	case SESSION_REASON_PSK:
		return "pre-shared key differs from the peer's";
	case SESSION_REASON_LOCAL:
		return "the peer has a trouble of its own (see its log)";
	default:
		return "the peer could not read our TLS";
	}
}

/* The peer has ended it. Its word is no proof: it only ends what was not finished. */
static void closed_by_peer(struct connection *connection, unsigned reason)
{
	tls_drop(connection);
	connection->state = CONNECTION_GONE;
	connection->by_peer = true;
	connection->reason = reason < SESSION_REASON_COUNT ? (int)reason : SESSION_REASON_TLS;
	snprintf(connection->why, sizeof connection->why, "%s%s%s",
		 peer_words((enum session_reason)connection->reason),
		 reason == SESSION_REASON_PIN ? "; ours is " : "",
		 reason == SESSION_REASON_PIN ? connection->party->fingerprint.text : "");
}

static void start_again(struct connection *connection, ns_t now)
{
	tls_drop(connection);
	control_stream_fini(&connection->stream);
	control_stream_init(&connection->stream);
	connection->state = CONNECTION_HELLO;
	connection->ids = (struct handshake_ids){.own = id_draw()};
	memset(connection->hello.cookie, 0, sizeof connection->hello.cookie);
	connection->hello.answers = 0;
	connection->hello.restarts++;
	connection->hello.rto = rto_min;
	connection->hello.send_at = now;
}

/* ---- the middle ---- */

/* What TLS has to say goes to the stream. */
static void pump(struct connection *connection, ns_t now)
{
	uint8_t bytes[4096];
	size_t length;

	while ((length = handshake_take(connection->handshake, bytes, sizeof bytes)))
		if (control_stream_write(&connection->stream, bytes, length)) {
			fail(connection, SESSION_REASON_TLS, "TLS: the handshake is too long", now);
			return;
		}
}

static bool talk(struct connection *connection, ns_t now)
{
	if (!connection->handshake)
		connection->handshake =
			handshake_new(connection->party, connection->ids, connection->unix_s);
	if (connection->handshake)
		return true;
	fail(connection, SESSION_REASON_LOCAL, "out of memory", now);
	return false;
}

/* What has arrived in order goes to TLS. */
static void feed(struct connection *connection, ns_t now)
{
	const uint8_t *bytes;
	const size_t length = control_stream_read(&connection->stream, &bytes);
	enum handshake_state state;

	if (!length || !talk(connection, now))
		return;
	connection->progress_at = now;
	state = handshake_feed(connection->handshake, bytes, length);
	if (state == HANDSHAKE_FAILED) {
		fail(connection, handshake_reason(connection->handshake),
		     handshake_why(connection->handshake), now);
		return;
	}
	pump(connection, now);
	if (state == HANDSHAKE_DONE && connection->state == CONNECTION_TALKING)
		succeed(connection, now);
}

/* The server has answered our HELLO with its id: the client begins TLS. */
static void begin(struct connection *connection, uint64_t server, ns_t now)
{
	connection->ids.peer = server;
	connection->state = CONNECTION_TALKING;
	connection->progress_at = now;
	if (talk(connection, now))
		pump(connection, now);
}

void connection_cookie(struct connection *connection, const struct control_message *message,
		       unsigned path, ns_t now)
{
	if (connection->state != CONNECTION_HELLO)
		return;
	memcpy(connection->hello.cookie[path], message->cookie, CONTROL_COOKIE_BYTES);
	if (connection->hello.answers >= CONNECTION_COOKIE_ANSWERS_MAX)
		return;
	connection->hello.answers++;
	connection->hello.send_at = now;
	connection->path = (path + connection->path_count - 1) % connection->path_count;
}

void connection_hello(struct connection *connection, unsigned path)
{
	connection->path = path;
	if (connection->state == CONNECTION_FAILED)
		connection->close.due = true;
	else
		connection->stream.ack_due = true; /* by our ACK the client learns our id */
}

static void receive_close(struct connection *connection, const struct control_message *message,
			  ns_t now)
{
	if (!connection_in_flight(connection)) {
		if (connection->state == CONNECTION_FAILED)
			connection->state = CONNECTION_GONE;
		return;
	}
	if (message->reason == SESSION_REASON_UNKNOWN && connection->party->initiator &&
	    connection->hello.restarts < CONNECTION_RESTARTS_MAX)
		start_again(connection, now);
	else
		closed_by_peer(connection, message->reason);
}

void connection_receive(struct connection *connection, const struct control_message *message,
			unsigned path, ns_t now)
{
	must(message->receiver == connection->ids.own, "the session delivers by id");
	if (connection->state == CONNECTION_HELLO) {
		if (message->type == CONTROL_CLOSE)
			return;
		begin(connection, message->sender, now);
	}
	must(message->sender == connection->ids.peer, "the session delivers by both ids");
	connection->path = path;
	if (message->type == CONTROL_CLOSE) {
		receive_close(connection, message, now);
	} else if (connection->state == CONNECTION_FAILED) {
		connection->close.due = true;
	} else if (message->type == CONTROL_ACK) {
		if (control_stream_acked(&connection->stream, message, now) > 0)
			connection->progress_at = now;
	} else if (control_stream_receive(&connection->stream, message) == 0 &&
		   connection->state == CONNECTION_TALKING) {
		feed(connection, now);
	}
}

/* ---- sending ---- */

static void path_next(struct connection *connection)
{
	connection->path = (connection->path + 1) % connection->path_count;
}

static void time_passes(struct connection *connection, ns_t now)
{
	if (now >= connection->give_up_at) {
		if (connection_in_flight(connection))
			fail(connection, SESSION_REASON_TIMEOUT,
			     connection->state == CONNECTION_HELLO
				     ? "timeout: the peer does not answer"
				     : "timeout: the peer did not finish the handshake",
			     now);
		else
			connection->state = CONNECTION_GONE;
	}
	if (control_stream_tick(&connection->stream, now))
		path_next(connection);
	if (connection->state == CONNECTION_FAILED && now >= connection->close.send_at) {
		connection->close.due = true;
		path_next(connection);
	}
}

static bool send_hello(struct connection *connection, struct control_message *message, ns_t now)
{
	if (now < connection->hello.send_at)
		return false;
	path_next(connection);
	connection->hello.send_at = now + connection->hello.rto;
	connection->hello.rto = min_u64(connection->hello.rto * 2, rto_max);
	message->type = CONTROL_HELLO;
	memcpy(message->cookie, connection->hello.cookie[connection->path], CONTROL_COOKIE_BYTES);
	return true;
}

static bool send_close(struct connection *connection, struct control_message *message, ns_t now)
{
	if (!connection->close.due)
		return false;
	connection->close.due = false;
	connection->close.count++;
	connection->close.send_at = connection->close.count < CONNECTION_CLOSES_MAX
					    ? now + connection->close.rto
					    : NS_NEVER;
	connection->close.rto = min_u64(connection->close.rto * 2, rto_max);
	message->type = CONTROL_CLOSE;
	message->reason = (uint16_t)connection->reason;
	return true;
}

static bool send_stream(struct connection *connection, struct control_message *message, ns_t now)
{
	if (connection->stream.ack_due) {
		control_stream_ack(&connection->stream, message);
		return true;
	}
	return control_stream_send(&connection->stream, message, now);
}

bool connection_send(struct connection *connection, struct control_message *message, unsigned *path,
		     ns_t now)
{
	bool sends = false;

	time_passes(connection, now);
	*message = (struct control_message){.receiver = connection->ids.peer,
					    .sender = connection->ids.own};
	if (connection->state == CONNECTION_HELLO)
		sends = send_hello(connection, message, now);
	else if (connection->state == CONNECTION_FAILED)
		sends = send_close(connection, message, now);
	else if (connection->state != CONNECTION_GONE)
		sends = send_stream(connection, message, now);
	*path = connection->path;
	return sends;
}

ns_t connection_deadline(const struct connection *connection)
{
	ns_t next = NS_NEVER;

	switch (connection->state) {
	case CONNECTION_HELLO:
		next = connection->hello.send_at;
		break;
	case CONNECTION_TALKING:
	case CONNECTION_DONE:
		next = control_stream_deadline(&connection->stream);
		break;
	case CONNECTION_FAILED:
		next = connection->close.due ? 0 : connection->close.send_at;
		break;
	case CONNECTION_GONE:
		return 0;
	}
	return min_u64(next, connection->give_up_at);
}
