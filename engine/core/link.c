/* SPDX-License-Identifier: Apache-2.0 */
/* The link to the peer: see link.h for how sessions and the ratchet move on. */
#include "link.h"

#include <errno.h>

#include "keys.h"

static const ns_t alive_interval_ns = 100 * NS_PER_MS, dead_after_ns = 2 * NS_PER_S;
static const ns_t ratchet_interval_ns = 60 * NS_PER_S, session_life_ns = 3000 * NS_PER_S;
static const uint64_t ratchet_packets = 1ull << 26;

enum { KEY_PREVIOUS, KEY_CURRENT, KEY_NEXT };

void link_init(struct link *link, struct aead *aead, struct cells *cells,
	       const struct core_config *config)
{
	memset(link, 0, sizeof *link);
	link->aead = aead;
	link->cells = cells;
	link->lane = config->lane;
	link->path_count = config->path_count;
	link->datagram_bytes_max = UINT32_MAX;
	for (unsigned i = 0; i < link->path_count; i++) {
		pace_init(&link->path[i].pace, config->path[i].rate_bytes_per_s, 0);
		if (config->path[i].datagram_bytes_max < link->datagram_bytes_max)
			link->datagram_bytes_max = config->path[i].datagram_bytes_max;
	}
	must(link->datagram_bytes_max >= WIRE_HEADER_BYTES + WIRE_TEXT_BYTES_MAX + TAG_BYTES,
	     "a path carries our messages");
}

void link_fini(struct link *link)
{
	keys_wipe(link, sizeof *link);
}

uint32_t link_payload_bytes_max(const struct link *link)
{
	return (uint32_t)align_down(link->datagram_bytes_max - WIRE_SHARD_OVERHEAD_BYTES,
				    WIRE_CUT_UNIT_BYTES);
}

/* ---- sessions ---- */
static void session_derive_in(struct link *link, struct link_session *session, unsigned slot)
{
	uint8_t key[KEY_BYTES];
	keys_packet_key(session->secret_next, link->lane, key);
	aead_key_init(link->aead, &session->key_in[slot], key);
	session->key_in_valid[slot] = true;
	keys_ratchet(session->secret_next);
	keys_wipe(key, sizeof key);
}

static void session_derive_out(struct link *link, struct link_session *session, ns_t now)
{
	uint8_t key[KEY_BYTES];
	keys_packet_key(session->secret_out, link->lane, key);
	aead_key_init(link->aead, &session->key_out, key);
	keys_wipe(key, sizeof key);
	session->packets_out = 0;
	session->ratcheted = now;
}

void link_new_session(struct link *link, const struct session_keys *keys, ns_t now)
{
	struct link_session *newest = &link->session[0];
	/* The one that is replaced unused was never spoken in: the older one stays. */
	if (newest->valid && newest->confirmed)
		link->session[1] = *newest;
	keys_wipe(newest, sizeof *newest);
	newest->valid = true;
	newest->initiator = keys->initiator;
	newest->id_in = keys->id_in;
	newest->id_out = keys->id_out;
	newest->since = now;
	memcpy(newest->secret_out, keys->secret_out, SESSION_SECRET_BYTES);
	session_derive_out(link, newest, now);
	memcpy(newest->secret_next, keys->secret_in, SESSION_SECRET_BYTES);
	session_derive_in(link, newest, KEY_CURRENT);
	session_derive_in(link, newest, KEY_NEXT);
	for (unsigned i = 0; i < link->path_count; i++) {
		replay_init(&newest->replay[i]);
		link->path[i].said = 0;
	}
	link->rekeys++;
}

bool link_wants_session(const struct link *link, ns_t now)
{
	const struct link_session *newest = &link->session[0];
	if (!newest->valid)
		return true;
	if (!link->linked)
		return now - newest->since > dead_after_ns;
	return now - newest->since > session_life_ns;
}

static struct link_session *session_for_sending(struct link *link)
{
	struct link_session *newest = &link->session[0], *older = &link->session[1];
	if (newest->valid && (newest->initiator || newest->confirmed))
		return newest;
	return older->valid ? older : NULL;
}

bool link_can_send(const struct link *link)
{
	const struct link_session *newest = &link->session[0];
	return (newest->valid && (newest->initiator || newest->confirmed)) ||
	       link->session[1].valid;
}

static struct link_session *session_find(struct link *link, uint64_t id)
{
	for (unsigned i = 0; i < LINK_SESSIONS; i++)
		if (link->session[i].valid && link->session[i].id_in == id)
			return &link->session[i];
	return NULL;
}

