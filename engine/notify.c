/* SPDX-License-Identifier: Apache-2.0 */
/* One datagram per message to the socket that the service manager named. */
#include "notify.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The manager may be restarting or gone: that is no reason to stop, so nothing is returned. */
static void notify_send(const char *message)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof address.sun_path)
		return;
	memcpy(address.sun_path, path, strlen(path));
	if (path[0] == '@') /* the abstract name space */
		address.sun_path[0] = 0;
	socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	sendto(fd, message, strlen(message), MSG_NOSIGNAL, (struct sockaddr *)&address, length);
	close(fd);
}

void notify_ready(void)
{
	notify_send("READY=1");
}

void notify_stopping(void)
{
	notify_send("STOPPING=1");
}

void notify_watchdog(void)
{
	notify_send("WATCHDOG=1");
}

void notify_status(const char *format, ...)
{
	char message[256] = "STATUS=";
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(message + 7, sizeof message - 7, format, arguments);
	va_end(arguments);
	for (char *p = message + 7; *p; p++)
		if (*p == '\n') /* would begin another assignment */
			*p = ' ';
	notify_send(message);
}

ns_t notify_watchdog_interval(void)
{
	const char *interval = getenv("WATCHDOG_USEC"), *process = getenv("WATCHDOG_PID");
	if (!interval || (process && strtol(process, NULL, 10) != (long)getpid()))
		return NS_NEVER;
	unsigned long long allowed_us = strtoull(interval, NULL, 10);
	return allowed_us ? allowed_us * NS_PER_US / 2 : NS_NEVER;
}
