/* SPDX-License-Identifier: Apache-2.0 */
/* The table of verbs and the table of options: parsing and --help both come from them. */
#include "cli.h"

#include "config_report.h"
#include "units.h"

#include <getopt.h>
#include <stdarg.h>

const struct cli_command cli_commands[] = {
	{"config check", "[FILE]", 0, 1, 0, "read the configuration and tell all mistakes in it",
	 cli_config_check},
	{"config show", "[FILE]", 0, 1, 0, "print the effective configuration", cli_config_show},
	{"config example", "", 0, 0, 0, "print a commented example", cli_config_example},
	{"key generate", "FILE", 1, 1, 0, "make a key that wraps volume keys", cli_key_generate},
	{"cert init", "DIR SITE...", 2, 16, 0,
	 "make a private CA, unless DIR has one, and a certificate for each site", cli_cert_init},
	{"volume create", "VOLUME", 1, 1, 0,
	 "make the device, intent file and stores of this site for a volume", cli_volume_create},
	{"status", "", 0, 0, 0, "show groups, stores and paths; exit 3 when degraded", cli_status},
	{"wait", "VOLUME --synced", 1, 1, CLI_SYNCED | CLI_TIMEOUT,
	 "wait until all that was written is durable, or has reached every store", cli_wait},
	{"promote", "GROUP --key URI", 1, 1, CLI_KEY | CLI_ACCEPT_LOSS | CLI_YES,
	 "make this vault serve the group; its primary must be gone", cli_promote},
	{"scrub", "GROUP", 1, 1, 0, "read and check every shard; repair what can be", cli_scrub},
	{"store rebuild", "GROUP INDEX", 2, 2, 0, "fill a fresh store from the others",
	 cli_store_rebuild},
	{"journal dump", "GROUP INDEX", 2, 2, 0, "list the records in the journal of a store",
	 cli_journal_dump},
	{NULL, NULL, 0, 0, 0, NULL, NULL},
};

enum {
	OPTION_SOCKET = 256,
	OPTION_CONFIG,
	OPTION_NODE,
	OPTION_JSON,
	OPTION_VERSION,
	OPTION_FIRST_OF_VERB
};

/* of: the verbs' bit, 0 for options of all. */
static const struct {
	struct option option;
	unsigned of;
	const char *argument, *help;
} options[] = {
	{{"socket", required_argument, NULL, OPTION_SOCKET},
	 0,
	 "PATH",
	 "the daemon's control socket"},
	{{"config", required_argument, NULL, OPTION_CONFIG},
	 0,
	 "FILE",
	 "take it from this file (" CLI_CONFIG_DEFAULT ")"},
	{{"node", required_argument, NULL, OPTION_NODE},
	 0,
	 "SITE",
	 "the site that this host is, if the file does not say"},
	{{"json", no_argument, NULL, OPTION_JSON}, 0, "", "print JSON"},
	{{"version", no_argument, NULL, OPTION_VERSION}, 0, "", "print the version"},
	{{"help", no_argument, NULL, 'h'}, 0, "", "print this, or the help of a verb"},
	{{"synced", no_argument, NULL, OPTION_FIRST_OF_VERB + CLI_SYNCED},
	 CLI_SYNCED,
	 "",
	 "what to wait for: at the primary, that a quorum of stores holds all that was written; "
	 "at the vault, that every store holds all that has come"},
	{{"timeout", required_argument, NULL, OPTION_FIRST_OF_VERB + CLI_TIMEOUT},
	 CLI_TIMEOUT,
	 "TIME",
	 "give up after this time (30s)"},
	{{"key", required_argument, NULL, OPTION_FIRST_OF_VERB + CLI_KEY},
	 CLI_KEY,
	 "URI",
	 "where the daemon finds the group's key (file:/path, credential:name)"},
	{{"accept-loss", no_argument, NULL, OPTION_FIRST_OF_VERB + CLI_ACCEPT_LOSS},
	 CLI_ACCEPT_LOSS,
	 "",
	 "go on though acknowledged writes are missing"},
	{{"yes", no_argument, NULL, OPTION_FIRST_OF_VERB + CLI_YES},
	 CLI_YES,
	 "",
	 "do not ask for confirmation"},
};

/* ---- help ---- */