static void nonce_make(const struct link *link, uint8_t path, uint64_t number,
		       uint8_t nonce[AEAD_NONCE_BYTES])
{
	nonce[0] = path;
	nonce[1] = 0;
	put_u16(nonce + 2, link->lane);
	put_u64(nonce + 4, number);
}

/* ---- receiving ---- */
/* docs/protocol.md "Ratchet": the receiver follows the first datagram that opens with the next key.
 */
static void session_follow(struct link *link, struct link_session *session)
{
	session->key_in[KEY_PREVIOUS] = session->key_in[KEY_CURRENT];
	session->key_in[KEY_CURRENT] = session->key_in[KEY_NEXT];
	session->key_in_valid[KEY_PREVIOUS] = true;
	session->generation_in++;
	session_derive_in(link, session, KEY_NEXT);
}

static int slot_of(const struct link_session *session, uint8_t slot)
{
	uint8_t distance = (uint8_t)(slot - (uint8_t)session->generation_in);
	if (distance == 0)
		return KEY_CURRENT;
	if (distance == 1)
		return KEY_NEXT;
	return distance == 255 && session->key_in_valid[KEY_PREVIOUS] ? KEY_PREVIOUS : -1;
}

static void link_heard(struct link *link, struct link_session *session, uint8_t path,
		       uint32_t bytes, ns_t now)
{
	session->confirmed = true;
	link->path[path].heard = now;
	link->path[path].alive = true;
	link->path[path].stats.rx_packets++;
	link->path[path].stats.rx_bytes += bytes;
	link->peer_bye = false;
	if (!link->linked) {
		link->linked = true;
		link->linked_since = now;
	}
}

/* A peer that has started anew, and speaks in the newest session, says nothing more in the one
 * before: what still arrives there is of its former life. */
static void link_peer_named(struct link *link, const struct link_session *session,
			    const struct uuid *instance)
{
	bool anew = !uuid_equal(&link->peer_instance, instance);
	if (anew && session == &link->session[0])
		keys_wipe(&link->session[1], sizeof link->session[1]);
	link->peer_instance = *instance;
}

static void link_alive_received(struct link *link, const struct link_session *session,
				const struct opened *opened, ns_t now)
{
	struct wire_alive alive;
	if (wire_alive_decode(&alive, opened->text, opened->text_bytes) < 0) {
		link->rx_malformed++;
		return;
	}
	struct link_path *path = &link->path[opened->path];
	if (!opened->late)
		link_peer_named(link, session, &alive.instance);
	if (alive.echo_ns <= now)
		link->echoed_ns = max_u64(link->echoed_ns, alive.echo_ns);
	path->peer_sent_ns = alive.sent_ns;
	path->peer_sent_at = now;
	if (alive.echo_ns && now > alive.echo_ns + alive.echo_age_ns)
		round_trip_sample(&path->trip, now - alive.echo_ns - alive.echo_age_ns);
	if (alive.bye) {
		link->peer_bye = true;
		link->linked = false;
	}
}

int link_open(struct link *link, struct packet *packet, struct opened *opened, ns_t now)
{
	struct wire_header header;
	struct link_path *path = &link->path[packet->path];
	if (wire_header_decode(&header, packet->datagram, packet->length) < 0 ||
	    header.path >= link->path_count) {
		link->rx_malformed++;
		return -EBADMSG;
	}
	struct link_session *session = session_find(link, header.session);
	int slot = session ? slot_of(session, header.slot) : -1;
	if (slot < 0) {
		link->rx_unknown_session++;
		return -ENOKEY;
	}
	struct replay *replay = &session->replay[header.path];
	if (!replay_fresh(replay, header.number)) {
		path->stats.rx_replayed++;
		return -EALREADY;
	}
	uint8_t nonce[AEAD_NONCE_BYTES];
	nonce_make(link, header.path, header.number, nonce);
	uint8_t *text = packet->datagram + WIRE_HEADER_BYTES;
	const uint8_t *tag = text + header.text_bytes, *payload = tag + TAG_BYTES;
	uint32_t payload_bytes = (uint32_t)(packet->datagram + packet->length - payload);
	struct aead_piece piece = {.in = text, .out = text, .length = header.text_bytes};
	if (aead_open(link->aead, &session->key_in[slot], nonce, payload, payload_bytes, &piece, 1,
		      tag) < 0 ||
	    text[0] != header.type) {
		path->stats.rx_bad++;
		return -EBADMSG;
	}
	replay_mark(replay, header.number);
	if (slot == KEY_NEXT)
		session_follow(link, session);
	link_heard(link, session, header.path, packet->length, now);
	*opened = (struct opened){.type = header.type,
				  .path = header.path,
				  .late = session != session_for_sending(link),
				  .text = text,
				  .text_bytes = header.text_bytes,
				  .payload = payload,
				  .payload_bytes = payload_bytes};
	if (opened->type != WIRE_ALIVE)
		return 0;
	link_alive_received(link, session, opened, now);
	return -EAGAIN;
}

