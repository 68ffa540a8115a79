/* SPDX-License-Identifier: Apache-2.0 */
/* casemate: the operator's command. Most verbs ask the daemon over its control socket; config, key,
 * cert and volume work without one. */
#include "cli.h"

int main(int argc, char **argv)
{
	struct cli cli;
	int code = cli_parse(&cli, argc, argv);
	if (code != CLI_OK)
		return code;
	if (cli.help) {
		cli_print_help(cli.command, stdout);
		return CLI_OK;
	}
	code = cli.command->run(&cli);
	/* What was not written was not said: a full disk under "> file" is a failure. */
	if (fflush(stdout) || ferror(stdout))
		return CLI_FAILED;
	return code;
}
