/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket, the command's side: one request, its progress, its answer. Blocks. */
#ifndef CASEMATE_CONTROL_CLIENT_H
#define CASEMATE_CONTROL_CLIENT_H

#include "core/base.h"

#include <jansson.h>

struct control_call {
	const char *path;
	const json_t *request;
	int timeout_ms; /* for the answer as a whole; < 0: for ever */
	/* told for each progress line; may be NULL */
	void (*progress)(void *context, const json_t *progress);
	void *context;
};

/* gives: *reply (an object), whatever "ok" says. 0, or -ENOENT, -ECONNREFUSED, -EACCES (nobody
 * answers there), -ETIMEDOUT, -EPIPE (it went away without an answer), -EPROTO (not our
 * language). */
int control_call(const struct control_call *, json_t **reply);

#endif