/* ---- sending ---- */
/* A datagram is sealed when it leaves its queue, not before: so numbers are in the order of
 * sending, whatever overtook it, and the session is the one in use by then. */
static void link_seal(struct link *link, struct link_session *session, struct packet_cell *cell)
{
	uint8_t *datagram = cell->cell.datagram, *text = datagram + WIRE_HEADER_BYTES;
	uint8_t *tag = text + cell->text_bytes, path = cell->cell.path;
	struct wire_header header = {.type = text[0],
				     .slot = (uint8_t)session->generation_out,
				     .path = path,
				     .text_bytes = cell->text_bytes,
				     .session = session->id_out,
				     .number = session->number_out[path]++};
	uint8_t nonce[AEAD_NONCE_BYTES];
	session->packets_out++;
	wire_header_encode(&header, datagram);
	nonce_make(link, path, header.number, nonce);
	struct aead_piece piece = {.in = text, .out = text, .length = cell->text_bytes};
	aead_seal(link->aead, &session->key_out, nonce, tag + TAG_BYTES, cell->payload_bytes,
		  &piece, 1, tag);
}

/* The text is in its place, and the payload of a shard. */
static void link_queue(struct link *link, struct packet_cell *cell, uint32_t text_bytes,
		       unsigned index)
{
	struct link_path *path = &link->path[index];
	bool urgent = cell->cell.datagram[WIRE_HEADER_BYTES] != WIRE_SHARD;
	cell->text_bytes = (uint16_t)text_bytes;
	cell->cell.length =
		WIRE_HEADER_BYTES + text_bytes + (uint32_t)TAG_BYTES + cell->payload_bytes;
	cell->cell.path = (uint8_t)index;
	cell->queued = 1;
	path->queued_bytes += cell->cell.length;
	cell_list_push(urgent ? &path->urgent : &path->bulk, &cell->cell);
}

static void send_text(struct link *link, const uint8_t *text, uint32_t text_bytes, uint8_t path)
{
	struct packet_cell *cell = link_can_send(link) ? cells_take(link->cells) : NULL;
	if (!cell)
		return;
	must(text_bytes <= WIRE_TEXT_BYTES_MAX, "a message fits its datagram");
	memcpy(cell->cell.datagram + WIRE_HEADER_BYTES, text, text_bytes);
	cell->payload_bytes = 0;
	link_queue(link, cell, text_bytes, path);
	cell->held = 0; /* free once the port gives it back */
}

static unsigned next_alive_path(struct link *link)
{
	for (unsigned tries = 0; tries < link->path_count; tries++) {
		link->path_next = (link->path_next + 1) % link->path_count;
		if (link->path[link->path_next].alive)
			return link->path_next;
	}
	return link->path_next = (link->path_next + 1) % link->path_count;
}

void link_send_message(struct link *link, const uint8_t *text, uint32_t text_bytes, ns_t now)
{
	send_text(link, text, text_bytes, (uint8_t)next_alive_path(link));
}

void link_send_shard(struct link *link, struct packet_cell *cell, const struct wire_shard *shard,
		     unsigned path)
{
	must(!packet_cell_busy(cell), "a cell is not written while the port reads it");
	if (!link_can_send(link))
		return;
	wire_shard_encode(shard, cell->cell.datagram + WIRE_HEADER_BYTES);
	link_queue(link, cell, WIRE_SHARD_TEXT_BYTES, path);
}

unsigned link_path_for(const struct link *link, lsn_t lsn, unsigned column)
{
	unsigned alive[PATHS_MAX], count = 0;
	for (unsigned i = 0; i < link->path_count; i++)
		if (link->path[i].alive)
			alive[count++] = i;
	if (!count)
		return (unsigned)((lsn + column) % link->path_count);
	return alive[(lsn + column) % count];
}

