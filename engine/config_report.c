/* SPDX-License-Identifier: Apache-2.0 */
/* Complaints about a configuration file, and the nearest right word. */
#include "config_report.h"

#include <stdarg.h>
#include <stdlib.h>

void report_add(struct report *report, struct report_place place, const char *format, ...)
{
	unsigned order = report->count++;
	if (report->kept == REPORT_COMPLAINTS_MAX)
		return;
	struct complaint *complaint = &report->complaint[report->kept++];
	complaint->line = place.line;
	complaint->column = place.column;
	complaint->order = order;
	snprintf(complaint->path, sizeof complaint->path, "%s", place.path ? place.path : "");
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(complaint->what, sizeof complaint->what, format, arguments);
	va_end(arguments);
}

static int complaint_compare(const void *left, const void *right)
{
	const struct complaint *a = left, *b = right;
	if (a->line != b->line)
		return a->line < b->line ? -1 : 1;
	if (a->column != b->column)
		return a->column < b->column ? -1 : 1;
	return a->order < b->order ? -1 : a->order > b->order;
}

void report_write(struct report *report, FILE *out)
{
	qsort(report->complaint, report->kept, sizeof report->complaint[0], complaint_compare);
	for (unsigned i = 0; i < report->kept; i++) {
		const struct complaint *c = &report->complaint[i];
		fprintf(out, "%s:%u:%u: %s%s%s\n", report->file, c->line, c->column, c->path,
			*c->path ? ": " : "", c->what);
	}
	if (report->count > report->kept)
		fprintf(out, "%s: and %u more\n", report->file, report->count - report->kept);
	report->count = report->kept = 0;
}

enum { WORD_BYTES_MAX = 32 };

/* Edit distance with swaps of neighbours (Damerau 1964, restricted form). */
static unsigned word_distance(const char *a, const char *b)
{
	size_t a_length = strlen(a), b_length = strlen(b);
	unsigned row[WORD_BYTES_MAX + 1][WORD_BYTES_MAX + 1];
	if (a_length > WORD_BYTES_MAX || b_length > WORD_BYTES_MAX)
		return WORD_BYTES_MAX;
	for (size_t i = 0; i <= a_length; i++)
		row[i][0] = (unsigned)i;
	for (size_t j = 0; j <= b_length; j++)
		row[0][j] = (unsigned)j;
	for (size_t i = 1; i <= a_length; i++)
		for (size_t j = 1; j <= b_length; j++) {
			unsigned best = row[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			best = (unsigned)min_u64(best, row[i - 1][j] + 1);
			best = (unsigned)min_u64(best, row[i][j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				best = (unsigned)min_u64(best, row[i - 2][j - 2] + 1);
			row[i][j] = best;
		}
	return row[a_length][b_length];
}

const char *report_nearest(const char *word, const char *const *candidates)
{
	const char *nearest = NULL;
	/* A third of the letters may be wrong; two words of which half differs are two words. */
	unsigned limit = (unsigned)max_u64(strlen(word) / 3, 1), best = limit + 1;
	for (; *candidates; candidates++) {
		unsigned distance = word_distance(word, *candidates);
		if (distance < best && distance < strlen(*candidates)) {
			best = distance;
			nearest = *candidates;
		}
	}
	return nearest;
}
