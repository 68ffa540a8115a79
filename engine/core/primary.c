/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a group at its primary: intent log read, peer met, span opened, caught up,
 * replicating. One enum, one place that changes it. */
#include "primary.h"

#include <errno.h>

static const ns_t ask_interval_ns = 200 * NS_PER_MS, refused_interval_ns = 2 * NS_PER_S;

static const char *const state_names[] = {
	[PRIMARY_OPENING] = "opening",	       [PRIMARY_WAITING] = "waiting",
	[PRIMARY_GREETING] = "waiting",	       [PRIMARY_SPANNING] = "waiting",
	[PRIMARY_CATCHING_UP] = "catching-up", [PRIMARY_REPLICATING] = "replicating",
	[PRIMARY_REFUSED] = "refused",	       [PRIMARY_STOPPED] = "stopped",
};

const char *primary_subject(const struct primary *primary)
{
	return primary->config->name;
}

void primary_enter(struct primary *primary, enum primary_state state, struct effects *fx)
{
	if (primary->state == state)
		return;
	if (state == PRIMARY_REPLICATING)
		effects_note(fx, NOTE_INFO, primary_subject(primary),
			     "replicating from lsn %llu, generation %llu",
			     NOTE_NUMBERS(primary->lsn_next, primary->generation, 0));
	primary->state = (uint8_t)state;
	primary->state_since = fx->now;
	primary->asked_at = 0;
}

void primary_stop(struct primary *primary, const char *why, int err, struct effects *fx)
{
	if (primary->state == PRIMARY_STOPPED)
		return;
	effects_note(fx, NOTE_ERROR, primary_subject(primary), why, NULL);
	effects_note(
		fx, NOTE_ERROR, primary_subject(primary),
		"stopped (errno %llu): repair what failed and start again, or promote the vault",
		NOTE_NUMBERS((unsigned long long)-err, 0, 0));
	primary_enter(primary, PRIMARY_STOPPED, fx);
	primary->span_open = false;
	write_fail_all(primary, fx);
}

/* ---- the intent log's word ---- */
static void intent_opened(struct intent *intent, int result, struct effects *fx)
{
	struct primary *primary = intent_owner(intent);
	if (result < 0 && result != -EBADMSG) {
		primary_stop(primary, "the intent log cannot be read", result, fx);
		return;
	}
	if (result == -EBADMSG)
		effects_note(fx, NOTE_WARNING, primary_subject(primary),
			     "the intent log is damaged: every block will be compared", NULL);
	primary->generation = (uint32_t)max_u64(intent_identity_of(intent)->generation, 1);
	primary_enter(primary, PRIMARY_WAITING, fx);
}

static void intent_failed(struct intent *intent, int err, struct effects *fx)
{
	primary_stop(intent_owner(intent), "a write to the intent log failed", err, fx);
}

static void intent_synced(struct intent *intent, struct effects *fx)
{
	/* What waits is tried again by write_turn, in order. */
}

/* ---- making one ---- */
static uint32_t block_bytes_max(const struct core_group *group)
{
	uint32_t most = 0;
	for (unsigned i = 0; i < group->volume_count; i++)
		most = group->volume[i].block_bytes > most ? group->volume[i].block_bytes : most;
	return most;
}

static uint32_t record_cells(const struct core_group *group, uint32_t payload_bytes_max)
{
	uint32_t shard = shard_bytes_of(group->geometry, block_bytes_max(group));
	uint32_t fragments = (uint32_t)div_up(shard, payload_bytes_max);
	uint32_t cut = (uint32_t)align_up(div_up(shard, fragments), WIRE_CUT_UNIT_BYTES);
	return (uint32_t)div_up(shard, cut) * geometry_n(group->geometry) + 1;
}

static unsigned window_records(const struct core_group *group)
{
	uint64_t record = (uint64_t)shard_bytes_of(group->geometry, block_bytes_max(group)) *
			  geometry_n(group->geometry);
	uint64_t count = group->window_bytes / record;
	count = min_u64(max_u64(count, WINDOW_RECORDS_MIN), WINDOW_RECORDS_MAX);
	while (!is_power_of_2(count))
		count &= count - 1;
	return (unsigned)count;
}

