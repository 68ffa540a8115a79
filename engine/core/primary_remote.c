/* SPDX-License-Identifier: Apache-2.0 */
/* The window of a primary: each lsn drawn is sealed, coded and sent here, kept until the durable
 * point has passed it, and sent again where the vault misses it. What the mode has met is worked
 * out here too. */
#include "primary.h"

#include <errno.h>

#include "crc.h"

static const ns_t head_interval_ns = 5 * NS_PER_MS, head_interval_max_ns = 200 * NS_PER_MS;
static const ns_t device_sync_interval_ns = 1 * NS_PER_S;

enum { RESENDS_PER_TURN = 64 };

struct sent *window_slot(const struct primary *primary, lsn_t lsn)
{
	return &primary->window[lsn % primary->window_count];
}

static bool slot_kept(const struct primary *primary, lsn_t lsn)
{
	return lsn > primary->released && lsn < primary->lsn_next &&
	       window_slot(primary, lsn)->lsn == lsn;
}

/* docs/semantics.md "spans": a subkey seals 2^40 bytes at the most (SP 800-38D, with a margin). */
bool span_full(const struct primary *primary)
{
	uint64_t most =
		primary->config->span_bytes_max ? primary->config->span_bytes_max : 1ull << 40;
	return primary->span.kind == SPAN_IN_ORDER && primary->span_bytes >= most;
}

bool window_has_room(const struct primary *primary)
{
	return primary->span_open && !span_full(primary) && primary->lsn_next <= primary->credit &&
	       primary->lsn_next - primary->released <= primary->window_count - 1 &&
	       primary->tools->cells.free_count >= primary->cells_per_record;
}

/* ---- sealing, coding, sending ---- */
/* How a shard is cut: equal fragments, so that no packet is nearly empty. */
static void slot_cut(struct primary *primary, struct sent *sent)
{
	uint32_t payload_max = link_payload_bytes_max(&primary->tools->link);
	sent->fragments = (uint16_t)div_up(sent->shard_bytes, payload_max);
	sent->draft.cut_bytes =
		(uint32_t)align_up(div_up(sent->shard_bytes, sent->fragments), WIRE_CUT_UNIT_BYTES);
	sent->fragments = (uint16_t)div_up(sent->shard_bytes, sent->draft.cut_bytes);
}

static uint32_t fragment_bytes(const struct sent *sent, unsigned fragment)
{
	uint32_t offset = fragment * sent->draft.cut_bytes;
	return (uint32_t)min_u64(sent->draft.cut_bytes, sent->shard_bytes - offset);
}

static void slot_take_cells(struct primary *primary, struct sent *sent, unsigned count)
{
	must(count <= primary->cells_per_record, "a record's cells were counted at start");
	for (unsigned i = 0; i < count; i++) {
		sent->cell[i] = cells_take(&primary->tools->cells);
		must(sent->cell[i], "the window had room for the record's cells");
		sent->cell[i]->payload_bytes = 0;
	}
	sent->cell_count = (uint16_t)count;
}

/* docs/protocol.md "Sealing": the cipher is the copy, straight from the client's bytes into the
 * packets. */
