/* SPDX-License-Identifier: Apache-2.0 */
/* What the casemate command may ask of a running daemon: each verb becomes one order to the core,
 * or a few, and is answered when they have been carried out. */
#include "engine.h"
#include "log.h"
#include "status.h"
#include "volume.h"

#include "drive/eal.h"
#include "session/secret.h"

#include <errno.h>
#include <stdio.h>

#define WAIT_AGAIN_NS (100 * NS_PER_MS)
/* WAIT_PLACES: of the clients of the control socket, so that status and promote find one too. */
enum { JOURNAL_LINES = 256, WAIT_MS = 30000, WAIT_PLACES = CONTROL_CLIENTS_MAX - 2 };

struct verb {
	struct command command;
	struct verb *next; /* on engine.waiting */
	struct control_client *client;
	unsigned group;
	const char *promotes;	       /* the name of the group: a refusal is logged too */
	ns_t again_at, until, said_at; /* wait */
	lsn_t wait_for;
	struct core_status status;
	struct journal_line line[JOURNAL_LINES];
	void (*again)(struct engine *, struct verb *); /* after a wait; NULL: ordered again */
	bool insists; /* the order has to reach the core, however full its queue is now */
	int err;      /* rebuild: what came in between, and why */
	char why[ENGINE_WHY_BYTES];
	void (*answered)(struct engine *, struct verb *);
};

static void verb_free(struct verb *verb)
{
	secret_give(verb, sizeof *verb);
}

/* Takes the reply and the verb. */
static void verb_reply(struct verb *verb, json_t *reply)
{
	control_reply(verb->client, reply);
	verb_free(verb);
}

/* The core's own words, or the system's. */
static void verb_refuse(struct verb *verb, int err, const char *why)
{
	const char *reason = why && why[0] ? why : strerror(-err);

	if (verb->promotes)
		log_line(NOTE_WARNING, verb->promotes, "promotion refused: %s", reason);
	control_reply_error(verb->client, -err, "%s", reason);
	verb_free(verb);
}

/* Its turn comes again after a while. */
static void verb_wait(struct engine *engine, struct verb *verb)
{
	verb->again_at = engine_now() + WAIT_AGAIN_NS;
	verb->next = engine->waiting;
	engine->waiting = verb;
}

static void verb_order(struct engine *engine, struct verb *verb)
{
	verb->command.group = (uint8_t)verb->group;
	verb->command.owner = verb;
	if (lane_command(engine->lane, &verb->command))
		return;
	if (verb->insists)
		verb_wait(engine, verb);
	else
		verb_refuse(verb, -EBUSY, "too many orders are under way; ask again later");
}

void verbs_answered(struct engine *engine, struct command *command)
{
	struct verb *verb = command->owner;

	if (command->result)
		verb_refuse(verb, command->result, command->text);
	else
		verb->answered(engine, verb);
}

/* ---- status ---- */

/* What the process took at start; its program and libraries come on top. */
static void status_memory(const struct engine *engine, uint64_t core_bytes, json_t *json)
{
	uint64_t clients = nbd_server_memory_bytes(engine->nbd), dpdk = eal_memory_bytes();

	json_object_set_new(json, "memory",
			    json_pack("{s:I, s:I, s:I}", "core", (json_int_t)core_bytes, "clients",
				      (json_int_t)clients, "dpdk", (json_int_t)dpdk));
	json_object_set_new(json, "memory_bytes",
			    json_integer((json_int_t)(core_bytes + clients + dpdk)));
}

static void status_answered(struct engine *engine, struct verb *verb)
{
	struct lane_counters counters;
	struct nbd_server_figures clients;
	json_t *json = status_json(&verb->status, engine->config);

	lane_counters(engine->lane, &counters);
	clients_figures(engine, &clients);
	json_object_set_new(json, "lane", status_lane_json(&counters, engine->config->path_count));
	json_object_set_new(json, "clients", status_clients_json(&clients));
	json_object_set_new(json, "handshake", session_json(engine));
	status_memory(engine, verb->status.memory_bytes, json);
	verb_reply(verb, json);
}

