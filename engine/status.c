/* SPDX-License-Identifier: Apache-2.0 */
/* The core's figures as JSON: plain numbers in base units, ages instead of points of time. */
#include "status.h"

#include <time.h>

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static void set_number(json_t *object, const char *key, uint64_t value)
{
	json_object_set_new(object, key, number(value));
}

static const char *role_word(uint8_t role)
{
	return role == ROLE_PRIMARY ? "primary" : "vault";
}

static const char *store_word(const struct store_status *store)
{
	switch ((enum store_state)store->state) {
	case STORE_CLOSED:
		return "absent";
	case STORE_OPENING:
		return "opening";
	case STORE_READY:
		return !store->in_service ? "joining" : store->full ? "full" : "ready";
	case STORE_OUT:
		return "out";
	}
	return "unknown";
}

static json_t *store_json(const struct store_status *store, unsigned index, const char *directory)
{
	json_t *json = json_object();
	set_number(json, "index", index);
	json_object_set_new(json, "state", json_string(store_word(store)));
	json_object_set_new(json, "in_service", json_boolean(store->in_service));
	set_number(json, "floor", store->floor);
	set_number(json, "image_point", store->image_point);
	set_number(json, "incarnation", store->incarnation);
	set_number(json, "journal_used_bytes", store->journal_used);
	set_number(json, "journal_total_bytes", store->journal_total);
	set_number(json, "damage", store->damage);
	if (directory)
		json_object_set_new(json, "directory", json_string(directory));
	return json;
}

struct counter {
	const char *key;
	uint64_t value;
};

static json_t *counted(const struct counter *counter, unsigned count)
{
	json_t *json = json_object();
	for (unsigned i = 0; i < count; i++)
		set_number(json, counter[i].key, counter[i].value);
	return json;
}

static json_t *counters_json(const struct group_status *group)
{
	const struct counter counters[] = {
		{"writes", group->writes},
		{"reads", group->reads},
		{"flushes", group->flushes},
		{"write_bytes", group->write_bytes},
		{"read_bytes", group->read_bytes},
		{"records_sent", group->records_sent},
		{"records_resent", group->records_resent},
		{"records_received", group->records_received},
		{"repaired", group->repaired},
		{"duplicates", group->duplicates},
		{"decoded", group->decoded},
		{"refused", group->refused},
		{"seals", group->seals},
		{"opens", group->opens},
	};
	return counted(counters, ARRAY_COUNT(counters));
}

/* An upper bound: each lsn not yet durable is a block of the largest size in the group. */
static uint64_t rpo_bytes(const struct group_status *group, const struct config_group *config)
{
	uint64_t block_bytes = 0;
	for (unsigned i = 0; i < config->volume_count; i++)
		block_bytes = max_u64(block_bytes, config->volume[i].block_bytes);
	return group->lsn > group->durable ? (group->lsn - group->durable) * block_bytes : 0;
}

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void set_age(json_t *json, const char *key, ns_t since)
{
	uint64_t now = now_ns();
	set_number(json, key, since && now > since ? (now - since) / NS_PER_S : 0);
}

static void set_points(json_t *json, const struct group_status *group)
{
	set_number(json, "generation", group->generation);
	set_number(json, "lsn", group->lsn);
	set_number(json, "acknowledged", group->acknowledged);
	set_number(json, "received", group->received);
	set_number(json, "durable", group->durable);
	set_number(json, "consistent", group->consistent);
	set_number(json, "fold", group->fold);
}

/* A primary knows the stores of its vault by their points only. */
static bool group_has_stores(const struct group_status *group)
{
	for (unsigned i = 0; i < SHARDS_MAX; i++)
		if (group->store[i].state != STORE_CLOSED)
			return true;
	return group->role == ROLE_VAULT;
}

static json_t *group_json(const struct group_status *group, const struct config_group *config,
			  unsigned self)
{
	json_t *json = json_object(), *stores = json_array(), *volumes = json_array();
	json_object_set_new(json, "name", json_string(group->name));
	json_object_set_new(json, "role", json_string(role_word(group->role)));
	json_object_set_new(json, "state", json_string(group->state ? group->state : "unknown"));
	json_object_set_new(json, "protected", json_boolean(group->protected_now));
	if (!group->protected_now)
		set_age(json, "unprotected_seconds", group->unprotected_since);
	set_points(json, group);
	set_number(json, "rpo_bytes", group->role == ROLE_PRIMARY ? rpo_bytes(group, config) : 0);
	set_number(json, "window_used", group->window_used);
	set_number(json, "window_total", group->window_total);
	set_number(json, "intent_bytes", group->intent_bytes);
	for (unsigned i = 0; i < config->volume_count; i++)
		json_array_append_new(volumes,
				      json_pack("{s:s, s:I, s:I}", "name", config->volume[i].name,
						"size", (json_int_t)config->volume[i].size, "block",
						(json_int_t)config->volume[i].block_bytes));
	json_object_set_new(json, "volumes", volumes);
	for (unsigned i = 0; group_has_stores(group) && i < geometry_n(config->geometry); i++)
		json_array_append_new(stores,
				      store_json(&group->store[i], i, config->store[self][i]));
	json_object_set_new(json, "stores", stores);
	json_object_set_new(json, "counters", counters_json(group));
	return json;
}

