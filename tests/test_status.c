/* SPDX-License-Identifier: Apache-2.0 */
/* The core's figures as JSON: each key that the documents promise, at both roles. */
#include "status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct config *config_of(const char *node)
{
	struct config *config;
	char *text;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);
	assert_int_equal(config_example(out), 0);
	fclose(out);
	assert_int_equal(config_parse(&config, &(struct config_source){"example", text, bytes},
				      node, stderr),
			 0);
	free(text);
	return config;
}

static struct core_status *status_of(uint8_t role)
{
	struct core_status *status = calloc(1, sizeof *status);
	struct group_status *group = &status->group[0];
	status->linked = true;
	status->path_count = 2;
	status->group_count = 1;
	status->path[1] = (struct path_status){.alive = true, .tx_packets = 7, .rtt = 5};
	snprintf(group->name, sizeof group->name, "%s", "vol0");
	group->role = role;
	group->state = "replicating";
	group->generation = 3;
	group->lsn = 110;
	group->acknowledged = group->durable = 100;
	group->consistent = 99;
	group->fold = 42;
	group->window_used = 4096;
	group->window_total = 1 << 20;
	group->decoded = 12;
	group->store[2] = (struct store_status){
		.state = STORE_READY, .in_service = true, .floor = 100, .image_point = 42};
	group->store[4] = group->store[5] = group->store[2];
	group->store[4].full = true;
	group->store[5].in_service = false;
	group->store[3].state = STORE_OUT;
	return status;
}

static json_int_t integer(const json_t *object, const char *key)
{
	assert_true(json_is_integer(json_object_get(object, key)));
	return json_integer_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
	assert_true(json_is_string(json_object_get(object, key)));
	return json_string_value(json_object_get(object, key));
}

static void primary_tells_its_points(void **state)
{
	struct config *config = config_of("a");
	struct core_status *status = status_of(ROLE_PRIMARY);
	memset(status->group[0].store, 0, sizeof status->group[0].store);
	json_t *json = status_json(status, config);
	assert_int_equal(integer(json, "schema"), 1);
	assert_string_equal(text(json, "node"), "a");
	assert_true(json_is_true(json_object_get(json, "linked")));
	json_t *group = json_array_get(json_object_get(json, "groups"), 0);
	assert_string_equal(text(group, "name"), "vol0");
	assert_string_equal(text(group, "role"), "primary");
	assert_string_equal(text(group, "state"), "replicating");
	assert_true(json_is_false(json_object_get(group, "protected")));
	static const struct {
		const char *key;
		json_int_t value;
	} rows[] = {
		{"generation", 3},	   {"lsn", 110},	  {"acknowledged", 100},
		{"durable", 100},	   {"consistent", 99},	  {"fold", 42},
		{"rpo_bytes", 10 * 65536}, {"window_used", 4096}, {"window_total", 1 << 20},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
		assert_int_equal(integer(group, rows[i].key), rows[i].value);
	assert_int_equal(integer(json_object_get(group, "counters"), "decoded"), 12);
	assert_int_equal(json_array_size(json_object_get(group, "stores")), 0);
	json_t *path = json_array_get(json_object_get(json, "paths"), 1);
	assert_true(json_is_true(json_object_get(path, "alive")));
	assert_string_equal(text(path, "device"), "0000:3b:00.1");
	assert_int_equal(integer(path, "rtt_ns"), 5);
	json_decref(json);
	free(status);
	config_free(config);
}

static void vault_tells_its_stores(void **state)
{
	struct config *config = config_of("b");
	struct core_status *status = status_of(ROLE_VAULT);
	json_t *json = status_json(status, config);
	json_t *group = json_array_get(json_object_get(json, "groups"), 0);
	json_t *stores = json_object_get(group, "stores");
	assert_string_equal(text(json, "node"), "b");
	assert_int_equal(integer(group, "rpo_bytes"), 0);
	assert_int_equal(json_array_size(stores), 6);
	json_t *store = json_array_get(stores, 2);
	assert_int_equal(integer(store, "index"), 2);
	assert_string_equal(text(store, "state"), "ready");
	assert_int_equal(integer(store, "floor"), 100);
	assert_int_equal(integer(store, "image_point"), 42);
	assert_string_equal(text(store, "directory"), "/srv/casemate/2");
	assert_string_equal(text(json_array_get(stores, 3), "state"), "out");
	assert_string_equal(text(json_array_get(stores, 0), "state"), "absent");
	assert_string_equal(text(json_array_get(stores, 4), "state"), "full");
	assert_string_equal(text(json_array_get(stores, 5), "state"), "joining");
	json_decref(json);
	free(status);
	config_free(config);
}

/* What strangers, broken clients and bad networks do is counted, each in its own place. */
static void what_is_refused_is_counted(void **state)
{
	struct lane_counters lane = {.control_dropped = 3, .notes_lost = 1};
	lane.disk = (struct disk_counters){.failed = 18, .zeros_written = 19};
	lane.port[1] = (struct port_stats){
		.rx_not_ours = 4, .rx_bad_checksum = 5, .rx_bad_length = 6, .no_neighbour = 7};
	const struct nbd_server_figures clients = {
		.connections = 2, .accepted = 9, .stalled = 8, .refused = 10, .bad_streams = 11};
	const struct session_stats stats = {.established = 1,
					    .failed = 12,
					    .busy = 13,
					    .replayed = 14,
					    .malformed = 15,
					    .version = 16,
					    .unknown = 17};
	json_t *json = json_pack("{s:o, s:o, s:o}", "lane", status_lane_json(&lane, 2), "clients",
				 status_clients_json(&clients), "handshake",
				 status_handshake_json(&stats, "not pinned"));
	static const struct {
		const char *where, *key;
		json_int_t value;
	} rows[] = {{"lane", "control_dropped", 3},  {"lane", "notes_lost", 1},
		    {"clients", "connections", 2},   {"clients", "accepted", 9},
		    {"clients", "stalled", 8},	     {"clients", "refused", 10},
		    {"clients", "bad_streams", 11},  {"handshake", "established", 1},
		    {"handshake", "failed", 12},     {"handshake", "busy", 13},
		    {"handshake", "replayed", 14},   {"handshake", "malformed", 15},
		    {"handshake", "version", 16},    {"handshake", "unknown", 17},
		    {"handshake", "cookies_sent", 0}};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
		assert_int_equal(integer(json_object_get(json, rows[i].where), rows[i].key),
				 rows[i].value);
	assert_string_equal(text(json_object_get(json, "handshake"), "trouble"), "not pinned");
	json_t *ports = json_object_get(json_object_get(json, "lane"), "ports");
	json_t *port = json_array_get(ports, 1);
	assert_int_equal(integer(port, "rx_not_ours"), 4);
	assert_int_equal(integer(port, "rx_bad_checksum"), 5);
	assert_int_equal(integer(port, "rx_bad_length"), 6);
	assert_int_equal(integer(port, "no_neighbour"), 7);
	json_t *disk = json_object_get(json_object_get(json, "lane"), "disk");
	assert_int_equal(integer(disk, "failed"), 18);
	assert_int_equal(integer(disk, "zeros_written"), 19);
	json_decref(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(primary_tells_its_points),
		cmocka_unit_test(vault_tells_its_stores),
		cmocka_unit_test(what_is_refused_is_counted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