unsigned primary_cells(const struct core_group *group, uint32_t payload_bytes_max)
{
	return window_records(group) * record_cells(group, payload_bytes_max);
}

static bool primary_memory(struct primary *primary, const struct core_group *group)
{
	struct tools *tools = primary->tools;
	unsigned cells = primary->cells_per_record;
	struct packet_cell **cell;
	primary->window = tools_memory(tools, primary->window_count * sizeof *primary->window);
	cell = tools_memory(tools, (uint64_t)primary->window_count * cells * sizeof(void *));
	primary->operation = tools_memory(tools, PRIMARY_OPERATIONS * sizeof *primary->operation);
	primary->reading = tools_memory(tools, PRIMARY_READS * sizeof *primary->reading);
	primary->scratch_free = tools_memory(tools, PRIMARY_SCRATCH_BLOCKS * sizeof(void *));
	uint8_t *scratch =
		tools_memory(tools, (uint64_t)(PRIMARY_SCRATCH_BLOCKS + PRIMARY_COMPARES) *
					    block_bytes_max(group));
	void *stripe = tools_memory(tools, stripe_bytes());
	if (!primary->window || !cell || !primary->operation || !primary->reading ||
	    !primary->scratch_free || !scratch || !stripe)
		return false;
	primary->stripe = stripe_init(stripe, group->geometry, tools->kernel);
	for (unsigned i = 0; i < primary->window_count; i++)
		primary->window[i].cell = cell + (uint64_t)i * cells;
	for (unsigned i = 0; i < PRIMARY_OPERATIONS; i++) {
		primary->operation[i].primary = primary;
		primary->operation[i].next = primary->operation_free.head;
		primary->operation_free.head = &primary->operation[i];
		if (!primary->operation_free.tail)
			primary->operation_free.tail = &primary->operation[i];
	}
	for (unsigned i = 0; i < PRIMARY_READS; i++) {
		primary->reading[i].next = primary->reading_free;
		primary->reading_free = &primary->reading[i];
	}
	for (unsigned i = 0; i < PRIMARY_SCRATCH_BLOCKS; i++, scratch += block_bytes_max(group))
		scratch_give(primary, scratch);
	for (unsigned i = 0; i < PRIMARY_COMPARES; i++, scratch += block_bytes_max(group))
		primary->compare[i] = (struct compare){.scratch = scratch, .primary = primary};
	return true;
}

static bool primary_intent(struct primary *primary, const struct core_group *group)
{
	struct intent_config config = {.file = group->intent_file,
				       .volume_count = group->volume_count,
				       .subject = group->name,
				       .opened = intent_opened,
				       .failed = intent_failed,
				       .synced = intent_synced,
				       .owner = primary};
	for (unsigned i = 0; i < group->volume_count; i++) {
		config.volume[i].size = group->volume[i].size;
		config.volume[i].region_bytes =
			intent_region_bytes(group->volume[i].size, group->volume[i].block_bytes);
	}
	void *memory = tools_memory(primary->tools, intent_bytes(&config));
	primary->intent = memory ? intent_init(memory, &config) : NULL;
	return primary->intent;
}

struct primary *primary_new(struct tools *tools, struct core_group *group, uint8_t index,
			    uint16_t export_first, uint32_t payload_bytes_max)
{
	struct primary *primary = tools_key_memory(tools, sizeof *primary);
	if (!primary)
		return NULL;
	primary->tools = tools;
	primary->config = group;
	primary->group = index;
	primary->export_first = export_first;
	primary->window_count = window_records(group);
	primary->cells_per_record = record_cells(group, payload_bytes_max);
	if (!primary_memory(primary, group) || !primary_intent(primary, group))
		return NULL;
	for (unsigned i = 0; i < group->volume_count; i++) {
		memcpy(primary->key[i], group->volume[i].key, KEY_BYTES);
		keys_wipe(group->volume[i].key, KEY_BYTES);
	}
	return primary;
}

void primary_fini(struct primary *primary)
{
	keys_wipe(primary->key, sizeof primary->key);
}

/* docs/semantics.md "intents": what a killed process left in the cache is read like any other byte,
 * and would be gone after a power cut. So device and log are synced before either is believed. */
