/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a group at its vault: stores recovered and judged, the primary greeted, spans made
 * durable, orders taken. */
#include "vault.h"

#include <errno.h>
#include <stdio.h>

static const ns_t deadline_busy_ns = 500 * NS_PER_US, deadline_idle_ns = 100 * NS_PER_MS;

static const lsn_t first_ahead_max = 1ull << 40;

enum { BATCH_BYTES_MAX = 1024 * 1024 };

/* ---- stores: opening and judging ---- */
uint32_t vault_in_service(const struct vault *vault)
{
	uint32_t mask = 0;
	for (unsigned i = 0; i < vault->n; i++)
		if (vault->store[i].in_service)
			mask |= 1u << i;
	return mask;
}

uint32_t vault_present(const struct vault *vault)
{
	return vault_in_service(vault);
}

void vault_refuse(struct vault *vault, const char *why, struct effects *fx)
{
	if (vault->state == VAULT_REFUSED && vault->refusal == why)
		return;
	vault->state = VAULT_REFUSED;
	vault->refusal = why;
	effects_note(fx, NOTE_ERROR, vault_subject(vault), why, NULL);
}

static bool volumes_match(const struct vault *vault, const struct store_group *meta)
{
	const struct core_group *config = vault->config;
	if (meta->volume_count != config->volume_count || meta->geometry.k != config->geometry.k ||
	    meta->geometry.m != config->geometry.m)
		return false;
	for (unsigned i = 0; i < config->volume_count; i++)
		if (meta->volume[i].size != config->volume[i].size ||
		    meta->volume[i].block_bytes != config->volume[i].block_bytes)
			return false;
	return true;
}

/* Whether the store lacks records that its peers have folded since it was last with them: its
 * journal can no longer be filled from theirs. Of spans that were forgotten nothing can be told. */
static bool store_behind(const struct vault *vault, unsigned index)
{
	lsn_t image_point = store_image_point(vault->store[index].store);
	const struct spans *spans = &vault->meta.spans;
	if (image_point >= vault->meta.fold_point)
		return false;
	if (spans->count && !uuid_is_zero(&spans->span[0].parent) &&
	    image_point < spans->span[0].parent_last)
		return true;
	/* They folded an initial copy that was broken off: all of it is void, and in their images.
	 */
	const struct span *newest = spans_newest(spans);
	if (newest && !newest->parent_last && newest->first > vault->meta.fold_point)
		return true;
	return points_floor(vault, index) < vault->meta.fold_point;
}

static void store_judge(struct vault *vault, unsigned index, struct effects *fx)
{
	struct vault_store *slot = &vault->store[index];
	const struct store_group *meta = store_group_of(slot->store);
	unsigned long long numbers[3] = {index, 0, 0};
	if (!uuid_equal(&meta->set, &vault->meta.set)) {
		effects_note(fx, NOTE_ERROR, vault_subject(vault),
			     "store %llu belongs to another set of stores: check its directory",
			     numbers);
		store_abandon(slot->store);
	} else if (store_incarnation(slot->store) != vault->meta.incarnation[index] ||
		   vault->meta.out >> index & 1) {
		effects_note(fx, NOTE_WARNING, vault_subject(vault),
			     "store %llu is out of service: casemate store rebuild brings it back",
			     numbers);
	} else {
		store_use_spans(slot->store, &vault->meta.spans);
		vault->highest = max_u64(vault->highest, store_lsn_max(slot->store));
		if (store_behind(vault, index)) {
			effects_note(fx, NOTE_WARNING, vault_subject(vault),
				     "store %llu has missed too much while it was away: casemate "
				     "store rebuild brings it back",
				     numbers);
			return;
		}
		slot->in_service = true;
		slot->floor = points_floor(vault, index);
	}
}

/* What the best superblock says is first made durable on all: it may have been on its way to the
 * others when the lights went out. Then the stores that were stopped in the middle of a fold go on
 * with it, each from its own journal. */
