/* SPDX-License-Identifier: Apache-2.0 */
/* The seam: hands each event to the group that it belongs to, lets every group take its turn, and
 * collects the next deadline. */
#include "core.h"

#include <errno.h>
#include <stdio.h>

#include "primary.h"
#include "vault.h"

enum { MESSAGE_CELLS = 1024 };

struct group {
	struct primary *primary; /* one of the two */
	struct vault *vault;
	bool peer_known;
	uint8_t peer_index; /* vault: the primary's number of this group, as its hello says */
};

struct core {
	struct core_config config;
	struct tools tools;
	struct group group[GROUPS_MAX];
	unsigned export_count;
	struct {
		uint8_t group, volume;
	} export[GROUPS_MAX * VOLUMES_PER_GROUP_MAX];
	bool started;
	ns_t now, deadline;
	struct command *draining;
	ns_t drain_until;
};

static const ns_t drain_limit_ns = 8 * NS_PER_S;

/* ---- making one ---- */
static uint32_t datagram_bytes_max(const struct core_config *config)
{
	uint32_t least = UINT32_MAX;
	for (unsigned i = 0; i < config->path_count; i++)
		least = (uint32_t)min_u64(least, config->path[i].datagram_bytes_max);
	return least;
}

static uint32_t payload_bytes_max(const struct core_config *config)
{
	return (uint32_t)align_down(datagram_bytes_max(config) - WIRE_SHARD_OVERHEAD_BYTES,
				    WIRE_CUT_UNIT_BYTES);
}

static unsigned cell_count(const struct core_config *config)
{
	unsigned count = MESSAGE_CELLS;
	for (unsigned i = 0; i < config->group_count; i++)
		if (config->group[i].role == ROLE_PRIMARY)
			count += primary_cells(&config->group[i], payload_bytes_max(config));
	return count;
}

uint64_t core_packet_memory_bytes(const struct core_config *config)
{
	return cells_memory_bytes(cell_count(config), datagram_bytes_max(config));
}

static bool core_tools(struct core *core, uint8_t *packet_memory)
{
	struct tools *tools = &core->tools;
	struct core_config *config = &core->config;
	unsigned count = cell_count(config);
	struct packet_cell *cells = tools_memory(tools, count * sizeof *cells);
	tools->aead = aead_new(config->aead, tools->memory);
	if (!cells || !tools->aead)
		return false;
	tools->kernel = config->kernel;
	seal_cache_init(&tools->seals, tools->aead);
	cells_init(&tools->cells, cells, count, packet_memory, datagram_bytes_max(config));
	tools->memory_bytes += cells_memory_bytes(count, datagram_bytes_max(config));
	memcpy(tools->entropy, config->entropy, sizeof tools->entropy);
	keys_wipe(config->entropy, sizeof config->entropy);
	link_init(&tools->link, tools->aead, &tools->cells, config);
	tools->link.instance = tools_uuid(tools);
	return true;
}

static bool core_groups(struct core *core)
{
	for (unsigned i = 0; i < core->config.group_count; i++) {
		struct core_group *config = &core->config.group[i];
		struct group *group = &core->group[i];
		uint16_t first = (uint16_t)core->export_count;
		for (unsigned v = 0; v < config->volume_count; v++) {
			core->export[core->export_count].group = (uint8_t)i;
			core->export[core->export_count++].volume = (uint8_t)v;
		}
		if (config->role == ROLE_PRIMARY)
			group->primary = primary_new(&core->tools, config, (uint8_t)i, first,
						     payload_bytes_max(&core->config));
		else
			group->vault = vault_new(&core->tools, config, (uint8_t)i, first);
		if (!group->primary && !group->vault)
			return false;
	}
	return true;
}

struct core *core_new(struct core_config *config, void *packet_memory)
{
	struct core *core = memory_take(config->memory, MEMORY_KEYS, sizeof *core);
	if (!core)
		return NULL;
	core->tools.memory = config->memory;
	core->config = *config;
	keys_wipe(config->entropy, sizeof config->entropy);
	for (unsigned i = 0; i < config->group_count; i++)
		for (unsigned v = 0; v < config->group[i].volume_count; v++)
			keys_wipe(config->group[i].volume[v].key, KEY_BYTES);
	if (!core_tools(core, packet_memory) || !core_groups(core)) {
		int err = errno;
		core_free(core);
		errno = err;
		return NULL;
	}
	return core;
}