static void status_asked(struct engine *engine, struct verb *verb, const json_t *args)
{
	verb->command.kind = COMMAND_STATUS;
	verb->command.status = &verb->status;
	verb->answered = status_answered;
	verb_order(engine, verb);
}

/* ---- wait ---- */

static bool store_behind(const struct store_status *store, lsn_t lsn)
{
	return store->state != STORE_READY || !store->in_service || store->floor < lsn;
}

/* A vault that no primary has ever greeted holds nothing, and all of it: that is not synced. */
static bool group_unmet(const struct group_status *group)
{
	return group->role == ROLE_VAULT && uuid_is_zero(&group->span.id);
}

/* At the primary: all that was drawn until the question came is durable and nothing else is open.
 * At the vault: every store holds all that it has seen. */
static bool group_synced(const struct config_group *config, const struct group_status *group,
			 lsn_t wait_for)
{
	if (group->role == ROLE_PRIMARY)
		return group->protected_now && group->durable >= wait_for;
	if (group_unmet(group))
		return false;
	for (unsigned i = 0; i < geometry_n(config->geometry); i++)
		if (store_behind(&group->store[i], wait_for))
			return false;
	return group->consistent >= wait_for;
}

static void wait_say(struct verb *verb, const struct group_status *group, ns_t now)
{
	if (now < verb->said_at + NS_PER_S)
		return;
	verb->said_at = now;
	control_progress(verb->client,
			 json_pack("{s:s, s:I, s:I}", "state", group->state, "durable",
				   (json_int_t)group->durable, "lsn", (json_int_t)verb->wait_for));
}

static void wait_answered(struct engine *engine, struct verb *verb)
{
	const struct group_status *group = &verb->status.group[verb->group];
	const struct config_group *config = &engine->config->group[verb->group];
	ns_t now = engine_now();

	if (!verb->wait_for)
		verb->wait_for = group->lsn;
	if (group_synced(config, group, verb->wait_for)) {
		verb_reply(verb, json_pack("{s:s, s:s, s:I, s:I}", "group", group->name, "state",
					   group->state, "lsn", (json_int_t)verb->wait_for,
					   "durable", (json_int_t)group->durable));
		return;
	}
	if (now >= verb->until || control_client_gone(verb->client)) {
		char why[ENGINE_WHY_BYTES];
		if (group_unmet(group) && strcmp(group->state, "vault") == 0)
			snprintf(why, sizeof why,
				 "not synced in time: no primary has been here yet");
		else
			snprintf(why, sizeof why,
				 "not synced in time: state %s, durable %llu of %llu", group->state,
				 (unsigned long long)group->durable,
				 (unsigned long long)verb->wait_for);
		verb_refuse(verb, -ETIMEDOUT, why);
		return;
	}
	wait_say(verb, group, now);
	verb_wait(engine, verb);
}

static void wait_asked(struct engine *engine, struct verb *verb, const json_t *args)
{
	const json_t *timeout = json_object_get(args, "timeout_ms");
	json_int_t ms = timeout ? json_integer_value(timeout) : WAIT_MS;

	if (control_open_count(engine->control) > WAIT_PLACES) {
		verb_refuse(verb, -EAGAIN,
			    "too many clients wait for answers already, and the last places are "
			    "kept for other verbs; try again later");
		return;
	}
	verb->until = engine_now() + (ns_t)(ms > 0 ? ms : 0) * NS_PER_MS;
	verb->command.kind = COMMAND_STATUS;
	verb->command.status = &verb->status;
	verb->answered = wait_answered;
	verb_order(engine, verb);
}