/* ---- turn ---- */
static void link_say_alive(struct link *link, unsigned index, bool bye, ns_t now)
{
	struct link_path *path = &link->path[index];
	struct wire_alive alive = {.instance = link->instance,
				   .sent_ns = now,
				   .echo_ns = path->peer_sent_ns,
				   .echo_age_ns = now - path->peer_sent_at,
				   .bye = bye};
	uint8_t text[WIRE_TEXT_BYTES_MAX];
	send_text(link, text, wire_alive_encode(&alive, text), (uint8_t)index);
	path->said = now;
}

void link_bye(struct link *link, ns_t now)
{
	for (unsigned i = 0; i < link->path_count; i++)
		link_say_alive(link, i, true, now);
}

/* When all are down it is the link that is, which others tell. */
static void path_tell(const struct link *link, unsigned index, struct link_path *path,
		      struct effects *fx)
{
	bool down = !path->alive;
	if (!link->linked || down == path->told_down ||
	    (down && fx->now - link->linked_since <= dead_after_ns))
		return;
	path->told_down = down;
	effects_note(fx, down ? NOTE_WARNING : NOTE_INFO, "link",
		     down ? "path %llu is down: the others carry all" : "path %llu is up again",
		     NOTE_NUMBERS(index, 0, 0));
}

static void link_liveness(struct link *link, struct effects *fx)
{
	ns_t now = fx->now;
	bool any = false;
	for (unsigned i = 0; i < link->path_count; i++) {
		struct link_path *path = &link->path[i];
		if (path->alive && now - path->heard > dead_after_ns)
			path->alive = false;
		any |= path->alive;
		if (!path->said || now - path->said >= alive_interval_ns)
			link_say_alive(link, i, false, now);
	}
	if (!any)
		link->linked = false;
	for (unsigned i = 0; i < link->path_count; i++)
		path_tell(link, i, &link->path[i], fx);
}

static void link_ratchet(struct link *link, ns_t now)
{
	struct link_session *session = session_for_sending(link);
	/* Only in a confirmed session: two steps ahead of the peer's keys nothing would open. */
	if (!session || !session->confirmed)
		return;
	if (session->packets_out < ratchet_packets &&
	    now - session->ratcheted < ratchet_interval_ns)
		return;
	/* While a path is cut in our direction alone, nothing says so but this. */
	if (session->generation_out && link->echoed_ns <= session->ratcheted)
		return;
	keys_ratchet(session->secret_out);
	session->generation_out++;
	session_derive_out(link, session, now);
}

static void path_drain(struct link *link, struct link_path *path, struct effects *fx)
{
	struct link_session *session = session_for_sending(link);
	pace_fill(&path->pace, fx->now);
	while (session) {
		struct cell_list *list = path->urgent.head ? &path->urgent : &path->bulk;
		if (!list->head || !pace_take(&path->pace, list->head->length))
			return;
		struct cell *cell = cell_list_pop(list);
		link_seal(link, session, packet_cell_of(cell));
		packet_cell_of(cell)->queued = 0;
		cell->in_port = 1;
		path->queued_bytes -= cell->length;
		path->stats.tx_packets++;
		path->stats.tx_bytes += cell->length;
		cell_list_push(&fx->packets, cell);
	}
}

void link_drain(struct link *link, struct effects *fx)
{
	for (unsigned i = 0; i < link->path_count; i++)
		path_drain(link, &link->path[i], fx);
}

void link_turn(struct link *link, struct effects *fx)
{
	if (link_can_send(link))
		link_liveness(link, fx);
	link_ratchet(link, fx->now);
	link_drain(link, fx);
}

ns_t link_deadline(const struct link *link, ns_t now)
{
	ns_t deadline = now + alive_interval_ns;
	for (unsigned i = 0; i < link->path_count; i++) {
		const struct link_path *path = &link->path[i];
		const struct cell *head = path->urgent.head ? path->urgent.head : path->bulk.head;
		if (head)
			deadline = min_u64(deadline, pace_ready_ns(&path->pace, head->length));
		if (link_can_send(link))
			deadline = min_u64(deadline, path->said + alive_interval_ns);
	}
	return deadline;
}

ns_t link_round_trip_ns(const struct link *link)
{
	ns_t longest = 0;
	for (unsigned i = 0; i < link->path_count; i++)
		if (link->path[i].alive)
			longest = max_u64(longest, link->path[i].trip.smoothed_ns);
	return longest;
}

ns_t link_timeout_ns(const struct link *link)
{
	ns_t longest = 0;
	for (unsigned i = 0; i < link->path_count; i++)
		if (link->path[i].alive)
			longest = max_u64(longest, round_trip_timeout_ns(&link->path[i].trip));
	return longest ? longest : 100 * NS_PER_MS;
}
