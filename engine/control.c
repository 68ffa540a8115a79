/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket, daemon's side. A client is a slot with one line being read, at most one
 * request open and one buffer being written. While a request is open nothing more is read from its
 * client, so the slot is the token of the request. When all slots are taken, the client that has
 * been idle longest makes room: a forgotten connection cannot lock the operator out. */
#include "control.h"
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { REST_MS = 250 };

/* free -> idle (accept) -> open (a request) -> idle (answered) -> free (closed). A client that
 * vanishes while open keeps its slot, with fd -1, until it is answered. */
enum slot_state { SLOT_FREE, SLOT_IDLE, SLOT_OPEN };

struct control_client {
	enum slot_state state;
	int fd;
	bool closing; /* nothing more is read; closed once all is written */
	struct ucred peer;
	uint64_t used; /* turn of the last request: the oldest idle one goes first */
	size_t in_bytes;
	char *out; /* what is still to be written, from out_start on */
	size_t out_start, out_bytes;
	char in[CONTROL_LINE_BYTES_MAX];
};

struct control {
	int listener;
	uint64_t turn;
	control_handler *handler;
	void *context;
	struct sockaddr_un address;
	struct stat made; /* of the socket file */
	int64_t rest_until_ms;
	bool resting; /* said already that nobody can be let in */
	struct control_client client[CONTROL_CLIENTS_MAX];
};

/* ---- the socket ---- */

/* A socket that nobody answers at is left from a process that was killed. What is no socket is
 * somebody's file, and is never touched. 0, or why the path is not free. */
static int path_clear(const struct sockaddr_un *address)
{
	struct stat found;
	if (lstat(address->sun_path, &found))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(found.st_mode))
		return -EEXIST;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	int err = connect(fd, (const struct sockaddr *)address, sizeof *address) ? errno : 0;
	close(fd);
	if (err != ECONNREFUSED)
		return -EADDRINUSE;
	return unlink(address->sun_path) ? -errno : 0;
}

static int socket_bind(int fd, const struct sockaddr_un *address)
{
	int err = path_clear(address);
	if (!err && bind(fd, (const struct sockaddr *)address, sizeof *address))
		err = -errno;
	return err;
}

static int socket_listen(const struct sockaddr_un *address, struct stat *made)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	int err = socket_bind(fd, address);
	/* Nobody can connect before listen, so the mode is right from the first client on. */
	if (!err && (chmod(address->sun_path, 0660) || lstat(address->sun_path, made) ||
		     listen(fd, CONTROL_CLIENTS_MAX))) {
		err = -errno;
		unlink(address->sun_path);
	}
	if (!err)
		return fd;
	close(fd);
	return err;
}

struct control *control_new(const char *path, control_handler *handler, void *context)
{
	if (strlen(path) >= sizeof((struct sockaddr_un *)NULL)->sun_path) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	struct control *control = calloc(1, sizeof *control);
	if (!control)
		return NULL;
	control->handler = handler;
	control->context = context;
	control->address.sun_family = AF_UNIX;
	memcpy(control->address.sun_path, path, strlen(path)); /* zeroed before */
	control->listener = socket_listen(&control->address, &control->made);
	if (control->listener >= 0)
		return control;
	errno = -control->listener;
	free(control);
	return NULL;
}

static void client_disconnect(struct control_client *client)
{
	if (client->fd >= 0)
		close(client->fd);
	client->fd = -1;
	free(client->out);
	client->out = NULL;
	client->out_start = client->out_bytes = client->in_bytes = 0;
	if (client->state == SLOT_IDLE)
		client->state = SLOT_FREE;
}

/* Somebody may have put another file in the place of ours. */
static void socket_unlink(const struct control *control)
{
	struct stat found;
	if (lstat(control->address.sun_path, &found) == 0 && S_ISSOCK(found.st_mode) &&
	    found.st_dev == control->made.st_dev && found.st_ino == control->made.st_ino)
		unlink(control->address.sun_path);
}

void control_free(struct control *control)
{
	if (!control)
		return;
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (control->client[i].state != SLOT_FREE)
			client_disconnect(&control->client[i]);
	close(control->listener);
	socket_unlink(control);
	free(control);
}

/* ---- answers ---- */

/* Takes the message. A message that cannot be kept is lost: false. */
static bool client_queue(struct control_client *client, json_t *message)
{
	char *line = message ? json_dumps(message, JSON_COMPACT) : NULL;
	size_t length = line ? strlen(line) : 0;
	bool fits = line && client->out_bytes + length < CONTROL_REPLY_BYTES_MAX;
	char *out = fits ? realloc(client->out, client->out_bytes + length + 1) : NULL;
	json_decref(message);
	if (out) {
		memcpy(out + client->out_bytes, line, length);
		out[client->out_bytes + length] = '\n';
		client->out = out;
		client->out_bytes += length + 1;
	}
	free(line);
	return out != NULL;
}