static void meta_spread(struct vault *vault, struct effects *fx)
{
	vault->meta.assembly = vault_assembly_next(vault);
	vault->assembled_version = vault_meta_changed(vault, fx);
	for (unsigned i = 0; i < vault->n; i++)
		if (vault->store[i].in_service &&
		    store_image_point(vault->store[i].store) < vault->meta.fold_point) {
			vault->fold_version = vault->assembled_version;
			vault->fold_started = false;
			vault->fold_began = fx->now;
		}
}

/* docs/semantics.md "promotion": what was acknowledged is known from superblocks and batches, too.
 * Of an older generation only what its promotion took over counts. */
static void promises_gather(struct vault *vault, struct effects *fx)
{
	lsn_t *promised = &vault->meta.promised;
	*promised = vault_promised_known(vault);
	for (unsigned i = 0; i < vault->n; i++) {
		if (!vault->store[i].in_service)
			continue;
		struct promise found = store_promised(vault->store[i].store);
		if (found.generation >= vault->meta.generation)
			*promised = max_u64(*promised, found.lsn);
	}
	if (*promised > vault->consistent)
		effects_note(fx, NOTE_ERROR, vault_subject(vault),
			     "lsn %llu was acknowledged, but all is here up to lsn %llu only: "
			     "stores are missing, or damaged",
			     NOTE_NUMBERS(*promised, vault->consistent, 0));
}

static void vault_assemble(struct vault *vault, struct effects *fx)
{
	const struct store_group *best = vault_meta_best(vault);
	if (!best) {
		vault_refuse(vault, "no store can be read: check stores in the configuration", fx);
		return;
	}
	vault->meta = *best;
	if (!volumes_match(vault, best)) {
		vault_refuse(vault, "the stores were made for another geometry or size", fx);
		return;
	}
	vault_incarnations_settle(vault);
	for (unsigned i = 0; i < vault->n; i++)
		if (vault->store[i].store && store_state_of(vault->store[i].store) == STORE_READY)
			store_judge(vault, i, fx);
	uint32_t present = vault_in_service(vault);
	lsn_t floor[SHARDS_MAX] = {0};
	for (unsigned i = 0; i < vault->n; i++)
		floor[i] = vault->store[i].floor;
	vault->consistent = points_consistent_now(vault, present);
	vault->durable = points_durable(vault->quorum, floor, present);
	const struct span *newest = spans_newest(&vault->meta.spans);
	vault->complete = points_complete_now(vault, present);
	lsn_t base = newest ? max_u64(vault->complete, newest->first - 1) : 0;
	vault->highest = max_u64(vault->highest, base);
	promises_gather(vault, fx);
	vault->proof = points_promotion_of(vault, vault->consistent);
	if (!vault->proof.enough_stores) {
		vault_refuse(vault,
			     "too few stores to be sure of what was acknowledged: bring the "
			     "missing ones back",
			     fx);
		return;
	}
	receive_reset(vault, base);
	vault->void_tail = true; /* from a life before this one */
	vault->acknowledged_durable = vault->durable;
	vault->state = vault->meta.promoted ? VAULT_PROMOTING : VAULT_READY;
	effects_note(
		fx, NOTE_INFO, vault_subject(vault),
		"%llu of %llu stores in service, consistent point %llu",
		NOTE_NUMBERS((unsigned)__builtin_popcount(present), vault->n, vault->consistent));
	meta_spread(vault, fx);
}

static void store_opened(struct store *store, int result, struct effects *fx)
{
	const struct store_config *config = store_config_of(store);
	struct vault *vault = config->owner;
	unsigned index = config->index;
	static const struct {
		int result;
		const char *text;
	} reasons[] = {
		{-EBADMSG,
		 "store %llu: both superblocks are damaged: casemate store rebuild makes it anew"},
		{-ENOENT, "store %llu: no store in its directory: casemate volume create, or check "
			  "the path"},
		{-EXDEV,
		 "store %llu: its directory holds another store: check the order of stores"},
		{-ETIMEDOUT,
		 "store %llu: its disk does not answer: restart casemated when it does, "
		 "or casemate store rebuild with another one"},
		{0, "store %llu: cannot be read (errno %llu)"},
	};
	if (result < 0) {
		unsigned i = 0;
		while (reasons[i].result && reasons[i].result != result)
			i++;
		effects_note(fx, NOTE_ERROR, vault_subject(vault), reasons[i].text,
			     NOTE_NUMBERS(index, (unsigned long long)-result, 0));
	}
	if (vault->rebuild.phase && vault->rebuild.store == index) {
		rebuild_opened(vault, result, fx);
		return;
	}
	vault->opening &= ~(1u << index);
	if (!vault->opening)
		vault_assemble(vault, fx);
}