void core_free(struct core *core)
{
	for (unsigned i = 0; i < core->config.group_count; i++) {
		if (core->group[i].primary)
			primary_fini(core->group[i].primary);
		if (core->group[i].vault)
			vault_fini(core->group[i].vault);
	}
	link_fini(&core->tools.link);
	if (core->tools.aead) {
		seal_cache_fini(&core->tools.seals);
		aead_free(core->tools.aead);
	}
	tools_memory_free(&core->tools);
	memory_give(core->config.memory, MEMORY_KEYS, core, sizeof *core);
}

/* ---- datagrams ---- */
bool core_takes_datagram(const uint8_t *datagram, uint32_t length)
{
	return length >= WIRE_HEADER_BYTES && datagram[0] == WIRE_VERSION &&
	       datagram[1] >= WIRE_TYPE_FIRST;
}

static struct primary *primary_at(struct core *core, uint8_t index)
{
	return index < core->config.group_count ? core->group[index].primary : NULL;
}

/* The primary's datagrams name groups by its own numbers; its hello says which is which. */
static struct vault *vault_at(struct core *core, uint8_t peer_index)
{
	for (unsigned i = 0; i < core->config.group_count; i++)
		if (core->group[i].vault && core->group[i].peer_known &&
		    core->group[i].peer_index == peer_index)
			return core->group[i].vault;
	return NULL;
}

static void hello_unknown(struct core *core, const struct wire_hello *hello, struct effects *fx)
{
	struct wire_state state = {.group = hello->group,
				   .result = -ENOENT,
				   .instance = hello->instance,
				   .greeting = hello->greeting};
	uint8_t text[WIRE_TEXT_BYTES_MAX];
	link_send_message(&core->tools.link, text, wire_state_encode(&state, text), fx->now);
}

static void hello_received(struct core *core, const struct wire_hello *hello, struct effects *fx)
{
	/* A number names one group; one that had it under an older configuration has it no more. */
	for (unsigned i = 0; i < core->config.group_count; i++)
		if (core->group[i].peer_index == hello->group)
			core->group[i].peer_known = false;
	for (unsigned i = 0; i < core->config.group_count; i++) {
		struct group *group = &core->group[i];
		if (!group->vault || strcmp(core->config.group[i].name, hello->name) != 0)
			continue;
		group->peer_known = true;
		group->peer_index = hello->group;
		vault_hello_received(group->vault, hello, fx);
		return;
	}
	hello_unknown(core, hello, fx);
}

union message {
	struct wire_shard shard;
	struct wire_hello hello;
	struct wire_state state;
	struct wire_open open;
	struct wire_opened opened;
	struct wire_head head;
	struct wire_points points;
	struct wire_compare compare;
	struct wire_tags tags;
};

static bool to_vault(struct core *core, const struct opened *in, union message *m,
		     struct effects *fx)
{
	struct vault *vault;
	switch (in->type) {
	case WIRE_SHARD:
		if (wire_shard_decode(&m->shard, in->text, in->text_bytes) < 0)
			return false;
		vault = vault_at(core, m->shard.group);
		if (vault)
			vault_shard_received(vault, &m->shard, in->payload, in->payload_bytes, fx);
		return vault;
	case WIRE_HELLO:
		if (wire_hello_decode(&m->hello, in->text, in->text_bytes) < 0)
			return false;
		if (!in->late)
			hello_received(core, &m->hello, fx);
		return true;
	case WIRE_OPEN:
		if (wire_open_decode(&m->open, in->text, in->text_bytes) < 0)
			return false;
		vault = vault_at(core, m->open.group);
		if (vault && !in->late)
			vault_open_received(vault, &m->open, fx);
		return vault;
	case WIRE_HEAD:
		if (wire_head_decode(&m->head, in->text, in->text_bytes) < 0)
			return false;
		vault = vault_at(core, m->head.group);
		if (vault)
			vault_head_received(vault, &m->head, fx);
		return vault;
	case WIRE_COMPARE:
		if (wire_compare_decode(&m->compare, in->text, in->text_bytes) < 0)
			return false;
		vault = vault_at(core, m->compare.group);
		if (vault)
			vault_compare_received(vault, &m->compare, fx);
		return vault;
	default:
		return false;
	}
}

