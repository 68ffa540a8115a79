/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket, daemon's side: newline-delimited JSON over a Unix socket (mode 0660). A
 * request {"verb": "...", "args": {...}} is answered by {"ok": true, ...} or {"ok": false,
 * "error": "text", "errno": N}, with {"progress": ...} lines before it if it takes long. Polled by
 * the control thread; never blocks; a slow client costs nothing but its own answers. */
#ifndef CASEMATE_CONTROL_H
#define CASEMATE_CONTROL_H

#include "core/base.h"

#include <jansson.h>
#include <poll.h>
#include <sys/types.h>

enum {
	CONTROL_CLIENTS_MAX = 8,
	CONTROL_POLLFDS_MAX = CONTROL_CLIENTS_MAX + 1,
	CONTROL_LINE_BYTES_MAX = 64 * 1024,
	CONTROL_REPLY_BYTES_MAX = 4 * 1024 * 1024,
};

struct control;
/* One client with the one request it has open; it stays valid until that is answered, even when
 * the client has gone meanwhile. */
struct control_client;

/* Borrows verb and args (an object, maybe empty). Answers by control_reply, now or later, exactly
 * once. */
typedef void control_handler(void *context, const char *verb, const json_t *args,
			     struct control_client *);

/* gives: a listening socket at the path, or NULL with errno (EADDRINUSE: another process answers
 * there; a dead socket is replaced; EEXIST: what is there is no socket, and is left alone). */
struct control *control_new(const char *path, control_handler *, void *context);
/* Closes all and removes the socket, if it is still ours. Tokens of unanswered requests end with
 * it. */
void control_free(struct control *);

/* What to poll for; the number of entries filled. */
unsigned control_pollfds(const struct control *, struct pollfd[CONTROL_POLLFDS_MAX]);
/* Does what the poll has found: accepts, reads, calls the handler, writes. Never blocks. */
void control_turn(struct control *, const struct pollfd *, unsigned count);

/* Takes the reply. control_reply adds "ok": true when it has none. */
void control_reply(struct control_client *, json_t *reply);
void control_reply_error(struct control_client *, int err, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Takes the value of "progress"; dropped when the client does not read. */
void control_progress(struct control_client *, json_t *);
/* Requests that are not answered yet; at CONTROL_CLIENTS_MAX of them nobody else is let in. */
unsigned control_open_count(const struct control *);
/* Nobody waits for this answer any more. */
bool control_client_gone(const struct control_client *);
/* Who asks, for the log. */
uid_t control_client_uid(const struct control_client *);

#endif