void verbs_turn(struct engine *engine, ns_t now)
{
	struct verb *due = NULL;

	for (struct verb **at = &engine->waiting; *at;) {
		struct verb *verb = *at;
		if (verb->again_at > now) {
			at = &verb->next;
			continue;
		}
		*at = verb->next;
		verb->next = due;
		due = verb;
	}
	while (due) {
		struct verb *verb = due;
		due = verb->next;
		(verb->again ? verb->again : verb_order)(engine, verb);
	}
}

ns_t verbs_next(const struct engine *engine)
{
	ns_t next = NS_NEVER;

	for (const struct verb *verb = engine->waiting; verb; verb = verb->next)
		next = min_u64(next, verb->again_at);
	return next;
}

/* ---- promote ---- */

static void promote_answered(struct engine *engine, struct verb *verb)
{
	const struct config_group *config = &engine->config->group[verb->group];
	const unsigned long long *number = verb->command.number;

	verb_reply(verb, json_pack("{s:s, s:I, s:I, s:b}", "group", config->name, "consistent",
				   (json_int_t)number[0], "acknowledged", (json_int_t)number[1],
				   "loss_accepted", verb->command.accept_loss));
}

/* The keys come from the stores, which only a vault has; at a primary the core says so. */
static int promote_keys(struct engine *engine, struct verb *verb, const char *uri,
			char why[ENGINE_WHY_BYTES])
{
	if (engine->core_config->group[verb->group].role == ROLE_PRIMARY)
		return 0;
	/* What lost its files since the last look is no store of the proof. */
	files_watch(engine);
	return keys_of_stores(engine, verb->group, uri, verb->command.key, why);
}

/* What is no URI may be the key itself, and the reason tells what was given: not in the log. */
static bool reason_may_be_logged(const char *uri)
{
	return strncmp(uri, "file:/", 6) == 0 || strncmp(uri, "credential:", 11) == 0;
}

static void promote_asked(struct engine *engine, struct verb *verb, const json_t *args)
{
	const char *name = engine->config->group[verb->group].name;
	const char *uri = json_string_value(json_object_get(args, "key"));
	char why[ENGINE_WHY_BYTES] = "";

	log_line(NOTE_INFO, name, "promotion asked by user %u%s",
		 (unsigned)control_client_uid(verb->client),
		 json_is_true(json_object_get(args, "accept_loss")) ? ", loss accepted" : "");
	verb->promotes = name;
	if (!uri) {
		verb_refuse(verb, -EINVAL, "promote needs the URI of the group's key");
		return;
	}
	int err = promote_keys(engine, verb, uri, why);
	if (err) {
		if (!reason_may_be_logged(uri)) {
			log_line(NOTE_WARNING, name,
				 "promotion refused: its key is no file:/path or credential:NAME");
			verb->promotes = NULL;
		}
		verb_refuse(verb, err, why);
		return;
	}
	verb->command.kind = COMMAND_PROMOTE;
	verb->command.accept_loss = json_is_true(json_object_get(args, "accept_loss"));
	verb->answered = promote_answered;
	verb_order(engine, verb);
}

/* ---- scrub ---- */

static void scrub_answered(struct engine *engine, struct verb *verb)
{
	const unsigned long long *number = verb->command.number;

	verb_reply(verb, json_pack("{s:s, s:I, s:I, s:I, s:I}", "group",
				   engine->config->group[verb->group].name, "shards_read",
				   (json_int_t)number[0], "bad", (json_int_t)number[1], "repaired",
				   (json_int_t)number[2], "blocks_lost", (json_int_t)number[3]));
}

static void scrub_asked(struct engine *engine, struct verb *verb, const json_t *args)
{
	verb->command.kind = COMMAND_SCRUB;
	verb->answered = scrub_answered;
	verb_order(engine, verb);
}

/* ---- stores ---- */

