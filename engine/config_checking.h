/* SPDX-License-Identifier: Apache-2.0 */
/* What the checks of a configuration share: each complaint stands at the deepest key that exists on
 * the path it names. */
#ifndef CASEMATE_CONFIG_CHECKING_H
#define CASEMATE_CONFIG_CHECKING_H

#include "config.h"
#include "config_report.h"
#include "config_tree.h"

struct checking {
	struct config *config;
	const struct tree *root;
	struct report *report;
};

/* The path of a key: where("groups[%u].window", g). */
struct where {
	char path[REPORT_PATH_BYTES];
};
struct where where(const char *format, ...) __attribute__((format(printf, 1, 2)));
void complain(const struct checking *, struct where, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Each file of a site is used for one thing only, and nothing lies within a store. */
void check_files(const struct checking *, unsigned site);

#endif