static void slot_seal(struct primary *primary, struct sent *sent, const uint8_t *plaintext)
{
	struct record *record = &sent->draft.record;
	unsigned k = record->geometry.k, n = geometry_n(record->geometry), count = 0;
	struct aead_piece piece[PRIMARY_FRAGMENTS_MAX];
	if (sent->has_payload)
		for (unsigned column = 0; column < k; column++)
			for (unsigned f = 0; f < sent->fragments; f++) {
				struct packet_cell *cell = sent->cell[f * n + column];
				cell->payload_bytes = fragment_bytes(sent, f);
				piece[count++] = (struct aead_piece){
					.in = plaintext + (uint64_t)column * sent->shard_bytes +
					      (uint64_t)f * sent->draft.cut_bytes,
					.out = cell->payload,
					.length = cell->payload_bytes};
			}
	const struct core_volume *volume = &primary->config->volume[sent->draft.volume];
	struct seal_context context = {.identity = record->identity,
				       .volume = record->volume,
				       .block = record->block,
				       .block_bytes = volume->block_bytes,
				       .kind = record->kind};
	const struct aead_key *subkey = seal_cache_take(
		&primary->tools->seals,
		(uint8_t)(primary->group * VOLUMES_PER_GROUP_MAX + sent->draft.volume),
		primary->key[sent->draft.volume], &record->identity.span);
	seal_block(primary->tools->aead, subkey, &context, piece, count, record->tag);
	primary->seals++;
	primary->span_bytes += volume->block_bytes;
	for (unsigned i = 0; i < count; i++)
		record->block_crc = crc32c_more(record->block_crc, piece[i].out, piece[i].length);
}

static void slot_encode(struct primary *primary, struct sent *sent)
{
	struct geometry geometry = sent->draft.record.geometry;
	unsigned n = geometry_n(geometry);
	for (unsigned f = 0; f < sent->fragments; f++) {
		uint8_t *column[SHARDS_MAX];
		for (unsigned i = 0; i < n; i++) {
			column[i] = sent->cell[f * n + i]->payload;
			sent->cell[f * n + i]->payload_bytes = fragment_bytes(sent, f);
		}
		stripe_encode(primary->stripe, column, column + geometry.k,
			      fragment_bytes(sent, f));
	}
}

static void slot_send_cell(struct primary *primary, struct sent *sent, unsigned index,
			   unsigned shift)
{
	struct packet_cell *cell = sent->cell[index];
	struct wire_shard *shard = &sent->draft;
	unsigned n = geometry_n(shard->record.geometry), column = index % n;
	if (sent->has_payload) {
		shard->record.shard = (uint8_t)column;
		shard->offset = index / n * shard->cut_bytes;
	}
	unsigned path = link_path_for(&primary->tools->link, sent->lsn, column + shift);
	link_send_shard(&primary->tools->link, cell, shard, path);
}

static void slot_send(struct primary *primary, struct sent *sent, ns_t now)
{
	for (unsigned i = 0; i < sent->cell_count; i++)
		slot_send_cell(primary, sent, i, 0);
	sent->sent_at = now;
	primary->records_sent++;
}

static struct sent *slot_draw(struct primary *primary, uint8_t kind, struct effects *fx)
{
	lsn_t lsn = primary->lsn_next++;
	struct sent *sent = window_slot(primary, lsn);
	struct packet_cell **cell = sent->cell;
	memset(sent, 0, sizeof *sent);
	sent->cell = cell;
	sent->lsn = lsn;
	sent->draft.group = primary->group;
	struct record *record = &sent->draft.record;
	record->span = primary->span.id;
	record->lsn = lsn;
	record->identity = (struct seal_identity){
		.span = primary->span.id, .lsn = lsn, .generation = primary->span.generation};
	record->kind = kind;
	record->geometry = primary->config->geometry;
	record->wall_ns = fx->wall_ns;
	return sent;
}

void window_commit(struct primary *primary, struct operation *operation, struct effects *fx)
{
	must(window_has_room(primary), "a commit waits for room");
	struct sent *sent = slot_draw(primary, operation->kind, fx);
	const struct core_volume *volume = &primary->config->volume[operation->volume];
	struct record *record = &sent->draft.record;
	sent->draft.volume = operation->volume;
	sent->operation = operation;
	sent->offset = operation->block * volume->block_bytes;
	sent->length = volume->block_bytes;
	record->volume = intent_identity_of(primary->intent)->volume[operation->volume].id;
	record->block = operation->block;
	record->block_bytes = volume->block_bytes;
	sent->has_payload = record_kind_has_payload(operation->kind);
	operation->lsn = sent->lsn;
	unsigned n = geometry_n(record->geometry);
	if (sent->has_payload) {
		sent->shard_bytes = shard_bytes_of(record->geometry, volume->block_bytes);
		slot_cut(primary, sent);
		slot_take_cells(primary, sent, sent->fragments * n);
	} else {
		slot_take_cells(primary, sent, n > 1 ? 2 : 1);
	}
	if (operation->request && operation->request->flags & REQUEST_FUA)
		primary->forced_lsn = sent->lsn;
	slot_seal(primary, sent, operation->scratch ? operation->scratch : operation->source);
	if (sent->has_payload)
		slot_encode(primary, sent);
	slot_send(primary, sent, fx->now);
	link_drain(&primary->tools->link, fx);
}

