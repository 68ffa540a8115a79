/* SPDX-License-Identifier: Apache-2.0 */
/* config check, config show, config example: the file, without a daemon. */
#include "cli.h"

#include "units.h"
#include "volume.h"

#include "front/nbd_server.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

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
			json_array_append_new(lines, cli_json_text(line));
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

/* Program and libraries, keys, messages, the inputs of clients, work space of the core. */
#define MEMORY_REST_BYTES (96 * MIB)

static uint64_t memory_bytes(const struct config *config, unsigned site)
{
	uint64_t bytes =
		config->engine.memory_bytes + NBD_PAYLOAD_BYTES_DEFAULT + MEMORY_REST_BYTES;
	for (unsigned g = 0; g < config->group_count; g++)
		bytes += volume_memory_bytes(&config->group[g], site);
	return align_up(bytes, MIB);
}

/* gives: a sentence, or NULL. Not an error: the file may be read on another machine than its own.
 */
static char *memory_warning(const struct cli *cli, const struct config *config)
{
	uint64_t here = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	char most[UNITS_TEXT_BYTES], has[UNITS_TEXT_BYTES], *text = NULL;
	unsigned site = config->self;
	if (!cli->node && memory_bytes(config, !site) > memory_bytes(config, site))
		site = !site;
	if (memory_bytes(config, site) <= here)
		return NULL;
	units_format(UNITS_SIZE, memory_bytes(config, site), most);
	units_format(UNITS_SIZE, align_down(here, MIB), has);
	if (asprintf(&text,
		     "site %s takes up to %s of memory, most of it for windows and the tables of "
		     "stores; this machine has %s",
		     config->site[site].name, most, has) < 0)
		return NULL;
	return text;
}

int cli_config_check(struct cli *cli)
{
	struct config *config;
	char memory[CONFIG_SITES][UNITS_TEXT_BYTES];
	int code = config_read(cli, &config);
	if (code)
		return code;
	char *warning = memory_warning(cli, config);
	for (unsigned i = 0; i < CONFIG_SITES; i++)
		units_format(UNITS_SIZE, memory_bytes(config, i), memory[i]);
	if (cli->json)
		cli_print_json(json_pack("{s:s, s:i, s:i, s:{s:I, s:I}, s:s*}", "file",
					 config_file(cli), "groups", (int)config->group_count,
					 "paths", (int)config->path_count, "memory_bytes",
					 config->site[0].name, (json_int_t)memory_bytes(config, 0),
					 config->site[1].name, (json_int_t)memory_bytes(config, 1),
					 "warning", warning));
	else
		printf("%s: good: %u group%s, %u path%s; takes up to %s of memory at %s, %s at "
		       "%s\n",
		       config_file(cli), config->group_count, config->group_count == 1 ? "" : "s",
		       config->path_count, config->path_count == 1 ? "" : "s", memory[0],
		       config->site[0].name, memory[1], config->site[1].name);
	if (warning && !cli->json)
		fprintf(stderr, "warning: %s\n", warning);
	free(warning);
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