static void start_synced(struct primary *primary, int32_t result, struct effects *fx)
{
	must(primary->start_syncs > 0, "a start waits for the syncs that it asked for");
	if (result < 0)
		primary->start_err = result;
	if (--primary->start_syncs)
		return;
	if (primary->start_err)
		primary_stop(primary, "the device or the intent log cannot be synced",
			     primary->start_err, fx);
	else
		intent_open(primary->intent, fx);
}

static void start_device_synced(struct io *io, int32_t result, struct effects *fx)
{
	start_synced(container_of(io, struct device, sync)->primary, result, fx);
}

static void start_intent_synced(struct io *io, int32_t result, struct effects *fx)
{
	start_synced(container_of(io, struct primary, intent_sync), result, fx);
}

void primary_start(struct primary *primary, struct effects *fx)
{
	primary->unprotected_since = fx->now;
	primary->start_syncs = 1 + primary->config->volume_count;
	for (unsigned i = 0; i < primary->config->volume_count; i++) {
		struct device *device = &primary->device[i];
		device->primary = primary;
		device->sync = (struct io){.kind = IO_SYNC,
					   .file = primary->config->volume[i].device,
					   .done = start_device_synced};
		effects_io(fx, &device->sync);
	}
	primary->intent_sync = (struct io){
		.kind = IO_SYNC, .file = primary->config->intent_file, .done = start_intent_synced};
	effects_io(fx, &primary->intent_sync);
}

bool primary_ready(const struct primary *primary)
{
	bool refused = primary->state == PRIMARY_STOPPED || primary->state == PRIMARY_REFUSED;
	return primary->span_chosen && !refused;
}

unsigned primary_request_room(const struct primary *primary)
{
	return primary->admitted_count < PRIMARY_OPERATIONS
		       ? PRIMARY_OPERATIONS - primary->admitted_count
		       : 0;
}

/* ---- greeting ---- */
/* A greeting that takes the place of an unanswered one has a number of its own too: a STATE that is
 * late tells of a vault as it was before. */
static void primary_greet(struct primary *primary, struct effects *fx)
{
	primary->greeting++;
	primary_enter(primary, PRIMARY_GREETING, fx);
	primary->asked_at = 0;
}

static void say_hello(struct primary *primary, struct effects *fx)
{
	const struct intent_identity *identity = intent_identity_of(primary->intent);
	struct wire_hello hello = {.group = primary->group,
				   .instance = primary->tools->link.instance,
				   .greeting = primary->greeting,
				   .set = identity->set,
				   .geometry = primary->config->geometry,
				   .quorum = primary->config->quorum,
				   .generation = primary->generation,
				   .volume_count = primary->config->volume_count};
	memcpy(hello.name, primary->config->name, NAME_BYTES_MAX);
	for (unsigned i = 0; i < hello.volume_count; i++) {
		struct wire_volume *volume = &hello.volume[i];
		memcpy(volume->name, primary->config->volume[i].name, NAME_BYTES_MAX);
		volume->id = identity->volume[i].id;
		volume->size = primary->config->volume[i].size;
		volume->block_bytes = primary->config->volume[i].block_bytes;
		memcpy(volume->wrapped_key, identity->volume[i].wrapped_key,
		       sizeof volume->wrapped_key);
		memcpy(volume->key_check, identity->volume[i].key_check, sizeof volume->key_check);
	}
	uint8_t text[WIRE_TEXT_BYTES_MAX];
	link_send_message(&primary->tools->link, text, wire_hello_encode(&hello, text), fx->now);
}

static void offer_span(struct primary *primary, struct effects *fx)
{
	struct wire_open open = {.group = primary->group, .span = primary->span};
	uint8_t text[WIRE_TEXT_BYTES_MAX];
	link_send_message(&primary->tools->link, text, wire_open_encode(&open, text), fx->now);
}

