/* SPDX-License-Identifier: Apache-2.0 */
/* New files and directories for a group: made whole, synced with the names that lead to them, and
 * taken back when what they belong to could not be finished. */
#ifndef CASEMATE_VOLUME_FILE_H
#define CASEMATE_VOLUME_FILE_H

#include "core/base.h"

#include <limits.h>
#include <stdatomic.h>

/* What was made so far, and why it went no further. */
struct making {
	char *why; /* one sentence */
	size_t why_bytes;
	char **path; /* made by us, in order */
	unsigned count;
	const atomic_bool *cancel; /* any thread: w; NULL: never */
	char unreserved[PATH_MAX]; /* the first whose space could not be held; "" */
};

void making_init(struct making *, char *why, size_t why_bytes);
/* Keeps what was made; says in why if space could not be held. */
void making_keep(struct making *);
/* Removes what was made, the last first. */
void making_undo(struct making *);
/* Says why, once; gives err back. */
int making_fails(struct making *, int err, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The directory and those above it that are missing, mode 0700, each name synced. 0 or negative
 * errno. */
int directory_make(struct making *, const char *path);
/* Makes the directory of this file. */
int directory_make_above(struct making *, const char *path);
int directory_sync(const char *path);

enum file_content {
	FILE_RESERVED, /* reads as zeros, and its space is held where the file system can */
	FILE_ZEROED,   /* zeros were written: a later write changes no extent */
	FILE_FILLED,   /* by the callback, a piece at a time */
};
struct file_new {
	const char *path;
	uint64_t bytes; /* whole pages */
	uint8_t content;
	/* FILE_FILLED: length bytes from offset on; all are multiples of PAGE_BYTES */
	void (*fill)(const void *context, uint64_t offset, uint8_t *out, uint64_t length);
	const void *context;
};
/* Makes the file, mode 0600, and syncs it; never overwrites (-EEXIST). */
int file_make(struct making *, const struct file_new *);

#endif
