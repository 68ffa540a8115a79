/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket, the command's side. */
#include "control_client.h"
#include "control.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A daemon that hangs takes nobody in once its backlog is full: connect and send would wait for
 * ever, but for this. */
static void send_within(int fd, int timeout_ms)
{
	struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
	if (timeout_ms > 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static int connect_to(const char *path, int timeout_ms)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof address.sun_path)
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path)); /* zeroed before */
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	send_within(fd, timeout_ms);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
		return fd;
	int err = errno == EAGAIN ? -ETIMEDOUT : -errno;
	close(fd);
	return err;
}

static int request_send(int fd, const json_t *request)
{
	char *line = json_dumps(request, JSON_COMPACT);
	if (!line)
		return -ENOMEM;
	size_t length = strlen(line), sent = 0;
	int err = 0;
	line[length++] = '\n'; /* in the place of the closing 0 */
	while (sent < length && !err) {
		ssize_t wrote = send(fd, line + sent, length - sent, MSG_NOSIGNAL);
		if (wrote > 0)
			sent += (size_t)wrote;
		else if (errno == EAGAIN)
			err = -ETIMEDOUT;
		else if (errno != EINTR)
			err = errno == ECONNRESET ? -EPIPE : -errno;
	}
	free(line);
	return err;
}

/* One line of the daemon: an answer ends the call (1), progress does not (0). */
static int line_take(const struct control_call *call, const char *line, size_t length,
		     json_t **reply)
{
	json_t *message = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(message)) {
		json_decref(message);
		return -EPROTO;
	}
	if (json_object_get(message, "ok")) {
		*reply = message;
		return 1;
	}
	if (call->progress && json_object_get(message, "progress"))
		call->progress(call->context, json_object_get(message, "progress"));
	json_decref(message);
	return 0;
}

static int wait_readable(int fd, const struct control_call *call, int64_t deadline_ms)
{
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};
	int64_t left = call->timeout_ms < 0 ? -1 : deadline_ms - clock_ms();
	if (call->timeout_ms >= 0 && left < 0)
		left = 0;
	int ready = poll(&pollfd, 1, left > INT32_MAX ? INT32_MAX : (int)left);
	if (ready < 0)
		return errno == EINTR ? 0 : -errno;
	return ready ? 0 : -ETIMEDOUT;
}

static int reply_receive(int fd, const struct control_call *call, char *buffer, json_t **reply)
{
	int64_t deadline_ms = clock_ms() + call->timeout_ms;
	size_t used = 0;
	for (;;) {
		int err = wait_readable(fd, call, deadline_ms);
		if (err)
			return err;
		ssize_t got = recv(fd, buffer + used, CONTROL_REPLY_BYTES_MAX - used, MSG_DONTWAIT);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (got <= 0)
			return -EPIPE;
		used += (size_t)got;
		for (char *end; (end = memchr(buffer, '\n', used));) {
			size_t length = (size_t)(end - buffer);
			err = line_take(call, buffer, length, reply);
			if (err)
				return err < 0 ? err : 0;
			used -= length + 1;
			memmove(buffer, end + 1, used);
		}
		if (used == CONTROL_REPLY_BYTES_MAX)
			return -EPROTO;
	}
}

int control_call(const struct control_call *call, json_t **reply)
{
	*reply = NULL;
	int fd = connect_to(call->path, call->timeout_ms);
	if (fd < 0)
		return fd;
	char *buffer = malloc(CONTROL_REPLY_BYTES_MAX);
	int err = buffer ? request_send(fd, call->request) : -ENOMEM;
	/* A daemon that has no place for us says so and hangs up, maybe before we have asked. */
	if (!err)
		err = reply_receive(fd, call, buffer, reply);
	else if (err == -EPIPE && reply_receive(fd, call, buffer, reply) == 0)
		err = 0;
	free(buffer);
	close(fd);
	return err;
}
