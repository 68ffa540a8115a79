/* SPDX-License-Identifier: Apache-2.0 */
/* volume create: formats what this site keeps of a volume, without a daemon. */
#include "cli.h"

#include "volume.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>

static atomic_bool stop;

static void stop_asked(int signal_number)
{
	(void)signal_number;
	atomic_store(&stop, true);
}

/* What was made half is taken back: the next one would not overwrite it. */
static void signals_take(void)
{
	struct sigaction action = {.sa_handler = stop_asked};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

int cli_volume_create(struct cli *cli)
{
	struct config *config;
	const char *file = cli->config ? cli->config : CLI_CONFIG_DEFAULT;
	const char *volume = cli->argument[0];
	char why[VOLUME_WHY_BYTES] = "";
	int code = cli_load_config(cli, file, cli->node, &config);
	if (code)
		return code;
	signals_take();
	int err = volume_create(config, volume, &stop, why, sizeof why);
	if (err)
		cli_fail(cli, CLI_FAILED, "%s: %s", volume, *why ? why : strerror(-err));
	else if (cli->json)
		cli_print_json(json_pack("{s:s, s:s, s:s*}", "volume", volume, "node", config->node,
					 "warning", *why ? why : NULL));
	else
		printf("%s: made at %s%s%s\n", volume, config->node, *why ? "\nwarning: " : "",
		       why);
	config_free(config);
	return err ? CLI_FAILED : CLI_OK;
}
