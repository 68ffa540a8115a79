/* SPDX-License-Identifier: Apache-2.0 */
/* status: one screen that answers "is it protected, and what would be lost now". */
#include "cli.h"

#include "units.h"

static const json_t *member(const json_t *object, const char *key)
{
	return json_object_get(object, key);
}

static bool is_word(const json_t *object, const char *key, const char *word)
{
	const char *text = json_string_value(member(object, key));
	return text && strcmp(text, word) == 0;
}

static bool group_degraded(const json_t *group)
{
	size_t index;
	json_t *store;
	if (is_word(group, "role", "primary") && !json_is_true(member(group, "protected")))
		return true;
	json_array_foreach((json_t *)member(group, "stores"), index,
			   store) if (!is_word(store, "state", "ready")) return true;
	return is_word(group, "state", "stalled") || is_word(group, "state", "stopped") ||
	       is_word(group, "state", "refused");
}

static bool status_degraded(const json_t *status)
{
	size_t index;
	json_t *group, *path;
	if (!json_is_true(member(status, "linked")))
		return true;
	json_array_foreach((json_t *)member(status, "paths"), index,
			   path) if (!json_is_true(member(path, "alive"))) return true;
	json_array_foreach((json_t *)member(status, "groups"), index,
			   group) if (group_degraded(group)) return true;
	return false;
}

/* Bytes as people read them: three digits at most before the unit. */
static json_t *bytes_text(const json_t *value)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double amount = (double)json_integer_value(value);
	unsigned unit = 0;
	for (; amount >= 1000 && unit + 1 < ARRAY_COUNT(units); unit++)
		amount /= 1024;
	return json_sprintf(unit && amount < 100 ? "%.1f%s" : "%.0f%s", amount, units[unit]);
}

static void print_groups(const json_t *groups)
{
	static const char *const keys[] = {"name",	 "role",   "state",   "protected",
					   "generation", "lsn",	   "durable", "consistent",
					   "lag",	 "window", NULL};
	static const char *const titles[] = {"GROUP",	   "ROLE",  "STATE",   "PROTECTED",
					     "GENERATION", "LSN",   "DURABLE", "CONSISTENT",
					     "LAG",	   "WINDOW"};
	json_t *rows = json_array(), *group;
	size_t index;
	json_array_foreach((json_t *)groups, index, group)
	{
		json_t *row = json_copy(group);
		json_object_set_new(row, "lag", bytes_text(member(group, "rpo_bytes")));
		json_object_set_new(row, "window", bytes_text(member(group, "window_used")));
		json_array_append_new(rows, row);
	}
	cli_print_table(rows, keys, titles);
	json_decref(rows);
}

static void print_stores(const json_t *groups)
{
	static const char *const keys[] = {"group",   "index",	"state",     "floor", "image_point",
					   "journal", "damage", "directory", NULL};
	static const char *const titles[] = {"GROUP", "STORE",	 "STATE",  "FLOOR",
					     "IMAGE", "JOURNAL", "DAMAGE", "DIRECTORY"};
	json_t *rows = json_array(), *group, *store;
	size_t index, inner;
	json_array_foreach((json_t *)groups, index, group)
		json_array_foreach((json_t *)member(group, "stores"), inner, store)
	{
		json_t *row = json_copy(store);
		json_object_set(row, "group", (json_t *)member(group, "name"));
		json_object_set_new(row, "journal",
				    bytes_text(member(store, "journal_used_bytes")));
		json_array_append_new(rows, row);
	}
	if (json_array_size(rows))
		putchar('\n');
	cli_print_table(rows, keys, titles);
	json_decref(rows);
}

static void print_paths(const json_t *paths)
{
	static const char *const keys[] = {"device", "up", "tx", "rx", "rx_bad", "rtt", NULL};
	static const char *const titles[] = {"PATH", "STATE", "SENT", "RECEIVED", "BAD", "RTT"};
	json_t *rows = json_array(), *path;
	size_t index;
	json_array_foreach((json_t *)paths, index, path)
	{
		bool alive = json_is_true(member(path, "alive"));
		json_t *row = json_copy(path);
		json_object_set_new(row, "up", json_string(alive ? "up" : "down"));
		json_object_set_new(row, "tx", bytes_text(member(path, "tx_bytes")));
		json_object_set_new(row, "rx", bytes_text(member(path, "rx_bytes")));
		json_object_set_new(
			row, "rtt",
			json_sprintf("%.3fms",
				     (double)json_integer_value(member(path, "rtt_ns")) / 1e6));
		json_array_append_new(rows, row);
	}
	if (json_array_size(rows))
		putchar('\n');
	cli_print_table(rows, keys, titles);
	json_decref(rows);
}

/* Why there is no link, where the handshake knows. */
static void print_trouble(const json_t *status)
{
	const char *trouble = json_string_value(member(member(status, "handshake"), "trouble"));
	if (trouble && trouble[0] && !json_is_true(member(status, "linked")))
		printf("no session: %s\n", trouble);
}

int cli_status(struct cli *cli)
{
	json_t *reply;
	int code = cli_call(cli, "status", json_object(), 10000, &reply);
	if (code)
		return code;
	bool degraded = status_degraded(reply);
	if (cli->json) {
		json_object_set_new(reply, "degraded", json_boolean(degraded));
		cli_print_json(reply);
		return degraded ? CLI_DEGRADED : CLI_OK;
	}
	const char *node = json_string_value(member(reply, "node"));
	printf("%s: %s%s\n", node ? node : "?",
	       json_is_true(member(reply, "linked")) ? "linked" : "not linked",
	       degraded ? ", DEGRADED" : "");
	print_trouble(reply);
	putchar('\n');
	print_groups(member(reply, "groups"));
	print_stores(member(reply, "groups"));
	print_paths(member(reply, "paths"));
	json_decref(reply);
	return degraded ? CLI_DEGRADED : CLI_OK;
}
