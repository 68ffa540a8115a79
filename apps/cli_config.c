/* SPDX-License-Identifier: Apache-2.0 */
/* config check, config show, config example: the file, without a daemon. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>

static const char *config_file(const struct cli *cli)
{
	if (cli->argument_count)
		return cli->argument[0];
	return cli->config ? cli->config : CLI_CONFIG_DEFAULT;
}

static json_t *lines_json(char *text)
{
	json_t *lines = json_array();
	char *rest = text;
	for (char *line; (line = strsep(&rest, "\n"));)
		if (*line)
			json_array_append_new(lines, json_string(line));
	return lines;
}

int cli_load_config(const struct cli *cli, const char *file, const char *node,
		    struct config **config)
{
	char *told = NULL;
	size_t bytes = 0;
	FILE *errors = open_memstream(&told, &bytes);
	if (!errors)
		return cli_fail(cli, CLI_FAILED, "out of memory");
	int err = config_load(config, file, node, errors);
	fclose(errors);
	const char *why = err == -EINVAL ? "wrong configuration" : "no configuration";
	if (err && cli->json)
		cli_print_json(json_pack("{s:b, s:s, s:i, s:o}", "ok", 0, "error", why, "code",
					 CLI_BAD_CONFIG, "errors", lines_json(told)));
	else if (err)
		fprintf(stderr, "%scasemate: %s\n", told, why);
	free(told);
	return err ? CLI_BAD_CONFIG : CLI_OK;
}

/* Of a file as it is at either site, unless the command line names one. */
static int config_read(const struct cli *cli, struct config **config)
{
	return cli_load_config(cli, config_file(cli), cli->node ? cli->node : CONFIG_ANY_NODE,
			       config);
}

int cli_config_check(struct cli *cli)
{
	struct config *config;
	int code = config_read(cli, &config);
	if (code)
		return code;
	if (cli->json)
		cli_print_json(json_pack("{s:s, s:i, s:i}", "file", config_file(cli), "groups",
					 (int)config->group_count, "paths",
					 (int)config->path_count));
	else
		printf("%s: good: %u group%s, %u path%s\n", config_file(cli), config->group_count,
		       config->group_count == 1 ? "" : "s", config->path_count,
		       config->path_count == 1 ? "" : "s");
	config_free(config);
	return CLI_OK;
}

int cli_config_show(struct cli *cli)
{
	struct config *config;
	int code = config_read(cli, &config);
	if (code)
		return code;
	if (cli->json)
		cli_print_json(json_pack("{s:o}", "config", config_json(config)));
	else if (config_show(config, false, stdout))
		code = cli_fail(cli, CLI_FAILED, "out of memory");
	config_free(config);
	return code;
}

int cli_config_example(struct cli *cli)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = cli->json ? open_memstream(&text, &bytes) : stdout;
	int err = out ? config_example(out) : -ENOMEM;
	if (out && out != stdout)
		fclose(out);
	if (!err && cli->json)
		cli_print_json(json_pack("{s:s}", "example", text));
	free(text);
	return err ? cli_fail(cli, CLI_FAILED, "out of memory") : CLI_OK;
}