/* The record that closes a catch-up: it carries no block and needs no local write. */
void window_commit_end(struct primary *primary, struct effects *fx)
{
	must(window_has_room(primary), "a commit waits for room");
	struct sent *sent = slot_draw(primary, RECORD_END, fx);
	slot_take_cells(primary, sent, geometry_n(primary->config->geometry) > 1 ? 2 : 1);
	slot_seal(primary, sent, NULL);
	slot_send(primary, sent, fx->now);
	window_local_done(primary, sent->lsn);
	primary->end_lsn = sent->lsn;
}

/* ---- the mode ---- */
void window_local_done(struct primary *primary, lsn_t lsn)
{
	window_slot(primary, lsn)->local_done = true;
	while (primary->local_point + 1 < primary->lsn_next &&
	       window_slot(primary, primary->local_point + 1)->local_done)
		primary->local_point++;
}

/* docs/semantics.md "modes". No client write is admitted while a catch-up is open. */
static lsn_t remote_point(const struct primary *primary)
{
	if (primary->config->ack == ACK_LOCAL)
		return UINT64_MAX;
	if (primary->config->ack == ACK_RECEIVED)
		return max_u64(primary->received, primary->durable);
	return primary->durable;
}

/* It falls when the vault restarts and has no more what it had only received: what was answered
 * stays answered, and what is asked from now on waits. */
lsn_t window_mode_point(const struct primary *primary)
{
	lsn_t local = primary->config->sync_flush ? primary->device_synced : primary->local_point;
	return min_u64(local, remote_point(primary));
}

/* ---- what the vault says ---- */
static void resend_nack(struct primary *primary, const struct wire_nack *nack, ns_t now)
{
	struct sent *sent = slot_kept(primary, nack->lsn) ? window_slot(primary, nack->lsn) : NULL;
	if (!sent)
		return;
	unsigned n = geometry_n(primary->config->geometry);
	for (unsigned i = 0; i < sent->cell_count; i++) {
		unsigned column = i % n, fragment = i / n;
		bool wanted = !sent->has_payload ||
			      (nack->columns >> column & 1 && fragment >= nack->fragment &&
			       fragment - nack->fragment < nack->count);
		if (!wanted || packet_cell_busy(sent->cell[i]))
			continue;
		slot_send_cell(primary, sent, i, 1);
		primary->records_resent++;
	}
	sent->sent_at = now;
}

void primary_points_received(struct primary *primary, const struct wire_points *points,
			     struct effects *fx)
{
	if (!primary->span_open || !uuid_equal(&points->span, &primary->span.id) ||
	    points->durable >= primary->lsn_next || points->received >= primary->lsn_next)
		return;
	if (points->durable > primary->durable || points->received > primary->received) {
		primary->progress_at = fx->now;
		primary->head_backoff = 0;
	}
	primary->durable = max_u64(primary->durable, points->durable);
	primary->held = max_u64(primary->held, primary->durable);
	primary->received = max_u64(primary->received, points->received);
	primary->consistent = max_u64(primary->consistent, points->consistent);
	primary->credit = max_u64(primary->credit, points->credit);
	for (unsigned i = 0; i < points->nack_count; i++)
		resend_nack(primary, &points->nack[i], fx->now);
}

