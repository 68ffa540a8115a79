/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon: one per host, in the foreground, one line per event on stderr. Signals ask it to
 * drain and stop. */
#include "casemate.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#define CONFIG_DEFAULT "/etc/casemate/casemate.yaml"

static struct casemate_engine *engine;
static volatile sig_atomic_t stopping;

static void stop_asked(int signal_number)
{
	(void)signal_number;
	stopping = 1;
	if (engine)
		casemate_engine_stop(engine);
}

/* A terminal that closes is no reason to lose what is on its way; whoever wants us to outlive it
 * has it ignored before (nohup). */
static void signals_take(void)
{
	struct sigaction stop = {.sa_handler = stop_asked, .sa_flags = SA_RESTART};
	struct sigaction ignore = {.sa_handler = SIG_IGN}, before;

	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	if (!sigaction(SIGHUP, NULL, &before) && before.sa_handler != SIG_IGN)
		sigaction(SIGHUP, &stop, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
}

static void usage(FILE *out)
{
	fputs("usage: casemated [--config FILE] [--node SITE]\n\n"
	      "Serves and keeps the volumes of one site until it is told to stop (SIGTERM, "
	      "SIGINT, SIGHUP).\n\n"
	      "  --config FILE  the configuration (" CONFIG_DEFAULT ")\n"
	      "  --node SITE    the site that this host is, if the file does not say\n"
	      "  --version      print the version\n"
	      "  --help         print this\n\n"
	      "exit codes: 0 stopped as asked, 1 failed, 64 wrong usage, 78 wrong configuration\n",
	      out);
}

/* -1: go on; otherwise the exit code. */
static int options_read(int argc, char **argv, const char **config, const char **node)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
						{"node", required_argument, NULL, 'n'},
						{"version", no_argument, NULL, 'v'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	int option;

	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1)
		switch (option) {
		case 'c':
			*config = optarg;
			break;
		case 'n':
			*node = optarg;
			break;
		case 'v':
			printf("casemated %s\n", casemate_version());
			return EXIT_SUCCESS;
		case 'h':
			usage(stdout);
			return EXIT_SUCCESS;
		default:
			usage(stderr);
			return EX_USAGE;
		}
	if (optind == argc)
		return -1;
	usage(stderr);
	return EX_USAGE;
}

int main(int argc, char **argv)
{
	const char *config = CONFIG_DEFAULT, *node = NULL;
	int code = options_read(argc, argv, &config, &node);

	if (code >= 0)
		return code;
	signals_take();
	int err = casemate_engine_new(&engine, config, node);
	if (err == -ECANCELED)
		return EXIT_SUCCESS;
	if (err)
		return err == -EINVAL ? EX_CONFIG : EXIT_FAILURE;
	if (stopping)
		casemate_engine_stop(engine);
	err = casemate_engine_run(engine);
	struct casemate_engine *gone = engine;
	engine = NULL; /* no signal reaches it any more */
	casemate_engine_free(gone);
	return err ? EXIT_FAILURE : EXIT_SUCCESS;
}