static void store_went_out(struct store *store, int err, struct effects *fx)
{
	const struct store_config *config = store_config_of(store);
	vault_store_out(config->owner, config->index, err, fx);
}

static void store_folded(struct store *store, struct effects *fx)
{
	const struct store_config *config = store_config_of(store);
	struct vault *vault = config->owner;
	vault->folding &= ~(1u << config->index);
}

struct store *vault_store_make(struct vault *vault, unsigned index, const struct store_files *files)
{
	struct vault_store *slot = &vault->store[index];
	snprintf(slot->subject, sizeof slot->subject, "%s store %u", vault->config->name, index);
	struct store_config config = {.index = (uint8_t)index,
				      .subject = slot->subject,
				      .files = *files,
				      .geometry = vault->config->geometry,
				      .volume_count = vault->config->volume_count,
				      .segment_bytes = vault->config->segment_bytes,
				      .segment_count = vault->config->segment_count,
				      .batch_bytes_max = BATCH_BYTES_MAX,
				      .opened = store_opened,
				      .out = store_went_out,
				      .folded = store_folded,
				      .owner = vault};
	for (unsigned i = 0; i < config.volume_count; i++) {
		config.volume[i].size = vault->config->volume[i].size;
		config.volume[i].block_bytes = vault->config->volume[i].block_bytes;
	}
	/* The memory of a store that is made again is used again. */
	if (!slot->memory)
		slot->memory = tools_memory(vault->tools, store_bytes(&config));
	return slot->memory ? store_init(slot->memory, &config) : NULL;
}

/* docs/semantics.md "stores": recorded as out on w others before the next acknowledgement. */
void vault_store_out(struct vault *vault, unsigned index, int err, struct effects *fx)
{
	struct vault_store *slot = &vault->store[index];
	effects_note(fx, NOTE_ERROR, slot->subject,
		     "store %llu is out (errno %llu): casemate store rebuild brings it back",
		     NOTE_NUMBERS(index, (unsigned long long)-err, 0));
	if (vault->rebuild.phase && vault->rebuild.store == index)
		rebuild_failed(vault, err, fx);
	bool counted = slot->in_service;
	slot->in_service = slot->rebuilding = false;
	vault->folding &= ~(1u << index);
	receive_store_gone(vault, index);
	gather_orphan_store(vault, index);
	if (!counted)
		return;
	vault->meta.out |= 1u << index;
	vault->out_version = vault_meta_changed(vault, fx);
}

/* ---- superblocks ---- */
static void meta_send(struct vault *vault, unsigned index, struct effects *fx);

static void meta_written(struct store_superblock_write *write, int result, struct effects *fx)
{
	struct vault_store *slot = container_of(write, struct vault_store, write);
	struct vault *vault = slot->vault;
	unsigned index = (unsigned)(slot - vault->store);
	slot->writing = false;
	if (result < 0)
		return; /* the store is out, and has said so */
	vault->meta_on[index] = vault->meta_sent[index];
	if (vault->meta_sent[index] < vault->meta_version)
		meta_send(vault, index, fx);
	uint32_t mask = vault_in_service(vault);
	unsigned count = (unsigned)__builtin_popcount(mask);
	unsigned need = count < vault->quorum.w ? count : vault->quorum.w;
	if (need)
		vault->meta_durable = points_rank(vault->meta_on, mask, need);
	/* What waited for that is acknowledged in the next turn. */
	vault->points_changed |= vault->acknowledged_durable < vault->durable &&
				 vault->meta_durable >= vault->out_version;
}