/* After the vault restarted: it has what is durable; the rest is sent again, a little each turn. */
void window_resend_from(struct primary *primary, lsn_t durable)
{
	primary->resend_next = max_u64(durable, primary->released) + 1;
	primary->resend_end = primary->lsn_next;
}

static void window_resend_turn(struct primary *primary, struct effects *fx)
{
	unsigned budget = RESENDS_PER_TURN;
	while (primary->span_open && primary->resend_next < primary->resend_end && budget--) {
		if (primary->resend_next > primary->credit)
			return;
		if (slot_kept(primary, primary->resend_next)) {
			struct sent *sent = window_slot(primary, primary->resend_next);
			for (unsigned i = 0; i < sent->cell_count; i++)
				if (packet_cell_busy(sent->cell[i]))
					return;
			slot_send(primary, sent, fx->now);
			primary->records_resent += sent->cell_count;
		}
		primary->resend_next++;
	}
}

/* ---- turn ---- */
static void slot_release(struct primary *primary, struct sent *sent)
{
	for (unsigned i = 0; i < sent->cell_count; i++)
		cells_give(&primary->tools->cells, sent->cell[i]);
	sent->cell_count = 0;
	if (sent->length)
		intent_leave(primary->intent, sent->draft.volume, sent->offset, sent->length);
	sent->lsn = 0;
}

/* A record leaves the window only when the durable point has passed it, in every mode, its local
 * write is synced, and the client was answered. */
static void window_release(struct primary *primary)
{
	lsn_t local = primary->config->sync_flush ? primary->device_synced : primary->local_point;
	lsn_t until = min_u64(min_u64(primary->durable, local), primary->answered);
	while (primary->released < until)
		slot_release(primary, window_slot(primary, ++primary->released));
}

static void window_answer(struct primary *primary, struct effects *fx)
{
	lsn_t until = window_mode_point(primary);
	while (primary->answered < until) {
		struct sent *sent = window_slot(primary, ++primary->answered);
		if (sent->operation) {
			struct operation *operation = sent->operation;
			sent->operation = NULL;
			operation_answered(primary, operation, fx);
		}
	}
}

/* While something is outstanding and nothing moves, say how far we have sent, so that the vault
 * sees a lost tail. */
static void window_say_head(struct primary *primary, struct effects *fx)
{
	bool outstanding = primary->received + 1 < primary->lsn_next ||
			   primary->durable + 1 < primary->lsn_next;
	ns_t interval = min_u64(head_interval_ns << min_u64(primary->head_backoff, 6),
				head_interval_max_ns);
	if (!primary->span_open || !outstanding || fx->now - primary->head_said < interval)
		return;
	struct wire_head head = {
		.group = primary->group, .span = primary->span.id, .last = primary->lsn_next - 1};
	uint8_t text[WIRE_TEXT_BYTES_MAX];
	link_send_message(&primary->tools->link, text, wire_head_encode(&head, text), fx->now);
	primary->head_said = fx->now;
	primary->head_backoff++;
}

static void window_ask_device_syncs(struct primary *primary, struct effects *fx)
{
	if (!primary->config->sync_flush || primary->device_synced >= primary->local_point)
		return;
	bool full = primary->lsn_next - primary->released > primary->window_count / 2;
	bool waited = primary->flushing.head || full || primary->answered < primary->forced_lsn;
	for (unsigned i = 0; i < primary->config->volume_count; i++) {
		struct device *device = &primary->device[i];
		if (waited || fx->now - device->asked_at > device_sync_interval_ns)
			device->asked = true;
	}
}

void window_turn(struct primary *primary, struct effects *fx)
{
	window_resend_turn(primary, fx);
	window_ask_device_syncs(primary, fx);
	window_answer(primary, fx);
	window_release(primary);
	window_say_head(primary, fx);
}