static bool to_primary(struct core *core, const struct opened *in, union message *m,
		       struct effects *fx)
{
	struct primary *primary;
	switch (in->type) {
	case WIRE_STATE:
		if (wire_state_decode(&m->state, in->text, in->text_bytes) < 0)
			return false;
		primary = primary_at(core, m->state.group);
		if (primary)
			primary_state_received(primary, &m->state, fx);
		return primary;
	case WIRE_OPENED:
		if (wire_opened_decode(&m->opened, in->text, in->text_bytes) < 0)
			return false;
		primary = primary_at(core, m->opened.group);
		if (primary)
			primary_opened_received(primary, &m->opened, fx);
		return primary;
	case WIRE_POINTS:
		if (wire_points_decode(&m->points, in->text, in->text_bytes) < 0)
			return false;
		primary = primary_at(core, m->points.group);
		if (primary)
			primary_points_received(primary, &m->points, fx);
		return primary;
	case WIRE_TAGS:
		if (wire_tags_decode(&m->tags, in->text, in->text_bytes) < 0)
			return false;
		primary = primary_at(core, m->tags.group);
		if (primary)
			primary_tags_received(primary, &m->tags, fx);
		return primary;
	default:
		return false;
	}
}

/* The header and text of the next one come from memory while this one is worked on. */
static void datagram_expect(const struct packet *packet)
{
	for (unsigned at = 0; at < WIRE_SHARD_OVERHEAD_BYTES; at += 64)
		__builtin_prefetch(packet->datagram + at, 1);
}

static void packets_received(struct core *core, const struct events *events, struct effects *fx)
{
	union message message;
	for (unsigned i = 0; i < events->packet_count; i++) {
		struct opened opened;
		struct packet *packet = &events->packet[i];
		if (i + 1 < events->packet_count)
			datagram_expect(&events->packet[i + 1]);
		if (packet->path >= core->config.path_count ||
		    link_open(&core->tools.link, packet, &opened, fx->now) < 0)
			continue;
		if (!to_vault(core, &opened, &message, fx) &&
		    !to_primary(core, &opened, &message, fx))
			core->tools.link.rx_malformed++;
	}
}

/* ---- requests and orders ---- */
static void requests_received(struct core *core, const struct events *events, struct effects *fx)
{
	for (unsigned i = 0; i < events->request_count; i++) {
		struct request *request = events->request[i];
		must(request->export < core->export_count, "a request names one of our exports");
		unsigned index = core->export[request->export].group;
		const struct core_volume *volume =
			&core->config.group[index].volume[core->export[request->export].volume];
		must(request->offset <= volume->size &&
			     request->length <= volume->size - request->offset,
		     "a front checks the range of a request");
		if (core->group[index].primary)
			primary_request(core->group[index].primary, request, fx);
		else
			vault_request(core->group[index].vault, request, fx);
	}
}

unsigned core_request_room(const struct core *core)
{
	unsigned room = UINT32_MAX;
	for (unsigned i = 0; i < core->config.group_count; i++)
		if (core->group[i].primary)
			room = (unsigned)min_u64(room,
						 primary_request_room(core->group[i].primary));
	return room == UINT32_MAX ? 64 : room;
}

bool core_export_ready(const struct core *core, unsigned export, bool *read_only)
{
	must(export < core->export_count, "exports are numbered");
	const struct group *group = &core->group[core->export[export].group];
	*read_only = group->vault != NULL;
	return group->primary ? primary_ready(group->primary) : vault_ready(group->vault);
}