static void meta_send(struct vault *vault, unsigned index, struct effects *fx)
{
	struct vault_store *slot = &vault->store[index];
	if (slot->writing || !slot->in_service)
		return;
	slot->writing = true;
	slot->vault = vault;
	slot->write = (struct store_superblock_write){.group = &vault->meta, .done = meta_written};
	vault->meta_sent[index] = vault->meta_version;
	store_write_group(slot->store, &slot->write, fx);
}

uint64_t vault_meta_changed(struct vault *vault, struct effects *fx)
{
	vault->meta.promised = max_u64(vault->meta.promised, points_promised(vault));
	vault->meta_version++;
	for (unsigned i = 0; i < vault->n; i++)
		meta_send(vault, i, fx);
	return vault->meta_version;
}

/* ---- the primary's hello ---- */
static void say_state(struct vault *vault, int32_t result, struct effects *fx)
{
	const struct span *newest = spans_newest(&vault->meta.spans);
	struct wire_state state = {.group = vault->peer_group,
				   .result = result,
				   .instance = vault->hello.instance,
				   .greeting = vault->hello.greeting,
				   .set = vault->meta.set,
				   .generation = vault->meta.generation,
				   .has_span = newest != NULL,
				   .durable = max_u64(vault->durable, vault->complete),
				   .consistent = vault->consistent,
				   .highest = vault->highest};
	if (newest)
		state.span = *newest;
	uint8_t text[WIRE_TEXT_BYTES_MAX];
	link_send_message(&vault->tools->link, text, wire_state_encode(&state, text), fx->now);
}

static int hello_volumes(struct vault *vault, const struct wire_hello *hello, struct effects *fx)
{
	bool adopt = false;
	if (!uuid_is_zero(&hello->set) && !uuid_equal(&hello->set, &vault->meta.set))
		return -EEXIST;
	for (unsigned i = 0; i < hello->volume_count; i++) {
		struct store_volume *mine = &vault->meta.volume[i];
		const struct wire_volume *theirs = &hello->volume[i];
		if (mine->size != theirs->size || mine->block_bytes != theirs->block_bytes ||
		    strcmp(mine->name, theirs->name) != 0)
			return -EINVAL;
		if (!uuid_is_zero(&mine->id) && !uuid_equal(&mine->id, &theirs->id))
			return -EEXIST;
		adopt |= uuid_is_zero(&mine->id);
	}
	if (!adopt)
		return vault->meta_durable >= vault->adopt_version ? 0 : -EAGAIN;
	for (unsigned i = 0; i < hello->volume_count; i++) {
		struct store_volume *mine = &vault->meta.volume[i];
		mine->id = hello->volume[i].id;
		memcpy(mine->wrapped_key, hello->volume[i].wrapped_key, sizeof mine->wrapped_key);
		memcpy(mine->key_check, hello->volume[i].key_check, sizeof mine->key_check);
	}
	vault->adopt_version = vault_meta_changed(vault, fx);
	return -EAGAIN;
}

/* On less than what was acknowledged no primary goes on: its next span would make that void. */
static bool nothing_is_missing(const struct vault *vault)
{
	bool empty = !spans_newest(&vault->meta.spans) && !vault->meta.promised;
	return vault->proof.proven || empty;
}