static int store_asked(const struct engine *engine, const struct verb *verb, const json_t *args,
		       uint8_t *index)
{
	const json_t *store = json_object_get(args, "store");
	const struct config_group *config = &engine->config->group[verb->group];

	if (!json_is_integer(store) || json_integer_value(store) < 0 ||
	    json_integer_value(store) >= (json_int_t)geometry_n(config->geometry))
		return -EINVAL;
	*index = (uint8_t)json_integer_value(store);
	return 0;
}

static void rebuild_answered(struct engine *engine, struct verb *verb)
{
	verb_reply(verb,
		   json_pack("{s:s, s:i, s:I}", "group", engine->config->group[verb->group].name,
			     "store", verb->command.store, "incarnation",
			     (json_int_t)verb->command.incarnation));
}

static void rebuild_cancelled(struct engine *engine, struct verb *verb)
{
	verb_refuse(verb, verb->err, verb->why);
}

/* The second order of a rebuild, whether the files could be made or not. */
static void rebuild_made(struct engine *engine, struct verb *verb, int err)
{
	const char *group = engine->config->group[verb->group].name;

	verb->err = err;
	verb->again = NULL;
	verb->insists = true;
	if (err) {
		verb->command.kind = COMMAND_REBUILD_CANCEL;
		verb->answered = rebuild_cancelled;
		log_line(NOTE_WARNING, group, "store %u cannot be made anew: %s",
			 verb->command.store, verb->why[0] ? verb->why : strerror(-err));
	} else {
		verb->command.kind = COMMAND_REBUILD;
		verb->command.files = engine->store[verb->group][verb->command.store].files;
		verb->answered = rebuild_answered;
		log_line(NOTE_INFO, group, "store %u is made anew and rebuilt",
			 verb->command.store);
	}
	verb_order(engine, verb);
}

static void rebuild_look(struct engine *engine, struct verb *verb)
{
	const char *group = engine->config->group[verb->group].name;
	struct engine_store *slot = &engine->store[verb->group][verb->command.store];

	if (!renewal_done(engine, verb->group) || files_closing(engine)) {
		verb_wait(engine, verb);
		return;
	}
	int err = renewal_end(engine, verb->group, verb->why, sizeof verb->why);
	if (!err && verb->why[0])
		log_line(NOTE_WARNING, group, "%s", verb->why);
	if (!err)
		err = files_open_store(engine, verb->group, verb->command.store, &slot->files,
				       verb->why, sizeof verb->why);
	slot->open = !err;
	slot->lost = false;
	rebuild_made(engine, verb, err);
}

/* The core has given the old store up, and nothing of it is under way to the files. */
static void rebuild_prepared(struct engine *engine, struct verb *verb)
{
	const struct config_group *config = &engine->config->group[verb->group];
	const struct command *prepared = &verb->command;
	struct volume_store store = {.directory = config->store[engine->self][prepared->store],
				     .index = prepared->store,
				     .set = prepared->set,
				     .incarnation = prepared->incarnation};

	int err = files_give_up_store(engine, verb->group, prepared->store, verb->why,
				      sizeof verb->why);
	if (!err)
		err = renewal_start(engine, verb->group, &store);
	if (err) {
		rebuild_made(engine, verb, err);
		return;
	}
	log_line(NOTE_INFO, config->name, "store %u: its files are being made", prepared->store);
	verb->again = rebuild_look;
	verb_wait(engine, verb);
}

static void rebuild_asked(struct engine *engine, struct verb *verb, const json_t *args)
{
	/* At a primary the core says where to give the order. */
	if (store_asked(engine, verb, args, &verb->command.store)) {
		verb_refuse(verb, -EINVAL, "this site has no such store");
		return;
	}
	/* What lost its files since the last look is in service no more. */
	files_watch(engine);
	verb->command.kind = COMMAND_REBUILD_PREPARE;
	verb->answered = rebuild_prepared;
	verb_order(engine, verb);
}

/* ---- journal dump ---- */