/* docs/semantics.md "spans": a new span begins above every lsn that either side has seen. */
static void choose_span(struct primary *primary, const struct uuid *parent, lsn_t parent_last,
			lsn_t highest)
{
	uint64_t cursor = 0, offset, length;
	uint8_t volume;
	bool intents = intent_next(primary->intent, &cursor, &volume, &offset, &length);
	primary->span = (struct span){
		.id = tools_uuid(primary->tools),
		.generation = primary->generation,
		.kind = intents && !primary->caught_up ? SPAN_CATCH_UP : SPAN_IN_ORDER,
		.first = max_u64(highest, primary->lsn_next ? primary->lsn_next - 1 : 0) + 1,
		.parent = *parent,
		.parent_last = parent_last};
	primary->span_chosen = true;
	primary->span_bytes = 0;
	primary->lsn_next = primary->span.first;
	lsn_t before = primary->span.first - 1;
	primary->released = primary->local_point = primary->device_synced = before;
	primary->answered = primary->received = primary->durable = before;
	for (unsigned i = 0; i < primary->config->volume_count; i++)
		primary->device[i].synced = max_u64(primary->device[i].synced, before);
	primary->credit = 0;
	primary->resend_next = primary->resend_end = 0;
	primary->end_lsn = 0;
	primary->region_cursor = 0;
	primary->region_open = primary->regions_done = false;
	primary->compared = primary->copies = 0;
}

static void refused(struct primary *primary, int32_t result, struct effects *fx)
{
	if (primary->refusal == result && primary->state == PRIMARY_REFUSED)
		return;
	primary->refusal = result;
	primary_enter(primary, PRIMARY_REFUSED, fx);
	primary->asked_at = fx->now;
	const char *why =
		result == -ESTALE ? "the vault has a newer generation: it was promoted; this site "
				    "must not write"
		: result == -EEXIST
			? "the vault's stores are not those that hold this group: check stores in "
			  "its configuration"
		: result == -ENOENT ? "the vault has no such group: check its configuration"
		: result == -EINVAL
			? "the vault has another geometry, quorum, name, size or count of volumes "
			  "for this group: compare the configurations"
			: "the vault refuses this group";
	effects_note(fx, NOTE_ERROR, primary_subject(primary), why, NULL);
}

static bool window_empty(const struct primary *primary)
{
	return primary->released + 1 == primary->lsn_next;
}

/* What a vault says of itself must make sense before a span is built on it. */
static bool state_sane(const struct wire_state *state, lsn_t highest)
{
	return highest < UINT64_MAX / 2 && state->consistent <= highest;
}

static bool span_begun(const struct primary *primary)
{
	return primary->span_chosen &&
	       (!window_empty(primary) || primary->ready.head || primary->intended.head);
}

/* The first set of stores that we meet is ours from then on: another one, made anew, is refused. */
static void primary_pair(struct primary *primary, const struct uuid *set, struct effects *fx)
{
	struct intent_identity identity = *intent_identity_of(primary->intent);
	if (!uuid_is_zero(&identity.set))
		return;
	identity.set = *set;
	intent_set_identity(primary->intent, &identity);
	effects_note(fx, NOTE_INFO, primary_subject(primary), "paired with the vault's stores",
		     NULL);
}

/* The vault has restarted, or we have: go on in our span where it is still the newest, offer it
 * again where its parent is, else begin a new one. A span that ends a catch-up is never chosen
 * anew: the blocks that were sent count through it alone. */
static void state_judge(struct primary *primary, const struct wire_state *state, struct effects *fx)
{
	static const struct uuid none;
	const struct uuid *newest = state->has_span ? &state->span.id : &none;
	lsn_t highest = max_u64(state->highest, state->has_span ? state->span.first : 0);
	lsn_t holds = max_u64(state->durable, state->consistent);
	bool ours = primary->span_chosen && uuid_equal(newest, &primary->span.id);
	bool offered = primary->span_chosen && uuid_equal(newest, &primary->span.parent);
	bool lost = primary->span_chosen && !ours && primary->held >= primary->span.first;
	if (holds < primary->held || lost) {
		effects_note(
			fx, NOTE_ERROR, primary_subject(primary),
			"the vault has gone back: lsn %llu was durable there, now it holds %llu",
			NOTE_NUMBERS(primary->held, holds, 0));
		primary_stop(primary, "acknowledged records are missing at the vault", -EUCLEAN,
			     fx);
		return;
	}
	if (!ours && !offered && span_begun(primary)) {
		primary_stop(primary, "another history has begun at the vault", -EUCLEAN, fx);
		return;
	}
	bool keep = ours || (offered && (primary->caught_up || span_begun(primary)));
	if (!keep && !state_sane(state, highest)) {
		refused(primary, -EPROTO, fx);
		return;
	}
	primary_pair(primary, &state->set, fx);
	if (!keep) {
		primary->caught_up = false;
		choose_span(primary, newest, state->consistent, highest);
	}
	primary->consistent = max_u64(primary->consistent, state->consistent);
	primary_enter(primary, PRIMARY_SPANNING, fx);
}

