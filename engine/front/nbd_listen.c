/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets, Unix and TCP. Socket buffers of 4 MiB are worth a quarter of the throughput
 * of a client on the same machine. */
#include "nbd_listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 64, SOCKET_BUFFER_BYTES = 4 << 20 };

static int close_with(int descriptor, int result)
{
	close(descriptor);
	return result;
}

/* Whether the path is free to be bound: 0, or why not. */
static int unix_path_clear(const struct sockaddr_un *address)
{
	struct stat stat;

	if (lstat(address->sun_path, &stat) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(stat.st_mode))
		return -EEXIST;
	int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe < 0)
		return -errno;
	int result = connect(probe, (const struct sockaddr *)address, sizeof *address);
	int why = result < 0 ? errno : 0;
	close(probe);
	if (why != ECONNREFUSED)
		return -EADDRINUSE;
	return unlink(address->sun_path) < 0 ? -errno : 0;
}

int nbd_listen_unix(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int result;

	if (strlen(path) >= sizeof address.sun_path)
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path));
	result = unix_path_clear(&address);
	if (result < 0)
		return result;
	int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (descriptor < 0)
		return -errno;
	if (bind(descriptor, (const struct sockaddr *)&address, sizeof address) < 0 ||
	    listen(descriptor, BACKLOG) < 0)
		return close_with(descriptor, -errno);
	return descriptor;
}

static int listen_address(const struct addrinfo *info)
{
	int on = 1;
	int descriptor = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (descriptor < 0)
		return -errno;
	setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	/* each address has a socket of its own */
	if (info->ai_family == AF_INET6)
		setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
	/* before the connection: the window scale is settled at its beginning */
	nbd_socket_tune(descriptor);
	if (bind(descriptor, info->ai_addr, info->ai_addrlen) < 0 ||
	    listen(descriptor, BACKLOG) < 0)
		return close_with(descriptor, -errno);
	return descriptor;
}

int nbd_listen_tcp(const char *host, uint16_t port, int *descriptor, unsigned max)
{
	const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
				       .ai_socktype = SOCK_STREAM};
	struct addrinfo *list;
	char service[8];
	unsigned count = 0;
	int result = -EADDRNOTAVAIL;

	snprintf(service, sizeof service, "%u", port);
	if (getaddrinfo(host, service, &hints, &list) != 0)
		return -EADDRNOTAVAIL;
	for (const struct addrinfo *info = list; info && count < max; info = info->ai_next) {
		result = listen_address(info);
		/* a name may have an address of a family that this machine does without */
		if (result == -EAFNOSUPPORT || result == -EADDRNOTAVAIL)
			continue;
		if (result < 0)
			break;
		descriptor[count++] = result;
	}
	freeaddrinfo(list);
	if (result < 0 && result != -EAFNOSUPPORT && result != -EADDRNOTAVAIL)
		while (count > 0)
			close(descriptor[--count]);
	return count > 0 ? (int)count : result;
}

void nbd_socket_tune(int descriptor)
{
	static const int bytes = SOCKET_BUFFER_BYTES, on = 1;

	/* FORCE needs a capability; without it the system's limit holds. On TCP it would switch off
	 * the kernel's own tuning of the window only for less. */
	if (setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) < 0)
		setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
	if (setsockopt(descriptor, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) < 0)
		setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
	/* Both fail on a Unix socket, which has no use for them. */
	setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}
