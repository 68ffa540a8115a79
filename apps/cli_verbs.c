/* SPDX-License-Identifier: Apache-2.0 */
/* wait, promote, scrub, store rebuild, journal dump: one request each over the control socket. */
#include "cli.h"

#include "units.h"

#include <stdlib.h>
#include <unistd.h>

enum { ANSWER_RESERVE_MS = 5000, WAIT_DEFAULT_MS = 30000 };

/* Takes the reply: its figures, one line each. */
static int print_reply(const struct cli *cli, json_t *reply)
{
	const char *key;
	json_t *value;
	if (cli->json)
		return cli_print_json(reply);
	json_object_foreach(reply, key, value)
	{
		if (strcmp(key, "ok") == 0 || strcmp(key, "schema") == 0)
			continue;
		if (json_is_string(value))
			printf("%s: %s\n", key, json_string_value(value));
		else {
			printf("%s: ", key);
			json_dumpf(value, stdout, JSON_ENCODE_ANY | JSON_COMPACT);
			putchar('\n');
		}
	}
	json_decref(reply);
	return CLI_OK;
}

static int call_and_print(const struct cli *cli, const char *verb, json_t *args, int timeout_ms)
{
	json_t *reply;
	int code = cli_call(cli, verb, args, timeout_ms, &reply);
	return code ? code : print_reply(cli, reply);
}

/* args: volume, synced, timeout_ms. */
int cli_wait(struct cli *cli)
{
	int timeout_ms = cli->timeout_ms < 0 ? WAIT_DEFAULT_MS : cli->timeout_ms;
	if (!cli->synced)
		return cli_fail(cli, CLI_USAGE, "say what to wait for: --synced");
	json_t *args = json_pack("{s:s, s:b, s:i}", "volume", cli->argument[0], "synced", 1,
				 "timeout_ms", timeout_ms);
	int code = call_and_print(cli, "wait", args, timeout_ms + ANSWER_RESERVE_MS);
	if (!code && !cli->json)
		printf("%s: synced\n", cli->argument[0]);
	return code;
}

/* A promotion cannot be taken back, so it is confirmed by the group's own name. */
static bool promotion_confirmed(const struct cli *cli)
{
	char line[64] = "";
	fprintf(stderr,
		"The vault of %s will serve it under a new generation; its former primary can then "
		"only come back as vault.\n%sType the name of the group to go on: ",
		cli->argument[0],
		cli->accept_loss ? "ACKNOWLEDGED WRITES MAY BE LOST (--accept-loss).\n" : "");
	if (!fgets(line, sizeof line, stdin))
		return false;
	line[strcspn(line, "\n")] = 0;
	return strcmp(line, cli->argument[0]) == 0;
}

/* args: group, key (its URI: the daemon reads the key itself), accept_loss. */
int cli_promote(struct cli *cli)
{
	if (!cli->key)
		return cli_fail(cli, CLI_USAGE, "promote needs --key URI");
	if (strncmp(cli->key, "file:", 5) != 0 && strncmp(cli->key, "credential:", 11) != 0)
		return cli_fail(
			cli, CLI_USAGE,
			"--key names the key (file:/path, credential:name); it is never the "
			"key itself");
	if (!cli->yes && !isatty(STDIN_FILENO))
		return cli_fail(cli, CLI_USAGE, "without a terminal promote needs --yes");
	if (!cli->yes && !promotion_confirmed(cli))
		return cli_fail(cli, CLI_FAILED, "not confirmed; nothing was done");
	json_t *args = json_pack("{s:s, s:s, s:b}", "group", cli->argument[0], "key", cli->key,
				 "accept_loss", cli->accept_loss);
	return call_and_print(cli, "promote", args, -1);
}

int cli_scrub(struct cli *cli)
{
	return call_and_print(cli, "scrub", json_pack("{s:s}", "group", cli->argument[0]), -1);
}

static int store_index(const struct cli *cli, int *index)
{
	uint64_t number;
	const char *end;
	if (units_number(cli->argument[1], &number, &end) || *end || number >= SHARDS_MAX)
		return cli_fail(cli, CLI_USAGE, "\"%s\" is not the index of a store (0 to %d)",
				cli->argument[1], SHARDS_MAX - 1);
	*index = (int)number;
	return CLI_OK;
}

/* args: group, store. */
int cli_store_rebuild(struct cli *cli)
{
	int index = 0, code = store_index(cli, &index);
	if (code)
		return code;
	json_t *args = json_pack("{s:s, s:i}", "group", cli->argument[0], "store", index);
	return call_and_print(cli, "store-rebuild", args, -1);
}

/* One page of records. args: group, store, cursor (0 at first); the reply holds records (a list of
 * flat objects) and, while there are more, the cursor of the next page. */
static int journal_page(const struct cli *cli, int index, json_t *records, json_int_t *cursor)
{
	json_t *reply, *next;
	json_t *args = json_pack("{s:s, s:i, s:I}", "group", cli->argument[0], "store", index,
				 "cursor", *cursor);
	int code = cli_call(cli, "journal-dump", args, 60000, &reply);
	if (code)
		return code;
	json_t *page = json_object_get(reply, "records");
	next = json_object_get(reply, "cursor");
	bool more = json_is_integer(next) && json_integer_value(next) > *cursor;
	json_array_extend(records, page);
	*cursor = more ? json_integer_value(next) : -1;
	json_decref(reply);
	return CLI_OK;
}

static void print_records(const json_t *records)
{
	const char *keys[32] = {NULL}, *key;
	json_t *first = json_array_get(records, 0), *value;
	unsigned count = 0;
	json_object_foreach(first, key, value) if (count + 1 < ARRAY_COUNT(keys)) keys[count++] =
		key;
	cli_print_table(records, keys, keys);
}

int cli_journal_dump(struct cli *cli)
{
	json_int_t cursor = 0;
	json_t *records = json_array();
	int index = 0, code = store_index(cli, &index);
	while (!code && cursor >= 0)
		code = journal_page(cli, index, records, &cursor);
	if (!code && cli->json)
		return cli_print_json(json_pack("{s:o}", "records", records));
	if (!code)
		print_records(records);
	json_decref(records);
	return code;
}
