/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the daemon, and printing: what is told goes to stdout, what went wrong to stderr; with
 * --json both go to stdout as one JSON object. */
#include "cli.h"

#include "control_client.h"

#include <errno.h>
#include <libsmartcols/libsmartcols.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

static void print_json(const json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2));
	putchar('\n');
}

int cli_print_json(json_t *json)
{
	if (!json_object_get(json, "ok"))
		json_object_set_new(json, "ok", json_true());
	print_json(json);
	json_decref(json);
	return CLI_OK;
}

json_t *cli_json_text(const char *text)
{
	json_t *json = json_string(text);
	char *plain = json ? NULL : strdup(text);
	for (char *c = plain; c && *c; c++)
		*c = *c & 0x80 ? '?' : *c;
	if (plain)
		json = json_string(plain);
	free(plain);
	return json;
}

int cli_fail(const struct cli *cli, int code, const char *format, ...)
{
	char text[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (cli->json) {
		json_t *json = json_pack("{s:b, s:o, s:i}", "ok", 0, "error", cli_json_text(text),
					 "code", code);
		print_json(json);
		json_decref(json);
	} else {
		fprintf(stderr, "casemate: %s\n", text);
	}
	return code;
}

/* gives: the socket's path; from the configuration unless the command line names it. */
static int socket_path(const struct cli *cli, char **path)
{
	struct config *config;
	const char *file = cli->config ? cli->config : CLI_CONFIG_DEFAULT;
	if (cli->socket) {
		*path = strdup(cli->socket);
		return CLI_OK;
	}
	int code = cli_load_config(cli, file, cli->node, &config);
	if (code)
		return code;
	*path = strdup(config->site[config->self].control);
	config_free(config);
	return CLI_OK;
}

/* On a terminal one line that is written over; else nothing: the answer says it all. */
static void show_progress(void *context, const json_t *progress)
{
	const struct cli *cli = context;
	if (cli->json || !isatty(STDERR_FILENO))
		return;
	char *text = json_dumps(progress, JSON_ENCODE_ANY | JSON_COMPACT);
	fprintf(stderr, "\r\033[K%.100s", text ? text : "");
	free(text);
}

static int call_failed(const struct cli *cli, const char *path, int err)
{
	if (err == -ETIMEDOUT)
		return cli_fail(cli, CLI_FAILED, "no answer from %s in time", path);
	if (err == -EACCES)
		return cli_fail(cli, CLI_UNREACHABLE, "no right to speak to casemated at %s", path);
	if (err == -EPROTO)
		return cli_fail(cli, CLI_UNREACHABLE, "what answers at %s is not casemated", path);
	return cli_fail(cli, CLI_UNREACHABLE,
			"casemated does not answer at %s: is it running? (%s)", path,
			strerror(-err));
}

int cli_call(const struct cli *cli, const char *verb, json_t *args, int timeout_ms, json_t **reply)
{
	char *path = NULL;
	json_t *request = json_pack("{s:s, s:o}", "verb", verb, "args", args);
	*reply = NULL;
	if (!request)
		return cli_fail(cli, CLI_USAGE, "an argument is not UTF-8 text");
	int code = socket_path(cli, &path);
	if (!code) {
		struct control_call call = {path, request, timeout_ms, show_progress, (void *)cli};
		int err = control_call(&call, reply);
		if (!cli->json && isatty(STDERR_FILENO))
			fputs("\r\033[K", stderr);
		if (err)
			code = call_failed(cli, path, err);
	}
	json_decref(request);
	free(path);
	if (code || json_is_true(json_object_get(*reply, "ok")))
		return code;
	const char *error = json_string_value(json_object_get(*reply, "error"));
	if (cli->json) {
		/* As it came, for it may say more than an error does; and our exit code. */
		json_object_set_new(*reply, "code", json_integer(CLI_FAILED));
		print_json(*reply);
	} else {
		cli_fail(cli, CLI_FAILED, "%s", error ? error : "refused, without a reason");
	}
	json_decref(*reply);
	*reply = NULL;
	return CLI_FAILED;
}

/* gives: a cell's text. */
static char *cell_text(const json_t *value)
{
	if (json_is_string(value))
		return strdup(json_string_value(value));
	if (json_is_boolean(value))
		return strdup(json_is_true(value) ? "yes" : "no");
	return value && !json_is_null(value) ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT)
					     : strdup("-");
}

void cli_print_table(const json_t *list, const char *const *keys, const char *const *titles)
{
	struct libscols_table *table = scols_new_table();
	const json_t *first = json_array_get(list, 0);
	size_t index;
	json_t *row;
	if (!table || !first) {
		scols_unref_table(table);
		return;
	}
	for (unsigned i = 0; keys[i]; i++) {
		bool right = json_is_integer(json_object_get(first, keys[i]));
		scols_table_new_column(table, titles[i], 0, right ? SCOLS_FL_RIGHT : 0);
	}
	json_array_foreach((json_t *)list, index, row)
	{
		struct libscols_line *line = scols_table_new_line(table, NULL);
		for (unsigned i = 0; line && keys[i]; i++)
			scols_line_refer_data(line, i, cell_text(json_object_get(row, keys[i])));
	}
	scols_print_table(table);
	scols_unref_table(table);
}
