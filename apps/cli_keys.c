/* SPDX-License-Identifier: Apache-2.0 */
/* key generate, cert init: secrets are written to files that only their owner reads, and what is
 * printed are fingerprints. */
#include "cli.h"

#include "session/certificate.h"
#include "session/key_uri.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

int cli_key_generate(struct cli *cli)
{
	const char *file = cli->argument[0];
	char fingerprint[KEY_FINGERPRINT_BYTES], why[256] = "";
	int err = key_generate(file, fingerprint, why, sizeof why);
	if (err)
		return cli_fail(cli, CLI_FAILED, "%s", *why ? why : strerror(-err));
	if (cli->json)
		return cli_print_json(
			json_pack("{s:s, s:s}", "file", file, "fingerprint", fingerprint));
	printf("%s: made; fingerprint %s\n", file, fingerprint);
	return CLI_OK;
}

/* The CA is made once; later calls add sites to it. */
static int ca_ensure(const char *directory, bool *made, char *why, size_t why_bytes)
{
	char path[4096];
	*made = false;
	if (mkdir(directory, 0700) && errno != EEXIST) {
		snprintf(why, why_bytes, "%s: %s", directory, strerror(errno));
		return -errno;
	}
	if (snprintf(path, sizeof path, "%s/ca.pem", directory) >= (int)sizeof path) {
		snprintf(why, why_bytes, "the name of the directory is too long");
		return -ENAMETOOLONG;
	}
	if (access(path, F_OK) == 0)
		return 0;
	*made = true;
	return certificate_make_ca(directory, why, why_bytes);
}

static int site_make(const char *directory, const char *site, json_t *sites, char *why,
		     size_t why_bytes)
{
	char certificate[4096], key[4096];
	struct certificate_fingerprint fingerprint;
	int err = certificate_make_site(directory, site, why, why_bytes);
	if (err)
		return err;
	snprintf(certificate, sizeof certificate, "%s/%s.pem", directory, site);
	snprintf(key, sizeof key, "%s/%s.key", directory, site);
	err = certificate_fingerprint(certificate, &fingerprint);
	if (err) {
		snprintf(why, why_bytes, "%.128s: %s", certificate, strerror(-err));
		return err;
	}
	json_array_append_new(sites,
			      json_pack("{s:s, s:s, s:s, s:s}", "site", site, "certificate",
					certificate, "key", key, "fingerprint", fingerprint.text));
	return 0;
}

/* All that can be refused is refused before anything is made. */
static int sites_check(const struct cli *cli, const char *directory)
{
	char path[4096], why[256];
	struct certificate_fingerprint fingerprint;
	for (unsigned i = 1; i < cli->argument_count; i++) {
		const char *site = cli->argument[i];
		if (certificate_judge_name(site, why, sizeof why))
			return cli_fail(cli, CLI_USAGE, "%s; nothing was made", why);
		for (unsigned j = 1; j < i; j++)
			if (strcmp(cli->argument[j], site) == 0)
				return cli_fail(cli, CLI_USAGE, "\"%s\" is named twice", site);
		snprintf(path, sizeof path, "%s/%s.pem", directory, site);
		if (certificate_fingerprint(path, &fingerprint) == 0)
			return cli_fail(cli, CLI_FAILED,
					"%s is there already; its fingerprint is %s; nothing was "
					"made",
					path, fingerprint.text);
	}
	return CLI_OK;
}

int cli_cert_init(struct cli *cli)
{
	const char *directory = cli->argument[0];
	char why[256] = "";
	bool made;
	int refused = sites_check(cli, directory);
	if (refused)
		return refused;
	json_t *sites = json_array();
	int err = ca_ensure(directory, &made, why, sizeof why);
	for (unsigned i = 1; i < cli->argument_count && !err; i++)
		err = site_make(directory, cli->argument[i], sites, why, sizeof why);
	if (err) {
		json_decref(sites);
		return cli_fail(cli, CLI_FAILED, "%s", *why ? why : strerror(-err));
	}
	if (cli->json)
		return cli_print_json(json_pack("{s:s, s:b, s:o}", "directory", directory,
						"ca_made", made, "sites", sites));
	printf("%s/ca.pem: %s\n", directory, made ? "made" : "was there");
	cli_print_table(sites,
			(const char *const[]){"site", "certificate", "key", "fingerprint", NULL},
			(const char *const[]){"SITE", "CERTIFICATE", "KEY", "FINGERPRINT"});
	json_decref(sites);
	return CLI_OK;
}