static const char *kind_word(uint8_t kind)
{
	static const char *const words[] = {
		[RECORD_DATA] = "data", [RECORD_ZERO] = "zero", [RECORD_DISCARD] = "discard",
		[RECORD_MARK] = "mark", [RECORD_VOID] = "void", [RECORD_END] = "end",
	};
	return kind < ARRAY_COUNT(words) && words[kind] ? words[kind] : "unknown";
}

static json_t *line_json(const struct journal_line *line)
{
	const struct record *record = &line->record;
	char span[2 * 4 + 1];

	for (unsigned i = 0; i < 4; i++)
		snprintf(span + 2 * i, 3, "%02x", record->span.bytes[i]);
	return json_pack("{s:I, s:s, s:s, s:I, s:i, s:i, s:b, s:I}", "lsn", (json_int_t)record->lsn,
			 "span", span, "kind", kind_word(record->kind), "block",
			 (json_int_t)record->block, "shard", record->shard, "shard_bytes",
			 (int)record->shard_bytes, "counts", line->counts, "wall_ns",
			 (json_int_t)record->wall_ns);
}

static void journal_answered(struct engine *engine, struct verb *verb)
{
	json_t *records = json_array();

	for (unsigned i = 0; i < verb->command.record_count; i++)
		json_array_append_new(records, line_json(&verb->line[i]));
	json_t *reply = json_pack("{s:o}", "records", records);
	if (verb->command.record_count == JOURNAL_LINES)
		json_object_set_new(reply, "cursor",
				    json_integer((json_int_t)verb->command.cursor));
	verb_reply(verb, reply);
}

static void journal_asked(struct engine *engine, struct verb *verb, const json_t *args)
{
	if (store_asked(engine, verb, args, &verb->command.store)) {
		verb_refuse(verb, -EINVAL, "this site has no such store");
		return;
	}
	verb->command.kind = COMMAND_JOURNAL;
	verb->command.record = verb->line;
	verb->command.record_count = JOURNAL_LINES;
	verb->command.cursor = (uint64_t)json_integer_value(json_object_get(args, "cursor"));
	verb->answered = journal_answered;
	verb_order(engine, verb);
}

/* ---- all of them ---- */

static const struct {
	const char *name;
	const char *group_key; /* the argument that names the group, or a volume of it; or NULL */
	void (*asked)(struct engine *, struct verb *, const json_t *args);
} verbs[] = {
	{"status", NULL, status_asked},
	{"wait", "volume", wait_asked},
	{"promote", "group", promote_asked},
	{"scrub", "group", scrub_asked},
	{"store-rebuild", "group", rebuild_asked},
	{"journal-dump", "group", journal_asked},
};

static bool group_asked(struct engine *engine, struct control_client *client, const char *name,
			unsigned *index)
{
	const struct config_group *group = name ? volume_group_find(engine->config, name) : NULL;

	if (!group) {
		control_reply_error(client, ENOENT, "no group or volume is named %s",
				    name ? name : "(nothing)");
		return false;
	}
	*index = (unsigned)(group - engine->config->group);
	return true;
}

void verbs_handle(void *context, const char *name, const json_t *args,
		  struct control_client *client)
{
	struct engine *engine = context;
	unsigned group = 0, i = 0;

	while (i < ARRAY_COUNT(verbs) && strcmp(verbs[i].name, name) != 0)
		i++;
	if (i == ARRAY_COUNT(verbs)) {
		control_reply_error(client, EINVAL, "unknown verb %s", name);
		return;
	}
	if (verbs[i].group_key &&
	    !group_asked(engine, client,
			 json_string_value(json_object_get(args, verbs[i].group_key)), &group))
		return;
	/* A promotion brings keys. */
	struct verb *verb = secret_take(sizeof *verb);
	if (!verb) {
		control_reply_error(client, ENOMEM, "no memory for an order: %s",
				    secret_why(errno));
		return;
	}
	verb->client = client;
	verb->group = group;
	verbs[i].asked(engine, verb, args);
}