static json_t *error_json(int err, const char *text)
{
	return json_pack("{s:b, s:s, s:i}", "ok", 0, "error", text, "errno", err);
}

void control_reply(struct control_client *client, json_t *reply)
{
	must(client->state == SLOT_OPEN, "a request is answered once");
	client->state = SLOT_IDLE;
	if (client->fd < 0) { /* it has gone: the slot is free again */
		json_decref(reply);
		client->state = SLOT_FREE;
		return;
	}
	if (reply && !json_object_get(reply, "ok"))
		json_object_set_new(reply, "ok", json_true());
	if (!client_queue(client, reply) &&
	    !client_queue(client, error_json(EMSGSIZE, "the answer is too long; ask for less")))
		client->closing = true;
}

void control_reply_error(struct control_client *client, int err, const char *format, ...)
{
	char text[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	control_reply(client, error_json(err, text));
}

void control_progress(struct control_client *client, json_t *progress)
{
	must(client->state == SLOT_OPEN, "progress comes before the answer");
	bool reads = client->out_bytes - client->out_start < CONTROL_LINE_BYTES_MAX;
	if (client->fd >= 0 && reads)
		client_queue(client, json_pack("{s:o}", "progress", progress));
	else
		json_decref(progress);
}

bool control_client_gone(const struct control_client *client)
{
	return client->fd < 0;
}

unsigned control_open_count(const struct control *control)
{
	unsigned count = 0;
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		count += control->client[i].state == SLOT_OPEN;
	return count;
}

uid_t control_client_uid(const struct control_client *client)
{
	return client->peer.uid;
}

/* ---- requests ---- */

static void line_handle(struct control *control, struct control_client *client, size_t length)
{
	json_error_t error;
	json_t *request = json_loadb(client->in, length, JSON_REJECT_DUPLICATES, &error);
	const char *verb = json_string_value(json_object_get(request, "verb"));
	json_t *args = json_object_get(request, "args"), *none = json_object();
	must(client->state == SLOT_IDLE, "one request at a time");
	client->state = SLOT_OPEN;
	client->used = control->turn;
	if (!request)
		control_reply_error(client, EINVAL, "not a line of JSON: %s", error.text);
	else if (!verb)
		control_reply_error(client, EINVAL, "a request is an object with a \"verb\"");
	else if (args && !json_is_object(args))
		control_reply_error(client, EINVAL, "\"args\" must be an object");
	else
		control->handler(control->context, verb, args ? args : none, client);
	json_decref(none);
	json_decref(request);
}

static const char *client_line_end(const struct control_client *client)
{
	return client->in_bytes ? memchr(client->in, '\n', client->in_bytes) : NULL;
}

/* A request is taken when the answer before it has been read: who does not read does not ask. */
static bool client_has_work(const struct control_client *client)
{
	return client->state == SLOT_IDLE && !client->out_bytes && client_line_end(client);
}

/* Handles the lines that have come in whole, one request at a time. */
static void client_handle(struct control *control, struct control_client *client)
{
	while (client_has_work(client)) {
		size_t length = (size_t)(client_line_end(client) - client->in);
		line_handle(control, client, length);
		if (client->fd < 0)
			return;
		client->in_bytes -= length + 1;
		memmove(client->in, client->in + length + 1, client->in_bytes);
	}
	if (client->state == SLOT_IDLE && client->in_bytes == sizeof client->in &&
	    !client->closing) {
		client->state = SLOT_OPEN;
		control_reply_error(client, EMSGSIZE, "a line is longer than 64 KiB");
		client->closing = true;
	}
}

static void client_read(struct control_client *client)
{
	ssize_t got = recv(client->fd, client->in + client->in_bytes,
			   sizeof client->in - client->in_bytes, MSG_DONTWAIT);
	if (got > 0)
		client->in_bytes += (size_t)got;
	else if (got == 0 && (client->out_bytes || client->state == SLOT_OPEN))
		client->closing =
			true; /* it may still read: "echo | socat" closes its side first */
	else if (got == 0 || (errno != EAGAIN && errno != EINTR))
		client_disconnect(client);
}

static void client_write(struct control_client *client)
{
	size_t left = client->out_bytes - client->out_start;
	ssize_t sent = !left ? 0
			     : send(client->fd, client->out + client->out_start, left,
				    MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN && errno != EINTR) {
		client_disconnect(client);
		return;
	}
	client->out_start += sent > 0 ? (size_t)sent : 0;
	if (client->out_start < client->out_bytes)
		return;
	free(client->out);
	client->out = NULL;
	client->out_start = client->out_bytes = 0;
	if (client->closing && client->state == SLOT_IDLE && !client_has_work(client))
		client_disconnect(client);
}

/* ---- the turn ---- */

/* A slot for a newcomer, or NULL when all have requests open. */
static struct control_client *slot_take(struct control *control)
{
	struct control_client *oldest = NULL;
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		struct control_client *client = &control->client[i];
		if (client->state == SLOT_FREE)
			return client;
		if (client->state == SLOT_IDLE && (!oldest || client->used < oldest->used))
			oldest = client;
	}
	if (oldest)
		client_disconnect(oldest);
	return oldest;
}