static int hello_judge(struct vault *vault, const struct wire_hello *hello, struct effects *fx)
{
	if (vault->state == VAULT_OPENING)
		return -EAGAIN;
	if (vault->state != VAULT_READY)
		return vault->state == VAULT_REFUSED ? -ENODEV : -ESTALE;
	if (vault->meta_durable < vault->assembled_version)
		return -EAGAIN;
	if (vault->fenced || vault->meta.generation > hello->generation)
		return -ESTALE;
	if (hello->geometry.k != vault->config->geometry.k ||
	    hello->geometry.m != vault->config->geometry.m || hello->quorum != vault->quorum.w ||
	    hello->volume_count != vault->config->volume_count)
		return -EINVAL;
	int result = hello_volumes(vault, hello, fx);
	if (result < 0)
		return result;
	/* Of a primary that is gone only what can be made whole counts; it is stored before we name
	 * our points. Of its catch-up nothing counts, and room for that may never come. */
	if (!uuid_equal(&vault->primary_instance, &hello->instance)) {
		receive_drop_partial(vault);
		if (vault_catch_up_open(vault))
			receive_drop_waiting(vault);
		if (!receive_idle(vault))
			return -EAGAIN;
		points_turn(vault, fx);
		vault->primary_instance = hello->instance;
		vault->span_accepted = false;
		receive_reset(vault, vault->base);
	}
	return nothing_is_missing(vault) ? 0 : -ENODEV;
}

void vault_hello_received(struct vault *vault, const struct wire_hello *hello, struct effects *fx)
{
	vault->peer_group = hello->group;
	vault->hello = *hello;
	say_state(vault, hello_judge(vault, hello, fx), fx);
}

/* ---- spans ---- */
static void say_opened(struct vault *vault, const struct uuid *span, int32_t result,
		       struct effects *fx)
{
	struct wire_opened opened = {.group = vault->peer_group, .result = result, .span = *span};
	uint8_t text[WIRE_TEXT_BYTES_MAX];
	link_send_message(&vault->tools->link, text, wire_opened_encode(&opened, text), fx->now);
}

/* docs/semantics.md "spans": what the new span leaves out was never acknowledged. With fewer than w
 * stores in service nothing is durable, and only the promise tells what was. */
static bool parent_last_allowed(const struct vault *vault, const struct span *span)
{
	const struct span *newest = spans_newest(&vault->meta.spans);
	if (!newest || span->parent_last == vault->consistent)
		return true;
	if (span->parent_last < max_u64(vault->meta.promised, points_promised(vault)))
		return false;
	if (newest->kind != SPAN_CATCH_UP)
		return span->parent_last >= vault->durable &&
		       span->parent_last >= vault->meta.fold_point &&
		       span->parent_last <= vault->consistent;
	if (span->parent_last > max_u64(vault->durable, vault->complete))
		return false;
	struct record record;
	for (unsigned i = 0; i < vault->n; i++)
		if (vault->store[i].in_service &&
		    store_find_lsn(vault->store[i].store, span->parent_last, &record) == 0)
			return record.kind == RECORD_END;
	return false;
}

static void span_begin(struct vault *vault, struct effects *fx)
{
	for (unsigned i = 0; i < vault->n; i++)
		if (vault->store[i].in_service || vault->store[i].rebuilding)
			store_use_spans(vault->store[i].store, &vault->meta.spans);
	const struct span *newest = spans_newest(&vault->meta.spans);
	vault->highest = max_u64(vault->highest, newest->first - 1);
	vault->span_accepted = vault->void_tail = true;
	vault->spans_ahead = false;
	for (unsigned i = 0; i < vault->n; i++)
		vault->store[i].floor = vault->store[i].in_service ? points_floor(vault, i) : 0;
	points_turn(vault, fx);
	watch_reset(vault);
	receive_reset(vault, max_u64(vault->complete, newest->first - 1));
	effects_note(fx, NOTE_INFO, vault_subject(vault),
		     newest->kind == SPAN_CATCH_UP
			     ? "catch-up span opened at lsn %llu, generation %llu"
			     : "span opened at lsn %llu, generation %llu",
		     NOTE_NUMBERS(newest->first, newest->generation, 0));
}

