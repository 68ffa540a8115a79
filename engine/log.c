/* SPDX-License-Identifier: Apache-2.0 */
/* Lines are made whole in memory and written by one call, so that two threads never mix theirs. */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOG_LINE_BYTES_MAX = 1024 };

static const struct {
	const char *word;
	unsigned journal_level; /* sd-daemon(3) */
} levels[] = {
	[NOTE_INFO] = {"info", 6},
	[NOTE_WARNING] = {"warning", 4},
	[NOTE_ERROR] = {"error", 3},
};

/* JOURNAL_STREAM is inherited; it means us only while stderr is still that stream. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	struct stat stat;
	char own[64];
	if (!stream || fstat(STDERR_FILENO, &stat))
		return false;
	snprintf(own, sizeof own, "%llu:%llu", (unsigned long long)stat.st_dev,
		 (unsigned long long)stat.st_ino);
	return strcmp(stream, own) == 0;
}

static size_t line_begin(char line[LOG_LINE_BYTES_MAX], unsigned level, const char *subject)
{
	must(level < ARRAY_COUNT(levels), "a level has a word");
	size_t used = 0;
	struct timespec now;
	struct tm utc;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	if (stderr_is_journal())
		used = (size_t)snprintf(line, LOG_LINE_BYTES_MAX, "<%u>",
					levels[level].journal_level);
	used += strftime(line + used, LOG_LINE_BYTES_MAX - used, "%Y-%m-%dT%H:%M:%S", &utc);
	used += (size_t)snprintf(line + used, LOG_LINE_BYTES_MAX - used, ".%03uZ %s %s%s",
				 (unsigned)(now.tv_nsec / 1000000), levels[level].word,
				 subject ? subject : "", subject ? ": " : "");
	return min_u64(used, LOG_LINE_BYTES_MAX - 1);
}

static void line_end(char line[LOG_LINE_BYTES_MAX], size_t used)
{
	used = min_u64(used, LOG_LINE_BYTES_MAX - 1);
	for (size_t i = 0; i < used; i++)
		if ((unsigned char)line[i] < ' ') /* what a peer sent must not forge a line */
			line[i] = ' ';
	line[used++] = '\n';
	for (size_t done = 0; done < used;) {
		ssize_t wrote = write(STDERR_FILENO, line + done, used - done);
		if (wrote <= 0 && errno != EINTR)
			return; /* a log that cannot be written is no reason to stop */
		done += wrote > 0 ? (size_t)wrote : 0;
	}
}

void log_line(unsigned level, const char *subject, const char *format, ...)
{
	char line[LOG_LINE_BYTES_MAX];
	size_t used = line_begin(line, level, subject);
	va_list arguments;
	va_start(arguments, format);
	int more = vsnprintf(line + used, sizeof line - used, format, arguments);
	va_end(arguments);
	line_end(line, used + (size_t)(more > 0 ? more : 0));
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* the form is static text of the core */
void log_note(const struct note *note)
{
	char text[LOG_LINE_BYTES_MAX / 2];
	snprintf(text, sizeof text, note->text, note->number[0], note->number[1], note->number[2]);
	log_line(note->level, note->subject, "%s", text);
}
#pragma GCC diagnostic pop