void primary_state_received(struct primary *primary, const struct wire_state *state,
			    struct effects *fx)
{
	bool asked = primary->state == PRIMARY_GREETING || primary->state == PRIMARY_REFUSED;
	/* An answer to an earlier greeting tells of points that have moved since. */
	if (!asked || !uuid_equal(&state->instance, &primary->tools->link.instance) ||
	    state->greeting != primary->greeting || state->result == -EAGAIN)
		return;
	if (state->result == 0 && state->generation > primary->generation)
		refused(primary, -ESTALE, fx);
	else if (state->result < 0)
		refused(primary, state->result, fx);
	else
		state_judge(primary, state, fx);
}

void primary_opened_received(struct primary *primary, const struct wire_opened *opened,
			     struct effects *fx)
{
	if (primary->state != PRIMARY_SPANNING || !uuid_equal(&opened->span, &primary->span.id) ||
	    opened->result == -EAGAIN)
		return;
	if (opened->result == -ESTALE) {
		/* A newer generation, or points that moved meanwhile: the answer to a hello tells.
		 */
		primary_greet(primary, fx);
		primary->asked_at = fx->now;
		return;
	}
	if (opened->result < 0) {
		refused(primary, opened->result, fx);
		return;
	}
	primary->span_open = true;
	window_resend_from(primary, primary->durable);
	if (primary->span.kind == SPAN_IN_ORDER) {
		/* Only now the catch-up counts, whatever happens: its intents are over. */
		if (primary->caught_up)
			intent_settle(primary->intent);
		primary->caught_up = false;
		primary_enter(primary, PRIMARY_REPLICATING, fx);
		return;
	}
	primary_enter(primary, PRIMARY_CATCHING_UP, fx);
	catchup_start(primary, fx);
}

/* A catch-up is whole when its end record is durable: its blocks are equal, and a span in order
 * makes them count. */
static void catch_up_ended(struct primary *primary, struct effects *fx)
{
	if (!primary->end_lsn || primary->released < primary->end_lsn)
		return;
	effects_note(fx, NOTE_INFO, primary_subject(primary),
		     "caught up: %llu blocks compared, %llu sent again",
		     NOTE_NUMBERS(primary->compared, primary->copies, 0));
	struct uuid parent = primary->span.id;
	primary->span_open = false;
	primary->caught_up = true;
	choose_span(primary, &parent, primary->end_lsn, primary->end_lsn);
	primary_enter(primary, PRIMARY_SPANNING, fx);
}

/* A span that has sealed its share ends once all of it is durable; the next one goes on from there.
 */
static void span_ended(struct primary *primary, struct effects *fx)
{
	if (!span_full(primary) || !window_empty(primary))
		return;
	struct uuid parent = primary->span.id;
	lsn_t last = primary->lsn_next - 1;
	primary->span_open = false;
	primary->caught_up =
		true; /* offered again as it is, never chosen anew from the vault's word */
	choose_span(primary, &parent, last, last);
	primary->span.kind = SPAN_IN_ORDER;
	primary_enter(primary, PRIMARY_SPANNING, fx);
}

/* ---- turn ---- */
static void primary_ask(struct primary *primary, struct effects *fx)
{
	ns_t interval = primary->state == PRIMARY_REFUSED ? refused_interval_ns : ask_interval_ns;
	if (primary->asked_at && fx->now - primary->asked_at < interval)
		return;
	primary->asked_at = fx->now;
	if (primary->state == PRIMARY_SPANNING)
		offer_span(primary, fx);
	else
		say_hello(primary, fx);
}

/* The vault is greeted when it has restarted, and whenever the link comes back: it may have been
 * promoted while we could not hear it. */