static int open_judge(struct vault *vault, const struct span *span, struct effects *fx)
{
	if (vault->state != VAULT_READY || vault->fenced || uuid_is_zero(&vault->primary_instance))
		return vault->state == VAULT_READY && !vault->fenced ? -EAGAIN : -ESTALE;
	if (vault->span_version)
		return -EAGAIN;
	const struct span *newest = spans_newest(&vault->meta.spans);
	if (newest && uuid_equal(&newest->id, &span->id)) {
		if (!vault->span_accepted)
			span_begin(vault, fx);
		return 0;
	}
	/* No honest writer is that far ahead; lsns are not to be used up by one message. */
	if (span->generation < vault->meta.generation || !parent_last_allowed(vault, span) ||
	    span->first > vault->highest + first_ahead_max)
		return -ESTALE;
	if (!nothing_is_missing(vault))
		return -EAGAIN;
	/* A fold in an initial copy ends first: what it has yet to bring would count no more, and
	 * the images would differ. */
	if (!receive_idle(vault) || (vault->fold_version && vault_initial_copy(vault)))
		return -EAGAIN;
	vault_spans_forget(vault);
	int result = spans_open(&vault->meta.spans, span);
	if (result < 0) /* a full table is folded first: see fold_wanted */
		return result == -ENOSPC ? -EAGAIN : result;
	vault->meta.generation = span->generation;
	vault->span_version = vault_meta_changed(vault, fx);
	vault->spans_ahead = true;
	vault->span_accepted = false;
	return -EAGAIN;
}

void vault_open_received(struct vault *vault, const struct wire_open *open, struct effects *fx)
{
	say_opened(vault, &open->span.id, open_judge(vault, &open->span, fx), fx);
}

/* A span record is durable on w stores before any of its records counts. */
static void span_turn(struct vault *vault, struct effects *fx)
{
	if (!vault->span_version || vault->meta_durable < vault->span_version)
		return;
	vault->span_version = 0;
	span_begin(vault, fx);
	say_opened(vault, &spans_newest(&vault->meta.spans)->id, 0, fx);
}

/* ---- comparing by tag ---- */
void vault_compare_received(struct vault *vault, const struct wire_compare *ask, struct effects *fx)
{
	struct wire_tags tags = {.group = vault->peer_group,
				 .volume = ask->volume,
				 .ask = ask->ask,
				 .block = ask->block};
	if (vault->state != VAULT_READY || ask->volume >= vault->config->volume_count)
		return;
	const struct core_volume *volume = &vault->config->volume[ask->volume];
	uint64_t blocks = volume->size / volume->block_bytes;
	uint32_t mask = vault_in_service(vault);
	while (tags.count < ask->count && tags.count < WIRE_TAGS_MAX &&
	       ask->block + tags.count < blocks) {
		struct wire_tag *tag = &tags.tag[tags.count];
		struct record record;
		uint32_t holders;
		int result = gather_find(vault, ask->volume, ask->block + tags.count,
					 vault->consistent, mask, &record, &holders);
		*tag = (struct wire_tag){0};
		if (result == 0) {
			tag->kind = record.kind;
			tag->identity = record.identity;
			memcpy(tag->tag, record.tag, TAG_BYTES);
		} else if (result != -ENOENT) {
			tag->kind =
				RECORD_VOID; /* damaged here: nothing matches, it is sent anew */
		}
		tags.count++;
	}
	uint8_t text[WIRE_TEXT_BYTES_MAX];
	link_send_message(&vault->tools->link, text, wire_tags_encode(&tags, text), fx->now);
}

/* ---- orders ---- */
void vault_answer(struct command *command, int result, struct effects *fx)
{
	command->result = result;
	command->next = NULL;
	*fx->results_tail = command;
	fx->results_tail = &command->next;
}

/* -EAGAIN: it is not known yet whether the store counts; tell again. */
static void store_lost(struct vault *vault, struct command *command, struct effects *fx)
{
	struct vault_store *slot = &vault->store[command->store % SHARDS_MAX];
	bool known = command->store < vault->n && slot->store;
	bool opening = known && (vault->state == VAULT_OPENING ||
				 store_state_of(slot->store) == STORE_OPENING);
	if (known && slot->in_service) {
		store_abandon(slot->store);
		vault_store_out(vault, command->store, -ENOENT, fx);
	} else if (known && slot->rebuilding) {
		rebuild_failed(vault, -ENOENT, fx);
	}
	vault_answer(command, opening ? -EAGAIN : 0, fx);
}

