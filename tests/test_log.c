/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon says to the outside without being asked: log lines on stderr, and datagrams to
 * the service manager. */
#include "log.h"
#include "notify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

/* What write() leaves on stderr. */
static const char *logged(void (*write)(int stderr_now))
{
	static char text[2048];
	int saved = dup(STDERR_FILENO);
	FILE *file = tmpfile();
	assert_non_null(file);
	fflush(stderr);
	assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
	write(fileno(file));
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	close(saved);
	rewind(file);
	text[fread(text, 1, sizeof text - 1, file)] = 0;
	fclose(file);
	return text;
}

static void write_plain(int file)
{
	log_line(NOTE_WARNING, "vol0", "lost %d\nstores", 2);
}

static void write_note(int file)
{
	log_note(&(struct note){NOTE_INFO, NULL, "point %llu of %llu", {3, 4}});
}

static void write_journal(int file)
{
	struct stat stat;
	char stream[64];
	fstat(file, &stat);
	snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)stat.st_dev,
		 (unsigned long long)stat.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_line(NOTE_ERROR, NULL, "x");
	setenv("JOURNAL_STREAM", "1:2", 1); /* inherited, and no longer ours */
	log_line(NOTE_ERROR, NULL, "y");
	unsetenv("JOURNAL_STREAM");
}

static void write_long(int file)
{
	char text[5000];
	memset(text, 'a', sizeof text);
	text[sizeof text - 1] = 0;
	log_line(NOTE_INFO, "vol0", "%s", text);
}

/* "2025-01-31T12:00:00.123Z " */
enum { TIME_BYTES = 25 };
static const char *after_time(const char *line)
{
	static const char shape[] = "dddd-dd-ddTdd:dd:dd.dddZ ";
	for (unsigned i = 0; i < TIME_BYTES; i++)
		if (shape[i] == 'd')
			assert_in_range(line[i], '0', '9');
		else
			assert_int_equal(line[i], shape[i]);
	return line + TIME_BYTES;
}

static void lines_have_one_form(void **state)
{
	assert_string_equal(after_time(logged(write_plain)), "warning vol0: lost 2 stores\n");
	assert_string_equal(after_time(logged(write_note)), "info point 3 of 4\n");
	const char *both = logged(write_journal);
	assert_memory_equal(both, "<3>", 3);
	assert_string_equal(after_time(strchr(both, '\n') + 1), "error y\n");
	assert_int_equal(strlen(logged(write_long)), 1024);
}

static int notify_socket(char path[64])
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	snprintf(path, 64, "/tmp/casemate-notify-%d", getpid());
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	unlink(path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	return fd;
}

static const char *notified(int fd)
{
	static char text[512];
	ssize_t got = recv(fd, text, sizeof text - 1, 0);
	text[got > 0 ? got : 0] = 0;
	return text;
}

static void manager_is_told(void **state)
{
	char path[64];
	int fd = notify_socket(path);
	notify_ready(); /* nobody to tell */
	assert_string_equal(notified(fd), "");
	setenv("NOTIFY_SOCKET", path, 1);
	notify_ready();
	assert_string_equal(notified(fd), "READY=1");
	notify_status("vol0: %s\nREADY=1", "fine");
	assert_string_equal(notified(fd), "STATUS=vol0: fine READY=1");
	notify_watchdog();
	assert_string_equal(notified(fd), "WATCHDOG=1");
	notify_stopping();
	assert_string_equal(notified(fd), "STOPPING=1");
	close(fd);
	unlink(path);
	notify_ready(); /* gone: no harm */
	unsetenv("NOTIFY_SOCKET");
}

static void watchdog_interval_is_halved(void **state)
{
	char own[16];
	snprintf(own, sizeof own, "%d", getpid());
	assert_true(notify_watchdog_interval() == NS_NEVER);
	setenv("WATCHDOG_USEC", "30000000", 1);
	assert_int_equal(notify_watchdog_interval(), 15 * NS_PER_S);
	setenv("WATCHDOG_PID", own, 1);
	assert_int_equal(notify_watchdog_interval(), 15 * NS_PER_S);
	setenv("WATCHDOG_PID", "1", 1);
	assert_true(notify_watchdog_interval() == NS_NEVER);
	unsetenv("WATCHDOG_PID");
	unsetenv("WATCHDOG_USEC");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_have_one_form),
		cmocka_unit_test(manager_is_told),
		cmocka_unit_test(watchdog_interval_is_halved),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
