/* SPDX-License-Identifier: Apache-2.0 */
/* The casemate command: what its verbs share. Each verb is one function, named in the table of
 * cli_table.c, that gives the exit code. */
#ifndef CASEMATE_CLI_H
#define CASEMATE_CLI_H

#include "config.h"

#include <jansson.h>
#include <stdio.h>

#define CLI_CONFIG_DEFAULT "/etc/casemate/casemate.yaml"

enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_DEGRADED = 3,
	CLI_UNREACHABLE = 69, /* EX_UNAVAILABLE of sysexits.h */
	CLI_BAD_CONFIG = 78,  /* EX_CONFIG */
};

/* What the command line said. */
struct cli {
	const char *socket, *config, *node;
	bool json, help, version;
	bool synced, accept_loss, yes;
	const char *key;
	int timeout_ms; /* < 0: none */
	char **argument;
	unsigned argument_count;
	const struct cli_command *command;
	const char *family; /* help of all verbs that begin with this word, or NULL */
};

/* Options that only some verbs take. */
enum { CLI_SYNCED = 1, CLI_TIMEOUT = 2, CLI_KEY = 4, CLI_ACCEPT_LOSS = 8, CLI_YES = 16 };

struct cli_command {
	const char *name; /* one word or two */
	const char *synopsis;
	unsigned arguments_min, arguments_max, options;
	const char *help;
	int (*run)(struct cli *);
};

/* The table ends with an empty name. */
extern const struct cli_command cli_commands[];

/* Fills the struct from the command line. CLI_OK, or the exit code after the reason was told. */
int cli_parse(struct cli *, int argc, char **argv);
/* Of its verb, of a family of verbs, or of all. */
void cli_print_help(const struct cli *, FILE *);

/* Tells what went wrong, on stderr, or on stdout with --json; gives the code. */
int cli_fail(const struct cli *, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* gives: the text as JSON, which is UTF-8: if it is not, with "?" for all that is not ASCII. */
json_t *cli_json_text(const char *);
/* gives: *config, or CLI_BAD_CONFIG after all that is wrong with it was told. */
int cli_load_config(const struct cli *, const char *file, const char *node, struct config **);
/* Takes the object; adds "ok": true. Prints it as JSON. CLI_OK. */
int cli_print_json(json_t *);

/* gives: *reply of the daemon, or a non-zero exit code after the reason was told (no daemon, or
 * "ok" is false). Takes args. timeout_ms < 0: waits for ever. */
int cli_call(const struct cli *, const char *verb, json_t *args, int timeout_ms, json_t **reply);
/* Prints a list of objects of one shape as a table: the keys of the first are the columns. */
void cli_print_table(const json_t *list, const char *const *keys, const char *const *titles);

int cli_config_check(struct cli *);
int cli_config_show(struct cli *);
int cli_config_example(struct cli *);
int cli_key_generate(struct cli *);
int cli_cert_init(struct cli *);
int cli_volume_create(struct cli *);
int cli_status(struct cli *);
int cli_wait(struct cli *);
int cli_promote(struct cli *);
int cli_scrub(struct cli *);
int cli_store_rebuild(struct cli *);
int cli_journal_dump(struct cli *);

#endif