static void journal_dump(struct vault *vault, struct command *command, struct effects *fx)
{
	unsigned room = command->record_count;
	command->record_count = 0;
	struct store *store = command->store < vault->n ? vault->store[command->store].store : NULL;
	if (!store) {
		snprintf(command->text, sizeof command->text, "no store %u", command->store);
		vault_answer(command, -ENOENT, fx);
		return;
	}
	while (command->record_count < room) {
		struct journal_line *line = &command->record[command->record_count];
		if (store_next(store, &command->cursor, &line->record, &line->counts) < 0)
			break;
		command->record_count++;
	}
	vault_answer(command, 0, fx);
}

void vault_command(struct vault *vault, struct command *command, struct effects *fx)
{
	switch (command->kind) {
	case COMMAND_PROMOTE:
		promote_start(vault, command, fx);
		break;
	case COMMAND_SCRUB:
		scrub_start(vault, command, fx);
		break;
	case COMMAND_REBUILD_PREPARE:
		rebuild_prepare(vault, command, fx);
		break;
	case COMMAND_REBUILD:
		rebuild_start(vault, command, fx);
		break;
	case COMMAND_REBUILD_CANCEL:
		rebuild_cancel(vault, command, fx);
		break;
	case COMMAND_STORE_LOST:
		store_lost(vault, command, fx);
		break;
	case COMMAND_JOURNAL:
		journal_dump(vault, command, fx);
		break;
	default:
		vault_answer(command, 0, fx);
	}
}

/* ---- making one ---- */
struct vault *vault_new(struct tools *tools, struct core_group *group, uint8_t index,
			uint16_t export_first)
{
	struct vault *vault = tools_key_memory(tools, sizeof *vault);
	void *stripe = tools_memory(tools, stripe_bytes());
	if (!vault || !stripe)
		return NULL;
	vault->tools = tools;
	vault->config = group;
	vault->group = index;
	vault->export_first = export_first;
	vault->quorum = (struct quorum){.geometry = group->geometry, .w = group->quorum};
	vault->n = geometry_n(group->geometry);
	vault->stripe = stripe_init(stripe, group->geometry, tools->kernel);
	for (unsigned i = 0; i < group->volume_count; i++) {
		uint32_t shard = shard_bytes_of(group->geometry, group->volume[i].block_bytes);
		vault->shard_bytes_max = (uint32_t)max_u64(vault->shard_bytes_max, shard);
		crc32c_shift_init(&vault->shift[i], shard);
	}
	if (!receive_new(vault) || !gather_new(vault))
		return NULL;
	for (unsigned i = 0; i < vault->n; i++) {
		/* An absent one may be made anew later: its memory is taken now. */
		struct store *store = vault_store_make(vault, i, &group->store[i].files);
		if (!store)
			return NULL;
		vault->store[i].store = group->store[i].present ? store : NULL;
	}
	return vault;
}

void vault_fini(struct vault *vault)
{
	keys_wipe(vault->key, sizeof vault->key);
}

void vault_start(struct vault *vault, struct effects *fx)
{
	vault->unprotected_since = fx->now;
	for (unsigned i = 0; i < vault->n; i++)
		if (vault->store[i].store)
			vault->opening |= 1u << i;
		else
			effects_note(
				fx, NOTE_ERROR, vault_subject(vault),
				"store %llu is missing: its directory or a file in it is not there",
				NOTE_NUMBERS(i, 0, 0));
	if (!vault->opening)
		vault_assemble(vault, fx);
	for (unsigned i = 0; i < vault->n; i++)
		if (vault->store[i].store)
			store_open(vault->store[i].store, fx);
}

bool vault_ready(const struct vault *vault)
{
	return vault->state == VAULT_SERVING;
}

/* ---- turn ---- */
/* One that is out still answers what waited for it. */
static void stores_turn(struct vault *vault, struct effects *fx)
{
	for (unsigned i = 0; i < vault->n; i++) {
		struct store *store = vault->store[i].store;
		if (store && store_state_of(store) >= STORE_READY)
			store_turn(store, fx);
	}
}

