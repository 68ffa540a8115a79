/* SPDX-License-Identifier: Apache-2.0 */
/* casemate: the operator's command. Most verbs ask the daemon over its control socket; config, key,
 * cert and volume work without one. */
#include "cli.h"

#include <errno.h>

static int run(struct cli *cli)
{
	if (cli->version && cli->json)
		return cli_print_json(json_pack("{s:s}", "version", CASEMATE_VERSION));
	if (cli->version)
		printf("casemate %s\n", CASEMATE_VERSION);
	else if (cli->help)
		cli_print_help(cli, stdout);
	else
		return cli->command->run(cli);
	return CLI_OK;
}

int main(int argc, char **argv)
{
	struct cli cli;
	int code = cli_parse(&cli, argc, argv);
	if (code == CLI_OK)
		code = run(&cli);
	/* What was not written was not said: a full disk under "> file" is a failure. */
	bool failed = ferror(stdout);
	if (fflush(stdout) == 0 && !failed)
		return code;
	fprintf(stderr, "casemate: cannot write to stdout: %s\n", strerror(errno));
	return CLI_FAILED;
}