static void status_taken(struct core *core, struct command *command, struct effects *fx)
{
	struct core_status *status = command->status;
	const struct link *link = &core->tools.link;
	memset(status, 0, sizeof *status);
	status->linked = link->linked;
	status->linked_since = link->linked_since;
	status->path_count = core->config.path_count;
	status->group_count = core->config.group_count;
	for (unsigned i = 0; i < status->path_count; i++) {
		status->path[i] = link->path[i].stats;
		status->path[i].alive = link->path[i].alive;
		status->path[i].rtt = link->path[i].trip.smoothed_ns;
	}
	status->rx_unknown_session = link->rx_unknown_session;
	status->rx_malformed = link->rx_malformed;
	status->rekeys = link->rekeys;
	status->memory_bytes = core->tools.memory_bytes;
	for (unsigned i = 0; i < status->group_count; i++)
		if (core->group[i].primary)
			primary_status(core->group[i].primary, &status->group[i]);
		else
			vault_status(core->group[i].vault, &status->group[i]);
	vault_answer(command, 0, fx);
}

static void commands_received(struct core *core, const struct events *events, struct effects *fx)
{
	for (unsigned i = 0; i < events->command_count; i++) {
		struct command *command = events->command[i];
		command->text[0] = 0;
		if (command->kind == COMMAND_STATUS) {
			status_taken(core, command, fx);
		} else if (command->kind == COMMAND_DRAIN && core->draining) {
			vault_answer(command, -EALREADY, fx);
		} else if (command->kind == COMMAND_DRAIN) {
			core->draining = command;
			core->drain_until = fx->now + drain_limit_ns;
		} else if (command->group < core->config.group_count &&
			   core->group[command->group].vault) {
			vault_command(core->group[command->group].vault, command, fx);
		} else {
			keys_wipe(command->key, sizeof command->key);
			snprintf(command->text, sizeof command->text,
				 "this site is the group's primary: give the order at its vault");
			vault_answer(command, -EINVAL, fx);
		}
	}
}

static void drain_turn(struct core *core, struct effects *fx)
{
	bool done = !core->tools.link.linked || fx->now >= core->drain_until;
	if (!core->draining)
		return;
	for (unsigned i = 0; !done && i < core->config.group_count; i++)
		if (core->group[i].primary && !primary_drained(core->group[i].primary))
			return;
	link_bye(&core->tools.link, fx->now);
	struct command *command = core->draining;
	core->draining = NULL;
	vault_answer(command, 0, fx);
}

/* ---- the step ---- */
static void core_start(struct core *core, struct effects *fx)
{
	core->started = true;
	for (unsigned i = 0; i < core->config.group_count; i++)
		if (core->group[i].primary)
			primary_start(core->group[i].primary, fx);
		else
			vault_start(core->group[i].vault, fx);
}

void core_step(struct core *core, const struct events *events, struct effects *fx)
{
	must(fx->now >= core->now, "time does not go back");
	core->now = fx->now;
	if (!core->started)
		core_start(core, fx);
	if (events->session)
		link_new_session(&core->tools.link, events->session, fx->now);
	for (unsigned i = 0; i < events->sent_count; i++) {
		events->sent[i]->in_port = 0;
		cells_settle(&core->tools.cells, packet_cell_of(events->sent[i]));
	}
	for (unsigned i = 0; i < events->completion_count; i++)
		events->completion[i].io->done(events->completion[i].io,
					       events->completion[i].result, fx);
	packets_received(core, events, fx);
	requests_received(core, events, fx);
	commands_received(core, events, fx);
	core->deadline = fx->now + NS_PER_S;
	for (unsigned i = 0; i < core->config.group_count; i++) {
		struct group *group = &core->group[i];
		if (group->primary)
			primary_turn(group->primary, fx);
		else
			vault_turn(group->vault, fx);
		core->deadline = min_u64(core->deadline,
					 group->primary ? primary_deadline(group->primary, fx->now)
							: vault_deadline(group->vault, fx->now));
	}
	drain_turn(core, fx);
	link_turn(&core->tools.link, fx);
	core->deadline = min_u64(core->deadline, link_deadline(&core->tools.link, fx->now));
}

ns_t core_deadline(const struct core *core)
{
	return core->deadline;
}

bool core_wants_session(const struct core *core)
{
	return link_wants_session(&core->tools.link, core->now);
}