void vault_turn(struct vault *vault, struct effects *fx)
{
	if (vault->state == VAULT_OPENING || vault->state == VAULT_REFUSED) {
		rebuild_turn(vault, fx);
		promote_turn(vault, fx); /* says what is lost */
		if (vault->state == VAULT_OPENING)
			watch_turn(vault, fx);
		stores_turn(vault, fx);
		return;
	}
	span_turn(vault, fx);
	receive_turn(vault, fx);
	points_turn(vault, fx);
	vault_fold_turn(vault, fx);
	refill_turn(vault, fx);
	rebuild_turn(vault, fx);
	scrub_turn(vault, fx);
	promote_turn(vault, fx);
	serve_turn(vault, fx);
	watch_turn(vault, fx);
	stores_turn(vault, fx);
	points_say(vault, fx);
}

ns_t vault_deadline(const struct vault *vault, ns_t now)
{
	bool busy = vault->base < vault->head || vault->promoting || vault->serving.head ||
		    vault->scrubbing || vault->rebuild.phase || vault->refill.active;
	for (unsigned i = 0; i < vault->n && !busy; i++)
		busy = vault->store[i].store && store_wants_turn(vault->store[i].store);
	ns_t deadline = now + (busy ? deadline_busy_ns : deadline_idle_ns);
	return max_u64(now, min_u64(deadline, points_deadline(vault)));
}

static const char *state_word(const struct vault *vault)
{
	static const char *const words[] = {[VAULT_OPENING] = "opening",
					    [VAULT_READY] = "vault",
					    [VAULT_REFUSED] = "refused",
					    [VAULT_PROMOTING] = "promoting",
					    [VAULT_SERVING] = "serving"};
	return watch_stalled(vault) ? "stalled" : words[vault->state];
}

static void store_figures(const struct vault_store *slot, struct store_status *status)
{
	if (!slot->store)
		return;
	status->state = (uint8_t)store_state_of(slot->store);
	status->in_service = slot->in_service;
	if (status->state != STORE_READY)
		return;
	status->full = store_wants_room(slot->store);
	status->incarnation = store_incarnation(slot->store);
	status->floor = slot->floor;
	status->image_point = store_image_point(slot->store);
	status->journal_used = store_journal_bytes_used(slot->store);
	status->journal_total = store_journal_bytes_total(slot->store);
	status->damage = store_damage_count(slot->store);
}

void vault_status(const struct vault *vault, struct group_status *status)
{
	const struct span *newest = spans_newest(&vault->meta.spans);
	memcpy(status->name, vault->config->name, NAME_BYTES_MAX);
	status->role = ROLE_VAULT;
	status->state = state_word(vault);
	status->protected_now = vault->state == VAULT_READY && vault->span_accepted && newest &&
				newest->kind == SPAN_IN_ORDER && vault->tools->link.linked &&
				vault_in_service(vault) == (1u << vault->n) - 1;
	status->unprotected_since = vault->unprotected_since;
	status->generation = vault->meta.generation;
	if (newest)
		status->span = *newest;
	status->lsn = vault->highest;
	status->acknowledged = vault->acknowledged_durable;
	status->received = vault->received;
	status->durable = vault->durable;
	status->consistent = vault->consistent;
	status->fold = vault->meta.fold_point;
	uint64_t record = (uint64_t)vault->shard_bytes_max * vault->n;
	status->window_used = (max_u64(vault->head, vault->base) - vault->base) * record;
	status->window_total = vault->arriving_count * record;
	status->reads = vault->reads;
	status->read_bytes = vault->read_bytes;
	status->records_received = vault->records_received;
	status->repaired = vault->repaired;
	status->duplicates = vault->duplicates;
	status->decoded = vault->decoded;
	status->refused = vault->refused;
	status->opens = vault->opens;
	for (unsigned i = 0; i < vault->n; i++)
		store_figures(&vault->store[i], &status->store[i]);
}