static void primary_meet(struct primary *primary, struct effects *fx)
{
	struct link *link = &primary->tools->link;
	bool known = !uuid_is_zero(&link->peer_instance);
	if (!link->linked || !known)
		return;
	if (uuid_equal(&primary->vault_instance, &link->peer_instance) &&
	    primary->met_at == link->linked_since && primary->state != PRIMARY_WAITING)
		return;
	/* What another life of the vault has received is gone, but for what was durable. */
	if (!uuid_equal(&primary->vault_instance, &link->peer_instance))
		primary->received = primary->durable;
	primary->vault_instance = link->peer_instance;
	primary->met_at = link->linked_since;
	primary->span_open = false;
	primary->credit = 0;
	primary_greet(primary, fx);
}

/* Protected means: what is acknowledged now reaches the vault. The change is dated. */
static void primary_protection(struct primary *primary, struct effects *fx)
{
	bool now = primary->state == PRIMARY_REPLICATING && primary->tools->link.linked;
	if (primary->protected_now && !now)
		primary->unprotected_since = fx->now;
	primary->protected_now = now;
}

void primary_turn(struct primary *primary, struct effects *fx)
{
	primary_protection(primary, fx);
	if (primary->state == PRIMARY_STOPPED || primary->state == PRIMARY_OPENING) {
		intent_turn(primary->intent, fx);
		return;
	}
	primary_meet(primary, fx);
	if (primary->state == PRIMARY_GREETING || primary->state == PRIMARY_SPANNING ||
	    primary->state == PRIMARY_REFUSED)
		primary_ask(primary, fx);
	if (primary->state == PRIMARY_CATCHING_UP)
		catchup_turn(primary, fx);
	write_turn(primary, fx);
	if (primary->state == PRIMARY_STOPPED)
		return;
	window_turn(primary, fx);
	requests_flushed(primary, fx);
	if (primary->state == PRIMARY_CATCHING_UP)
		catch_up_ended(primary, fx);
	if (primary->state == PRIMARY_REPLICATING)
		span_ended(primary, fx);
	intent_turn(primary->intent, fx);
}

ns_t primary_deadline(const struct primary *primary, ns_t now)
{
	bool busy = primary->lsn_next && !window_empty(primary);
	if (primary->ready.head || primary->intended.head ||
	    primary->resend_next < primary->resend_end)
		return now + NS_PER_MS;
	return now + (busy ? 5 * NS_PER_MS : 100 * NS_PER_MS);
}

bool primary_drained(const struct primary *primary)
{
	bool idle = !primary->admitted.head && !primary->intended.head && !primary->ready.head;
	return primary->state == PRIMARY_STOPPED ||
	       (idle && (!primary->span_chosen || window_empty(primary)));
}

void primary_status(const struct primary *primary, struct group_status *status)
{
	uint64_t now_sent = primary->span_chosen ? primary->lsn_next - 1 - primary->released : 0;
	uint64_t record = (uint64_t)primary->cells_per_record;
	memcpy(status->name, primary->config->name, NAME_BYTES_MAX);
	status->role = ROLE_PRIMARY;
	status->state = state_names[primary->state];
	status->protected_now =
		primary->state == PRIMARY_REPLICATING && primary->tools->link.linked;
	status->unprotected_since = primary->unprotected_since;
	status->generation = primary->generation;
	status->span = primary->span;
	status->lsn = primary->lsn_next ? primary->lsn_next - 1 : 0;
	status->acknowledged = primary->answered;
	status->received = primary->received;
	status->durable = primary->durable;
	status->consistent = primary->consistent;
	status->window_used = now_sent * record * primary->tools->link.datagram_bytes_max;
	status->window_total =
		primary->window_count * record * primary->tools->link.datagram_bytes_max;
	status->intent_bytes = intent_open_bytes(primary->intent);
	status->writes = primary->writes;
	status->reads = primary->reads;
	status->flushes = primary->flushes;
	status->write_bytes = primary->write_bytes;
	status->read_bytes = primary->read_bytes;
	status->records_sent = primary->records_sent;
	status->records_resent = primary->records_resent;
	status->refused = primary->refused;
	status->seals = primary->seals;
}