static void print_options(FILE *out, unsigned of)
{
	for (unsigned i = 0; i < ARRAY_COUNT(options); i++)
		if (options[i].of ? options[i].of & of : of == 0)
			fprintf(out, "  --%s %-*s%s\n", options[i].option.name,
				(int)(18 - strlen(options[i].option.name)), options[i].argument,
				options[i].help);
}

/* Whether a verb of two words begins with this one. */
static bool of_family(const struct cli_command *command, const char *word)
{
	size_t length = strlen(word);
	return strncmp(command->name, word, length) == 0 && command->name[length] == ' ';
}

static void print_verbs(FILE *out, const char *family)
{
	fputs("\nverbs:\n", out);
	for (const struct cli_command *c = cli_commands; c->name; c++) {
		char line[64];
		snprintf(line, sizeof line, "%s %s", c->name, c->synopsis);
		if (!family || of_family(c, family))
			fprintf(out, "  %-28s%s\n", line, c->help);
	}
}

void cli_print_help(const struct cli *cli, FILE *out)
{
	const struct cli_command *command = cli->command;
	fprintf(out, "usage: casemate [--socket PATH | --config FILE --node SITE] [--json] %s %s\n",
		command ? command->name : "VERB", command ? command->synopsis : "...");
	if (command) {
		fprintf(out, "\n%s\n%s", command->help, command->options ? "\n" : "");
		print_options(out, command->options ? command->options : ~0u << 31);
		return;
	}
	print_verbs(out, cli->family);
	fputs("\noptions:\n", out);
	print_options(out, 0);
	fputs("\nexit codes: 0 done, 1 failed, 2 wrong usage, 3 degraded, 69 no daemon answers, "
	      "78 wrong configuration\n",
	      out);
}

/* ---- parsing ---- */

static int usage(const struct cli *cli, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static int usage(const struct cli *cli, const char *format, ...)
{
	char text[256];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	return cli_fail(cli, CLI_USAGE, "%s (casemate --help)", text);
}

static int timeout_parse(struct cli *cli, const char *text)
{
	uint64_t ns;
	char why[128];
	if (units_parse(UNITS_DURATION, text, &ns, why, sizeof why))
		return usage(cli, "--timeout: %s", why);
	if (ns / NS_PER_MS > INT32_MAX / 2)
		return usage(cli, "--timeout: %s is too long", text);
	cli->timeout_ms = (int)(ns / NS_PER_MS);
	return CLI_OK;
}

static int option_apply(struct cli *cli, int option)
{
	switch (option) {
	case OPTION_SOCKET:
		cli->socket = optarg;
		return CLI_OK;
	case OPTION_CONFIG:
		cli->config = optarg;
		return CLI_OK;
	case OPTION_NODE:
		cli->node = optarg;
		return CLI_OK;
	case OPTION_JSON:
		cli->json = true;
		return CLI_OK;
	case OPTION_VERSION:
		cli->version = true;
		return CLI_OK;
	case 'h':
		cli->help = true;
		return CLI_OK;
	case OPTION_FIRST_OF_VERB + CLI_SYNCED:
		cli->synced = true;
		return CLI_OK;
	case OPTION_FIRST_OF_VERB + CLI_TIMEOUT:
		return timeout_parse(cli, optarg);
	case OPTION_FIRST_OF_VERB + CLI_KEY:
		cli->key = optarg;
		return CLI_OK;
	case OPTION_FIRST_OF_VERB + CLI_ACCEPT_LOSS:
		cli->accept_loss = true;
		return CLI_OK;
	case OPTION_FIRST_OF_VERB + CLI_YES:
		cli->yes = true;
		return CLI_OK;
	}
	return CLI_USAGE;
}

/* The verbs that begin with the word, as a list; "" when none does. */
static void family_list(const char *word, char *list, size_t list_bytes)
{
	size_t used = 0;
	list[0] = 0;
	for (const struct cli_command *c = cli_commands; c->name && used < list_bytes; c++)
		if (of_family(c, word))
			used += (size_t)snprintf(list + used, list_bytes - used, "%s%s",
						 used ? ", " : "", c->name);
}

static int command_unknown(struct cli *cli, const char *word, const char *second)
{
	const char *names[32];
	char said[128], family[128];
	unsigned count = 0;
	family_list(word, family, sizeof family);
	if (*family && !second && cli->help) {
		cli->family = word;
		return CLI_OK;
	}
	if (*family && !second)
		return usage(cli, "%s what? %s", word, family);
	snprintf(said, sizeof said, "%s%s%s", word, second ? " " : "", second ? second : "");
	for (const struct cli_command *c = cli_commands; c->name; c++)
		names[count++] = c->name;
	must(count < ARRAY_COUNT(names), "the table of verbs is short");
	names[count] = NULL;
	const char *near = report_nearest(said, names);
	if (!near)
		near = report_nearest(word, names);
	if (near)
		return usage(cli, "unknown verb \"%s\"; did you mean \"%s\"?",
			     *family ? said : word, near);
	if (*family)
		return usage(cli, "unknown verb \"%s\"; %s what? %s", said, word, family);
	return usage(cli, "unknown verb \"%s\"", word);
}

/* A verb is one word or two; the rest are its arguments. */
static int command_find(struct cli *cli, char **word, unsigned count)
{
	for (const struct cli_command *c = cli_commands; c->name; c++) {
		size_t first = strcspn(c->name, " ");
		bool two = c->name[first] == ' ';
		if (strlen(word[0]) != first || strncmp(word[0], c->name, first) != 0)
			continue;
		if (two && (count < 2 || strcmp(word[1], c->name + first + 1) != 0))
			continue;
		cli->command = c;
		cli->argument = word + 1 + two;
		cli->argument_count = count - 1 - two;
		return CLI_OK;
	}
	return command_unknown(cli, word[0], count > 1 ? word[1] : NULL);
}

static int command_check(const struct cli *cli, unsigned given)
{
	const struct cli_command *command = cli->command;
	for (unsigned i = 0; i < ARRAY_COUNT(options); i++)
		if (options[i].of & given & ~command->options)
			return usage(cli, "--%s is not an option of %s", options[i].option.name,
				     command->name);
	if (cli->argument_count < command->arguments_min ||
	    cli->argument_count > command->arguments_max)
		return usage(cli, "usage: casemate %s %s", command->name, command->synopsis);
	return CLI_OK;
}

/* Whoever asked for JSON gets it for a mistake on the command line too, wherever it stands. */
static bool json_asked(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strlen(argv[i]) > 2 && strncmp(argv[i], "--json", strlen(argv[i])) == 0)
			return true;
	return false;
}

