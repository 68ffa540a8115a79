/* SPDX-License-Identifier: Apache-2.0 */
/* Promotion: the vault fences its primary off, stores what it has, proves that nothing acknowledged
 * is missing, looks for blocks that are lost, records the new generation, and serves. Each step
 * either goes on or refuses with what to do; a refusal leaves everything as it was. */
#include "vault.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "keys.h"

/* The phases of promote.phase, in order; promote_enter is the one place that changes it. */
enum promote_phase {
	PROMOTE_NONE,
	PROMOTE_DRAIN,	/* what is in memory goes to the stores */
	PROMOTE_LOOK,	/* every block is looked up, by headers */
	PROMOTE_RECORD, /* the new generation and span become durable */
};

enum { BLOCKS_PER_TURN = 4096 };
static const ns_t drain_timeout_ns = 30 * NS_PER_S;

static void say(struct command *command, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Adds to the command's text, as far as it goes. */
static void say(struct command *command, const char *format, ...)
{
	size_t used = strnlen(command->text, sizeof command->text - 1);
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(command->text + used, sizeof command->text - used, format, arguments);
	va_end(arguments);
}

static void promote_enter(struct vault *vault, enum promote_phase phase)
{
	vault->promote.phase = (uint8_t)phase;
}

static void promote_end(struct vault *vault, int result, struct effects *fx)
{
	struct command *command = vault->promoting;
	vault->promoting = NULL;
	promote_enter(vault, PROMOTE_NONE);
	if (result < 0) {
		vault->fenced = false;
		keys_wipe(vault->key, sizeof vault->key);
	}
	vault_answer(command, result, fx);
}

/* ---- what can be refused at once ---- */
static int keys_check(const struct vault *vault, struct command *command)
{
	for (unsigned i = 0; i < vault->config->volume_count; i++) {
		const struct store_volume *volume = &vault->meta.volume[i];
		uint8_t check[KEY_CHECK_BYTES];
		if (uuid_is_zero(&volume->id))
			continue; /* no primary ever told it: there is nothing to open */
		keys_check_value(command->key[i], check);
		if (keys_equal(check, volume->key_check, KEY_CHECK_BYTES))
			continue;
		say(command,
		    "the key is not the key of volume %s (nothing is damaged): give the right key "
		    "URI",
		    vault->config->volume[i].name);
		return -EKEYREJECTED;
	}
	return 0;
}

static bool primary_lives(const struct vault *vault)
{
	const struct link *link = &vault->tools->link;
	return link->linked && !link->peer_bye && vault->span_accepted;
}

/* A vault that was refused for its stores may still say what is lost with them. */
static bool can_look(const struct vault *vault)
{
	return vault->state == VAULT_REFUSED && vault_in_service(vault);
}

static int promote_judge(struct vault *vault, struct command *command)
{
	if (vault->promoting) {
		say(command, "a promotion is under way: wait for it");
		return -EBUSY;
	}
	if (vault->state == VAULT_SERVING) {
		say(command, "the group is served here already");
		return -EALREADY;
	}
	if (vault->state == VAULT_OPENING) {
		say(command, "the stores are still being read: try again in a moment");
		return -EAGAIN;
	}
	if (vault->state == VAULT_REFUSED && !can_look(vault)) {
		say(command, "%s", vault->refusal ? vault->refusal : "the stores were refused");
		return -ENODEV;
	}
	int result = keys_check(vault, command);
	if (result == 0 && primary_lives(vault)) {
		say(command, "the primary is alive and acknowledges: stop casemated there first "
			     "(systemctl stop casemated), or cut its link, then promote");
		result = -EBUSY;
	}
	return result;
}

void promote_start(struct vault *vault, struct command *command, struct effects *fx)
{
	command->text[0] = 0;
	memset(command->number, 0, sizeof command->number);
	int result = promote_judge(vault, command);
	if (result == 0)
		memcpy(vault->key, command->key, sizeof vault->key);
	keys_wipe(command->key, sizeof command->key);
	if (result < 0) {
		vault_answer(command, result, fx);
		return;
	}
	memset(&vault->promote, 0, sizeof vault->promote);
	vault->promoting = command;
	vault->promote.accept_loss = command->accept_loss;
	/* docs/semantics.md "fence": from here on nothing of the primary is taken. */
	vault->fenced = true;
	vault->fenced_at = fx->now;
	if (vault->state == VAULT_READY)
		receive_drop_partial(vault);
	promote_enter(vault, PROMOTE_DRAIN);
}

/* ---- drain, and prove ---- */
/* What a promoted site has served once is not taken back: its point is the one in its span. */
static lsn_t promoted_point(const struct vault *vault, lsn_t consistent)
{
	const struct span *newest = spans_newest(&vault->meta.spans);
	return vault->meta.promoted && newest ? newest->parent_last : consistent;
}

static void prove(struct vault *vault)
{
	lsn_t consistent = points_consistent_now(vault, vault_in_service(vault));
	struct promotion *proof = &vault->promote.proof;
	*proof = points_promotion_of(vault, consistent);
	vault->promote.point = promoted_point(vault, consistent);
	if (vault->promote.point > consistent)
		proof->proven = false;
	proof->acknowledged = max_u64(proof->acknowledged, promoted_point(vault, 0));
	/* Between its point and the span that a promotion began nothing was ever drawn. */
	const struct span *newest = spans_newest(&vault->meta.spans);
	if (vault->meta.promoted && newest && proof->acknowledged < newest->first)
		proof->acknowledged = min_u64(proof->acknowledged, newest->parent_last);
	vault->promote.mask = vault_in_service(vault);
}

/* With fewer than k stores there is no point to serve, and everything ever written is lost. */
static bool can_serve(const struct vault *vault)
{
	return vault->state != VAULT_REFUSED &&
	       vault->promote.proof.present >= vault->config->geometry.k;
}

static void drain_turn(struct vault *vault, struct effects *fx)
{
	/* What is recorded now must not be taken for what an earlier start left on a few stores. */
	bool recorded = vault->meta_durable >= vault->assembled_version || !vault_in_service(vault);
	bool stored = receive_idle(vault) && !vault->span_version;
	bool late = fx->now - vault->fenced_at >= drain_timeout_ns;
	if (!recorded) {
		if (!late)
			return;
		say(vault->promoting, "the stores could not record the start of the vault within "
				      "30 s: see status of the stores");
		promote_end(vault, -ETIMEDOUT, fx);
		return;
	}
	if (vault->state == VAULT_READY && !stored) {
		if (!late)
			return;
		if (!vault->promote.accept_loss) {
			say(vault->promoting,
			    "records in memory could not be stored within 30 s: see status of the "
			    "stores, or go on without them with --accept-loss");
			promote_end(vault, -ETIMEDOUT, fx);
			return;
		}
	}
	if (vault->state == VAULT_READY)
		points_turn(vault, fx);
	prove(vault);
	promote_enter(vault, PROMOTE_LOOK);
}

/* ---- look for what is lost ---- */
static void range_close(struct vault *vault)
{
	char *text = vault->promote.ranges;
	size_t room = sizeof vault->promote.ranges, used = strlen(text);
	uint64_t first = vault->promote.range_first, end = vault->promote.range_end;
	const char *name = vault->config->volume[vault->promote.volume].name;
	char range[96];
	if (first == end)
		return;
	vault->promote.range_first = vault->promote.range_end = 0;
	if (end - first == 1)
		snprintf(range, sizeof range, "%s%s block %llu", used ? ", " : "", name,
			 (unsigned long long)first);
	else
		snprintf(range, sizeof range, "%s%s blocks %llu-%llu", used ? ", " : "", name,
			 (unsigned long long)first, (unsigned long long)end - 1);
	static const char more[] = ", ...";
	if (used + strlen(range) + sizeof more <= room)
		snprintf(text + used, room - used, "%s", range);
	else if (used && text[used - 1] != '.')
		snprintf(text + used, room - used, "%s", more);
}

static void block_lost(struct vault *vault, uint64_t block)
{
	vault->promote.lost++;
	if (vault->promote.range_first < vault->promote.range_end &&
	    vault->promote.range_end == block) {
		vault->promote.range_end++;
		return;
	}
	range_close(vault);
	vault->promote.range_first = block;
	vault->promote.range_end = block + 1;
}

/* True when all blocks of all volumes have been looked up. */
static bool look_turn(struct vault *vault)
{
	uint32_t mask = vault->promote.mask, holders;
	lsn_t limit = can_serve(vault) ? vault->promote.point : UINT64_MAX;
	for (unsigned looked = 0; looked < BLOCKS_PER_TURN; looked++) {
		const struct core_volume *volume = &vault->config->volume[vault->promote.volume];
		uint64_t block = vault->promote.block;
		struct record record;
		if (block == volume->size / volume->block_bytes) {
			range_close(vault);
			vault->promote.block = 0;
			if (++vault->promote.volume == vault->config->volume_count)
				return true;
			continue;
		}
		int result = gather_find(vault, vault->promote.volume, block, limit, mask, &record,
					 &holders);
		if (result < 0 && result != -ENOENT)
			block_lost(vault, block);
		vault->promote.block++;
	}
	return false;
}

/* A store went out, or came back: what was proven was about others. */
static void look_anew(struct vault *vault)
{
	vault->promote.volume = 0;
	vault->promote.block = vault->promote.lost = 0;
	vault->promote.range_first = vault->promote.range_end = 0;
	vault->promote.ranges[0] = 0;
	promote_enter(vault, PROMOTE_DRAIN);
}

/* ---- decide ---- */
static void say_missing(const struct vault *vault, struct command *command)
{
	uint32_t mask = vault_in_service(vault);
	const char *comma = "";
	for (unsigned i = 0; i < vault->n; i++) {
		if (mask >> i & 1)
			continue;
		say(command, "%s%u", comma, i);
		comma = ",";
	}
}

static void say_not_proven(const struct vault *vault, struct command *command)
{
	const struct promotion *proof = &vault->promote.proof;
	say(command, "not proven: would serve up to lsn %llu, but ",
	    (unsigned long long)vault->promote.point);
	if (proof->acknowledged == UINT64_MAX)
		say(command, "any lsn");
	else
		say(command, "lsn %llu", (unsigned long long)proof->acknowledged);
	say(command, " may have been acknowledged; ");
	if (proof->present < vault->n) {
		say(command, "bring stores ");
		say_missing(vault, command);
		say(command, can_serve(vault) ? " back, or " : " back; ");
	}
	if (can_serve(vault))
		say(command, "accept the loss with --accept-loss; ");
}

static void say_refused(const struct vault *vault, struct command *command)
{
	say(command, "%s (missing: ", vault->refusal ? vault->refusal : "refused");
	say_missing(vault, command);
	say(command, "); ");
}

/* 0, or the refusal; with what is missing in the text either way. */
static int promote_decide(struct vault *vault, struct command *command, struct effects *fx)
{
	const struct promotion *proof = &vault->promote.proof;
	bool proven = proof->enough_stores && proof->proven;
	command->number[0] = vault->promote.point;
	command->number[1] = proof->acknowledged;
	command->number[2] = vault->n - proof->present;
	command->number[3] = vault->promote.lost;
	if (vault->state == VAULT_REFUSED)
		say_refused(vault, command);
	else if (!proven)
		say_not_proven(vault, command);
	if (vault->promote.lost)
		say(command, "%llu blocks lost: %s", (unsigned long long)vault->promote.lost,
		    vault->promote.ranges);
	if (!can_serve(vault))
		return vault->state == VAULT_REFUSED ? -ENODEV : -ENODATA;
	if (proven && !vault->promote.lost)
		return 0;
	if (!vault->promote.accept_loss)
		return -ENODATA;
	effects_note(fx, NOTE_WARNING, vault_subject(vault),
		     "loss accepted: serves up to lsn %llu, lsn %llu may have been acknowledged, "
		     "%llu blocks are lost",
		     NOTE_NUMBERS(vault->promote.point, proof->acknowledged, vault->promote.lost));
	return 0;
}

/* ---- record, and serve ---- */
static void promote_serve(struct vault *vault, struct effects *fx)
{
	vault->serve_point = vault->promote.point;
	vault->state = VAULT_SERVING;
	vault->span_accepted = false;
	size_t used = strlen(vault->promoting->text);
	bool open = used && vault->promoting->text[used - 1] != ' ';
	say(vault->promoting, "%sserves up to lsn %llu, generation %u", open ? "; " : "",
	    (unsigned long long)vault->serve_point, vault->meta.generation);
	effects_note(fx, NOTE_INFO, vault_subject(vault),
		     "promoted: serves up to lsn %llu, generation %llu",
		     NOTE_NUMBERS(vault->serve_point, vault->meta.generation, 0));
	promote_end(vault, 0, fx);
}

/* docs/semantics.md "spans": a new generation begins a span above every lsn seen; what the old one
 * had beyond the point is void for ever. */
static int promote_record(struct vault *vault, struct effects *fx)
{
	const struct span *newest = spans_newest(&vault->meta.spans);
	uint32_t generation = vault->meta.generation + 1;
	if (newest) {
		vault->promote_span =
			(struct span){.id = tools_uuid(vault->tools),
				      .generation = generation,
				      .kind = SPAN_IN_ORDER,
				      .first = max_u64(vault->highest, newest->first) + 1,
				      .parent = newest->id,
				      .parent_last = vault->promote.point};
		vault_spans_forget(vault);
		int result = spans_open(&vault->meta.spans, &vault->promote_span);
		if (result < 0)
			return result;
		vault->spans_ahead = true;
	}
	vault->meta.generation = vault->meta.promoted = generation;
	vault->meta.promised = min_u64(vault->meta.promised, vault->promote.point);
	vault->promote_version = vault_meta_changed(vault, fx);
	promote_enter(vault, PROMOTE_RECORD);
	return 0;
}

static void look_ended(struct vault *vault, struct effects *fx)
{
	struct command *command = vault->promoting;
	int result = promote_decide(vault, command, fx);
	if (result == 0 && vault->meta.promoted) {
		promote_serve(vault, fx); /* restarted after a promotion: the key was missing */
		return;
	}
	if (result == 0) {
		result = promote_record(vault, fx);
		if (result < 0)
			say(command, "the table of spans is full: let the journal fold first; ");
	}
	if (result < 0)
		promote_end(vault, result, fx);
}

/* What may have been recorded is not taken back. */
static void record_turn(struct vault *vault, struct effects *fx)
{
	if (!vault_in_service(vault)) {
		vault_refuse(vault, "all stores went out during a promotion", fx);
		say(vault->promoting, "all stores went out: bring them back, then promote again");
		promote_end(vault, -EIO, fx);
		return;
	}
	if (vault->meta_durable < vault->promote_version)
		return;
	for (unsigned i = 0; i < vault->n; i++) {
		struct vault_store *slot = &vault->store[i];
		if (!slot->in_service && !slot->rebuilding)
			continue;
		store_use_spans(slot->store, &vault->meta.spans);
		slot->floor = slot->in_service ? points_floor(vault, i) : 0;
	}
	vault->spans_ahead = false;
	const struct span *newest = spans_newest(&vault->meta.spans);
	if (newest) {
		vault->highest = max_u64(vault->highest, newest->first - 1);
		/* What found no room was given up with the loss. */
		receive_drop_waiting(vault);
		if (receive_idle(vault))
			receive_reset(vault, newest->first - 1);
	}
	promote_serve(vault, fx);
}

void promote_turn(struct vault *vault, struct effects *fx)
{
	switch ((enum promote_phase)vault->promote.phase) {
	case PROMOTE_NONE:
		break;
	case PROMOTE_DRAIN:
		drain_turn(vault, fx);
		break;
	case PROMOTE_LOOK:
		if (vault->promote.mask != vault_in_service(vault))
			look_anew(vault);
		else if (look_turn(vault))
			look_ended(vault, fx);
		break;
	case PROMOTE_RECORD:
		record_turn(vault, fx);
		break;
	}
}