static json_t *path_json(const struct path_status *path, const struct config_end *end)
{
	json_t *json = json_object();
	json_object_set_new(json, "device", json_string(end->device));
	json_object_set_new(json, "alive", json_boolean(path->alive));
	set_number(json, "tx_packets", path->tx_packets);
	set_number(json, "tx_bytes", path->tx_bytes);
	set_number(json, "rx_packets", path->rx_packets);
	set_number(json, "rx_bytes", path->rx_bytes);
	set_number(json, "rx_bad", path->rx_bad);
	set_number(json, "rx_replayed", path->rx_replayed);
	set_number(json, "rtt_ns", path->rtt);
	return json;
}

json_t *status_json(const struct core_status *status, const struct config *config)
{
	json_t *json = json_object(), *groups = json_array(), *paths = json_array();
	must(status->group_count <= config->group_count && status->path_count <= config->path_count,
	     "the core was made from this configuration");
	set_number(json, "schema", 1);
	json_object_set_new(json, "node", json_string(config->node));
	json_object_set_new(json, "linked", json_boolean(status->linked));
	if (status->linked)
		set_age(json, "linked_seconds", status->linked_since);
	for (unsigned i = 0; i < status->group_count; i++)
		json_array_append_new(
			groups, group_json(&status->group[i], &config->group[i], config->self));
	for (unsigned i = 0; i < status->path_count; i++)
		json_array_append_new(
			paths, path_json(&status->path[i], &config->path[i].end[config->self]));
	json_object_set_new(json, "groups", groups);
	json_object_set_new(json, "paths", paths);
	set_number(json, "rx_unknown_session", status->rx_unknown_session);
	set_number(json, "rx_malformed", status->rx_malformed);
	set_number(json, "rekeys", status->rekeys);
	return json;
}

static json_t *port_json(const struct port_stats *port)
{
	json_t *json = json_object();
	json_object_set_new(json, "driver", json_string(port->driver));
	set_number(json, "tx_dropped", port->tx_dropped);
	set_number(json, "rx_missed", port->driver_missed);
	set_number(json, "rx_not_ours", port->rx_not_ours);
	set_number(json, "rx_bad_checksum", port->rx_bad_checksum);
	set_number(json, "rx_bad_length", port->rx_bad_length);
	set_number(json, "no_neighbour", port->no_neighbour);
	set_number(json, "linearised", port->linearised);
	return json;
}

static json_t *disk_json(const struct disk_counters *disk)
{
	json_t *json = json_object();
	set_number(json, "submitted", disk->submitted);
	set_number(json, "failed", disk->failed);
	set_number(json, "fixed", disk->fixed);
	set_number(json, "cut_short", disk->cut_short);
	set_number(json, "again", disk->again);
	set_number(json, "synced_apart", disk->synced_apart);
	set_number(json, "zeros_written", disk->zeros_written);
	return json;
}

json_t *status_lane_json(const struct lane_counters *counters, unsigned port_count)
{
	static const char *const stages[LANE_STAGES] = {
		[LANE_RECEIVE] = "receive", [LANE_DISK] = "disk", [LANE_FRONT] = "front",
		[LANE_CORE] = "core",	    [LANE_SEND] = "send", [LANE_IDLE] = "idle",
	};
	json_t *json = json_object(), *cycles = json_object(), *ports = json_array();
	must(port_count <= PATHS_MAX, "a lane has at most one port per path");
	set_number(json, "turns", counters->turns);
	set_number(json, "busy_turns", counters->busy_turns);
	set_number(json, "naps", counters->naps);
	for (unsigned i = 0; i < LANE_STAGES; i++)
		set_number(cycles, stages[i], counters->cycles[i]);
	json_object_set_new(json, "cycles", cycles);
	set_number(json, "packets", counters->packets);
	set_number(json, "sent", counters->sent);
	set_number(json, "completions", counters->completions);
	set_number(json, "requests", counters->requests);
	set_number(json, "control_in", counters->control_in);
	set_number(json, "control_dropped", counters->control_dropped);
	set_number(json, "notes_lost", counters->notes_lost);
	for (unsigned i = 0; i < port_count; i++)
		json_array_append_new(ports, port_json(&counters->port[i]));
	json_object_set_new(json, "ports", ports);
	json_object_set_new(json, "disk", disk_json(&counters->disk));
	return json;
}

json_t *status_clients_json(const struct nbd_server_figures *clients)
{
	const struct counter counters[] = {
		{"connections", clients->connections},	   {"waiting", clients->waiting},
		{"accepted", clients->accepted},	   {"stalled", clients->stalled},
		{"requests", clients->requests},	   {"refused", clients->refused},
		{"bad_streams", clients->bad_streams},	   {"read_bytes", clients->read_bytes},
		{"write_bytes", clients->write_bytes},	   {"payload_used", clients->payload_used},
		{"payload_total", clients->payload_total},
	};
	return counted(counters, ARRAY_COUNT(counters));
}

json_t *status_handshake_json(const struct session_stats *stats, const char *trouble)
{
	const struct counter counters[] = {
		{"established", stats->established},
		{"failed", stats->failed},
		{"objects", stats->objects},
		{"cookies_sent", stats->cookies_sent},
		{"busy", stats->busy},
		{"replayed", stats->replayed},
		{"malformed", stats->malformed},
		{"version", stats->version},
		{"unknown", stats->unknown},
		{"replies_dropped", stats->replies_dropped},
	};
	json_t *json = counted(counters, ARRAY_COUNT(counters));
	json_object_set_new(json, "trouble", json_string(trouble));
	return json;
}