static int64_t clock_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Who waits to be let in keeps the listener readable: out of descriptors it is left alone for a
 * while, else the control thread would turn without end. */
static void accept_failed(struct control *control, int err)
{
	if (err == EAGAIN || err == EINTR || err == ECONNABORTED)
		return;
	control->rest_until_ms = clock_ms() + REST_MS;
	if (!control->resting)
		log_line(NOTE_ERROR, NULL, "nobody is let in at %s: %s; tried again every %d ms",
			 control->address.sun_path, strerror(err), REST_MS);
	control->resting = true;
}

static void client_accept(struct control *control)
{
	static const char busy[] = "{\"ok\":false,\"error\":\"all clients wait for answers; try "
				   "again\",\"errno\":11}\n";
	int fd = accept4(control->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		accept_failed(control, errno);
		return;
	}
	control->resting = false;
	struct control_client *client = slot_take(control);
	if (!client) {
		if (send(fd, busy, sizeof busy - 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			errno = 0; /* it has gone already: nobody to tell */
		close(fd);
		return;
	}
	socklen_t length = sizeof client->peer;
	client->state = SLOT_IDLE;
	client->fd = fd;
	client->closing = false;
	client->used = control->turn;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &client->peer, &length))
		client->peer = (struct ucred){.uid = (uid_t)-1, .gid = (gid_t)-1};
}

static bool client_reads(const struct control_client *client)
{
	return !client->closing && client->in_bytes < sizeof client->in &&
	       !(client->state == SLOT_IDLE && client_line_end(client));
}

/* Lines that wait behind a request just answered need a turn at once: POLLOUT gives one. */
unsigned control_pollfds(const struct control *control, struct pollfd fds[CONTROL_POLLFDS_MAX])
{
	unsigned count = 0;
	bool rests = control->resting && clock_ms() < control->rest_until_ms;
	/* poll passes over a negative descriptor. */
	fds[count++] = (struct pollfd){.fd = rests ? -1 : control->listener, .events = POLLIN};
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		const struct control_client *client = &control->client[i];
		if (client->state == SLOT_FREE || client->fd < 0)
			continue;
		bool writes = client->out_bytes || client_has_work(client) ||
			      (client->closing && client->state == SLOT_IDLE);
		fds[count++] = (struct pollfd){
			.fd = client->fd,
			.events = (short)((client_reads(client) ? POLLIN : 0) |
					  (writes ? POLLOUT : 0)),
		};
	}
	return count;
}

static void client_turn(struct control *control, struct control_client *client, short revents)
{
	if (revents & (POLLERR | POLLNVAL)) {
		client_disconnect(client);
		return;
	}
	/* POLLHUP without POLLIN: both sides are shut, nobody reads the answer. */
	if ((revents & POLLHUP) && !client_reads(client)) {
		client_disconnect(client);
		return;
	}
	if ((revents & (POLLIN | POLLHUP)) && client_reads(client))
		client_read(client);
	if (client->fd >= 0)
		client_handle(control, client);
	if (client->fd >= 0 && (client->out_bytes || client->closing))
		client_write(client);
}

void control_turn(struct control *control, const struct pollfd *fds, unsigned count)
{
	control->turn++;
	for (unsigned f = 1; f < count; f++)
		for (unsigned i = 0; fds[f].revents && i < CONTROL_CLIENTS_MAX; i++) {
			struct control_client *client = &control->client[i];
			if (client->state != SLOT_FREE && client->fd == fds[f].fd) {
				client_turn(control, client, fds[f].revents);
				break;
			}
		}
	if (count && fds[0].revents)
		client_accept(control);
}