/* What getopt would have said on stderr. */
static int option_refused(const struct cli *cli, int option, char **argv)
{
	bool one_letter = optopt > 0 && optopt < OPTION_SOCKET && optopt != 'h';
	if (option == ':')
		return usage(cli, "option \"%s\" requires an argument", argv[optind - 1]);
	if (one_letter)
		return usage(cli, "unrecognized option \"-%c\"", optopt);
	return usage(cli, "unrecognized option \"%s\"", argv[optind - 1]);
}

static int options_parse(struct cli *cli, int argc, char **argv, unsigned *given)
{
	struct option longs[ARRAY_COUNT(options) + 1] = {{NULL, 0, NULL, 0}};
	int option, code = CLI_OK;
	for (unsigned i = 0; i < ARRAY_COUNT(options); i++)
		longs[i] = options[i].option;
	opterr = 0;
	while (!code && (option = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
		if (option == '?' || option == ':')
			return option_refused(cli, option, argv);
		code = option_apply(cli, option);
		if (option > OPTION_FIRST_OF_VERB)
			*given |= (unsigned)option - OPTION_FIRST_OF_VERB;
	}
	return code;
}

int cli_parse(struct cli *cli, int argc, char **argv)
{
	unsigned given = 0;
	*cli = (struct cli){.timeout_ms = -1, .json = json_asked(argc, argv)};
	int code = options_parse(cli, argc, argv, &given);
	if (code || cli->version)
		return code;
	if (optind == argc && cli->help)
		return CLI_OK;
	if (optind == argc && cli->json)
		return usage(cli, "no verb is given");
	if (optind == argc) {
		cli_print_help(cli, stderr);
		return CLI_USAGE;
	}
	code = command_find(cli, argv + optind, (unsigned)(argc - optind));
	if (code || cli->help)
		return code;
	return command_check(cli, given);
}
