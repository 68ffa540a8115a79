/* SPDX-License-Identifier: Apache-2.0 */
/* What is wrong with a configuration file: complaints are collected, sorted by place and written
 * all at once, one line each, as compilers do ("file:line:col: key.path: what"). */
#ifndef CASEMATE_CONFIG_REPORT_H
#define CASEMATE_CONFIG_REPORT_H

#include "core/base.h"

#include <stdio.h>

enum { REPORT_COMPLAINTS_MAX = 64, REPORT_PATH_BYTES = 128, REPORT_WHAT_BYTES = 384 };

struct complaint {
	unsigned line, column; /* from 1 */
	unsigned order;	       /* as it came: breaks ties */
	char path[REPORT_PATH_BYTES];
	char what[REPORT_WHAT_BYTES];
};

struct report {
	const char *file;
	unsigned count; /* of all */
	unsigned kept;	/* of those in complaint[] */
	struct complaint complaint[REPORT_COMPLAINTS_MAX];
};

struct report_place {
	unsigned line, column;
	const char *path; /* "groups[0].window"; NULL or empty: the file as a whole */
};
void report_add(struct report *, struct report_place, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Sorts and writes; the report is then empty. */
void report_write(struct report *, FILE *);

/* The candidate nearest to the word (NULL-terminated list), or NULL when none is near. */
const char *report_nearest(const char *word, const char *const *candidates);

#endif
