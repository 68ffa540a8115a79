/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: a server turned by hand against raw clients (what must not hurt it), and in
 * a thread against the real client (what the command sees). */
#include "control.h"
#include "control_client.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

enum { TOO_LONG_BYTES = 4 << 20 };

struct fixture {
	char path[64];
	struct control *control;
	struct control_client *later; /* the request answered by hand */
	unsigned handled;
	int stop[2];
};

/* echo: args back; fail: an error; later: kept; big: a long answer; slow: progress first. */
static void handle(void *context, const char *verb, const json_t *args,
		   struct control_client *client)
{
	struct fixture *fixture = context;
	fixture->handled++;
	if (strcmp(verb, "later") == 0) {
		fixture->later = client;
	} else if (strcmp(verb, "fail") == 0) {
		control_reply_error(client, 7, "no %s", "luck");
	} else if (strcmp(verb, "big") == 0) {
		json_int_t bytes = json_integer_value(json_object_get(args, "bytes"));
		char *text = malloc((size_t)bytes + 1);
		memset(text, 'x', (size_t)bytes);
		text[bytes] = 0;
		control_reply(client, json_pack("{s:s}", "text", text));
		free(text);
	} else if (strcmp(verb, "slow") == 0) {
		for (int i = 0; i < 3; i++)
			control_progress(client, json_integer(i));
		control_reply(client, json_object());
	} else {
		control_reply(client, json_pack("{s:O}", "args", args));
	}
}

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof *fixture);
	snprintf(fixture->path, sizeof fixture->path, "/tmp/casemate-control-%d", getpid());
	fixture->control = control_new(fixture->path, handle, fixture);
	assert_non_null(fixture->control);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;
	control_free(fixture->control);
	assert_int_equal(access(fixture->path, F_OK), -1);
	free(fixture);
	return 0;
}

/* Turns until nothing is left to do. */
static void turn(struct fixture *fixture)
{
	struct pollfd fds[CONTROL_POLLFDS_MAX];
	for (unsigned i = 0; i < 1000; i++) {
		unsigned count = control_pollfds(fixture->control, fds);
		if (poll(fds, count, 0) <= 0)
			return;
		control_turn(fixture->control, fds, count);
	}
	fail_msg("the server never comes to rest");
}

static int raw_connect(const struct fixture *fixture)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s", fixture->path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	return fd;
}

static void raw_send(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* What has come, as text; "" nothing yet, "closed" when the server has hung up. */
static const char *raw_receive(int fd)
{
	static char text[8192];
	ssize_t got = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
	if (got == 0)
		return "closed";
	text[got > 0 ? got : 0] = 0;
	return text;
}

static void lines_are_answered(void **state)
{
	static const struct {
		const char *line, *answer;
	} rows[] = {
		/* 1 */ {"{\"verb\":\"echo\",\"args\":{\"a\":1}}\n",
			 "{\"args\":{\"a\":1},\"ok\":true}\n"},
		{"{\"verb\":\"echo\"}\n", "{\"args\":{},\"ok\":true}\n"},
		{"{\"verb\":\"fail\"}\n", "{\"ok\":false,\"error\":\"no luck\",\"errno\":7}\n"},
		{"{\"verb\":\"slow\"}\n",
		 "{\"progress\":0}\n{\"progress\":1}\n{\"progress\":2}\n{\"ok\":true}\n"},
		/* 5 */
		{"{\"verb\":1}\n", "{\"ok\":false,\"error\":\"a request is an object with a "
				   "\\\"verb\\\"\",\"errno\":22}\n"},
		{"[]\n", "{\"ok\":false,\"error\":\"a request is an object with a \\\"verb\\\"\","
			 "\"errno\":22}\n"},
		{"{\"verb\":\"echo\",\"args\":[]}\n",
		 "{\"ok\":false,\"error\":\"\\\"args\\\" must be an object\",\"errno\":22}\n"},
		{"{\"verb\":\n", NULL},
		{"\n", NULL},
		/* 10 */ {"{\"verb\":\"a\",\"verb\":\"b\"}\n", NULL},
		{"\xff\xfe\n", NULL},
		{"{\"verb\":\"echo\"}\n{\"verb\":\"fail\"}\n",
		 "{\"args\":{},\"ok\":true}\n{\"ok\":false,\"error\":\"no luck\",\"errno\":7}\n"},
	};
	struct fixture *fixture = *state;
	int fd = raw_connect(fixture); /* one connection: no bad line spoils the next */
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		raw_send(fd, rows[i].line);
		turn(fixture);
		const char *answer = raw_receive(fd);
		if (rows[i].answer)
			assert_string_equal(answer, rows[i].answer);
		else
			assert_non_null(strstr(answer, "\"error\":\"not a line of JSON"));
	}
	close(fd);
}

static void line_in_pieces(void **state)
{
	struct fixture *fixture = *state;
	int fd = raw_connect(fixture);
	for (const char *p = "{\"verb\":\"echo\"}"; *p; p++) {
		raw_send(fd, (char[]){*p, 0});
		turn(fixture);
		assert_string_equal(raw_receive(fd), "");
	}
	raw_send(fd, "\n");
	turn(fixture);
	assert_string_equal(raw_receive(fd), "{\"args\":{},\"ok\":true}\n");
	close(fd);
}

static void oversized_line_is_refused(void **state)
{
	struct fixture *fixture = *state;
	int fd = raw_connect(fixture);
	char piece[1025];
	memset(piece, ' ', 1024);
	piece[1024] = 0;
	for (unsigned i = 0; i < 64; i++) {
		raw_send(fd, piece);
		turn(fixture);
	}
	assert_string_equal(
		raw_receive(fd),
		"{\"ok\":false,\"error\":\"a line is longer than 64 KiB\",\"errno\":90}\n");
	assert_string_equal(raw_receive(fd), "closed");
	assert_int_equal(fixture->handled, 0);
	close(fd);
}

/* A client that asks and never reads holds up nobody, and its own requests only. */
static void slow_client_costs_nothing(void **state)
{
	struct fixture *fixture = *state;
	int slow = raw_connect(fixture), quick = raw_connect(fixture);
	for (unsigned i = 0; i < 20; i++)
		raw_send(slow, "{\"verb\":\"big\",\"args\":{\"bytes\":1000000}}\n");
	turn(fixture);
	raw_send(quick, "{\"verb\":\"echo\"}\n");
	turn(fixture);
	assert_string_equal(raw_receive(quick), "{\"args\":{},\"ok\":true}\n");
	assert_int_equal(fixture->handled, 2); /* the other 19 wait */
	close(slow);
	turn(fixture);
	close(quick);
	turn(fixture);
}

static void answer_has_a_bound(void **state)
{
	struct fixture *fixture = *state;
	int fd = raw_connect(fixture);
	raw_send(fd, "{\"verb\":\"big\",\"args\":{\"bytes\":4194304}}\n");
	turn(fixture);
	assert_string_equal(raw_receive(fd),
			    "{\"ok\":false,\"error\":\"the answer is too long; ask "
			    "for less\",\"errno\":90}\n");
	close(fd);
}

static void answers_may_come_later(void **state)
{
	struct fixture *fixture = *state;
	int fd = raw_connect(fixture);
	raw_send(fd, "{\"verb\":\"later\"}\n{\"verb\":\"echo\"}\n");
	turn(fixture);
	assert_string_equal(raw_receive(fd), "");
	assert_int_equal(fixture->handled, 1); /* the second one waits for the first */
	assert_false(control_client_gone(fixture->later));
	assert_int_equal(control_client_uid(fixture->later), getuid());
	control_progress(fixture->later, json_string("half"));
	turn(fixture);
	assert_string_equal(raw_receive(fd), "{\"progress\":\"half\"}\n");
	control_reply(fixture->later, json_object());
	turn(fixture);
	assert_string_equal(raw_receive(fd), "{\"ok\":true}\n{\"args\":{},\"ok\":true}\n");
	close(fd);
}

static void token_outlives_its_client(void **state)
{
	struct fixture *fixture = *state;
	int fd = raw_connect(fixture);
	raw_send(fd, "{\"verb\":\"later\"}\n");
	turn(fixture);
	close(fd);
	turn(fixture);
	assert_true(control_client_gone(fixture->later));
	control_progress(fixture->later, json_integer(1));
	control_reply(fixture->later, json_object());
	turn(fixture);
	fd = raw_connect(fixture);
	raw_send(fd, "{\"verb\":\"echo\"}\n");
	turn(fixture);
	assert_string_equal(raw_receive(fd), "{\"args\":{},\"ok\":true}\n");
	close(fd);
}

/* "echo ... | nc -N": the request's side is closed before the answer. */
static void half_closed_client_is_answered(void **state)
{
	struct fixture *fixture = *state;
	int fd = raw_connect(fixture);
	raw_send(fd, "{\"verb\":\"later\"}\n{\"verb\":\"echo\"}\n");
	shutdown(fd, SHUT_WR);
	turn(fixture);
	assert_false(control_client_gone(fixture->later));
	control_reply(fixture->later, json_object());
	turn(fixture);
	assert_string_equal(raw_receive(fd), "{\"ok\":true}\n{\"args\":{},\"ok\":true}\n");
	assert_string_equal(raw_receive(fd), "closed");
	close(fd);
}

static void idle_client_makes_room(void **state)
{
	struct fixture *fixture = *state;
	int fd[CONTROL_CLIENTS_MAX + 1];
	for (unsigned i = 0; i <= CONTROL_CLIENTS_MAX; i++) {
		fd[i] = raw_connect(fixture);
		turn(fixture);
	}
	assert_string_equal(raw_receive(fd[0]), "closed");
	raw_send(fd[CONTROL_CLIENTS_MAX], "{\"verb\":\"echo\"}\n");
	turn(fixture);
	assert_string_equal(raw_receive(fd[CONTROL_CLIENTS_MAX]), "{\"args\":{},\"ok\":true}\n");
	for (unsigned i = 0; i <= CONTROL_CLIENTS_MAX; i++)
		close(fd[i]);
}

static void open_requests_keep_their_slots(void **state)
{
	struct fixture *fixture = *state;
	int fd[CONTROL_CLIENTS_MAX], one_more;
	struct control_client *token[CONTROL_CLIENTS_MAX];
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		fd[i] = raw_connect(fixture);
		raw_send(fd[i], "{\"verb\":\"later\"}\n");
		turn(fixture);
		token[i] = fixture->later;
	}
	one_more = raw_connect(fixture);
	turn(fixture);
	assert_non_null(strstr(raw_receive(one_more), "\"ok\":false"));
	assert_string_equal(raw_receive(one_more), "closed");
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		control_reply(token[i], json_object());
		turn(fixture);
		assert_string_equal(raw_receive(fd[i]), "{\"ok\":true}\n");
		close(fd[i]);
	}
	close(one_more);
}

static void socket_is_owned_once(void **state)
{
	struct fixture *fixture = *state;
	struct stat stat_of;
	assert_int_equal(stat(fixture->path, &stat_of), 0);
	assert_int_equal(stat_of.st_mode & 0777, 0660);
	assert_null(control_new(fixture->path, handle, fixture));
	assert_int_equal(errno, EADDRINUSE);

	/* A socket left by a process that was killed is replaced. */
	char dead[80];
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(dead, sizeof dead, "%s-dead", fixture->path);
	snprintf(address.sun_path, sizeof address.sun_path, "%s", dead);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	close(fd);
	struct control *control = control_new(dead, handle, fixture);
	assert_non_null(control);
	control_free(control);

	char too_long[200];
	memset(too_long, 'x', sizeof too_long);
	too_long[sizeof too_long - 1] = 0;
	assert_null(control_new(too_long, handle, fixture));
	assert_int_equal(errno, ENAMETOOLONG);
}

/* A file that is no socket is somebody's: a key, say. It is neither replaced nor removed. */
static void files_are_left_alone(void **state)
{
	struct fixture *fixture = *state;
	char file[80], link_to[80];
	snprintf(file, sizeof file, "%s-file", fixture->path);
	snprintf(link_to, sizeof link_to, "%s-link", fixture->path);
	FILE *made = fopen(file, "w");
	assert_non_null(made);
	fclose(made);
	assert_null(control_new(file, handle, fixture));
	assert_int_equal(errno, EEXIST);
	assert_int_equal(access(file, F_OK), 0);
	assert_int_equal(symlink(file, link_to), 0);
	assert_null(control_new(link_to, handle, fixture));
	assert_int_equal(errno, EEXIST);
	assert_int_equal(access(link_to, F_OK), 0);
	unlink(link_to);

	/* Put in the place of our socket while we run. */
	struct control *control = control_new(link_to, handle, fixture);
	assert_non_null(control);
	assert_int_equal(rename(file, link_to), 0);
	control_free(control);
	assert_int_equal(unlink(link_to), 0);
}

/* Out of descriptors the server comes to rest, and lets the one who waits in afterwards. */
static void descriptors_run_out(void **state)
{
	struct fixture *fixture = *state;
	struct rlimit limit, none;
	int fd = raw_connect(fixture), next = dup(fd);
	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	turn(fixture);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	raw_send(fd, "{\"verb\":\"echo\"}\n");
	const char *answer = "";
	for (unsigned i = 0; i < 6000 && !*answer; i++) {
		usleep(10000);
		turn(fixture);
		answer = raw_receive(fd);
	}
	assert_string_equal(answer, "{\"args\":{},\"ok\":true}\n");
	close(fd);
}

/* ---- the real client ---- */

static void *serve(void *context)
{
	struct fixture *fixture = context;
	struct pollfd fds[CONTROL_POLLFDS_MAX + 1];
	for (;;) {
		unsigned count = control_pollfds(fixture->control, fds);
		fds[count] = (struct pollfd){.fd = fixture->stop[0], .events = POLLIN};
		poll(fds, count + 1, -1);
		if (fds[count].revents)
			return NULL;
		control_turn(fixture->control, fds, count);
	}
}

static void count_progress(void *context, const json_t *progress)
{
	unsigned *count = context;
	assert_int_equal(json_integer_value(progress), *count);
	++*count;
}

/* All places are taken: the request, too long for the socket's buffer, cannot be sent to its end,
 * but what the server said before it hung up is told. */
static void busy_server_is_heard(void **state)
{
	struct fixture *fixture = *state;
	int fd[CONTROL_CLIENTS_MAX];
	struct control_client *token[CONTROL_CLIENTS_MAX];
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		fd[i] = raw_connect(fixture);
		assert_int_equal(control_open_count(fixture->control), i);
		raw_send(fd[i], "{\"verb\":\"later\"}\n");
		turn(fixture);
		token[i] = fixture->later;
	}
	char *text = malloc(TOO_LONG_BYTES + 1);
	memset(text, 'x', TOO_LONG_BYTES);
	text[TOO_LONG_BYTES] = 0;
	pthread_t thread;
	json_t *reply, *request = json_pack("{s:s, s:s}", "verb", "echo", "text", text);
	struct control_call control_args = {fixture->path, request, 60000, NULL, NULL};
	assert_int_equal(pipe(fixture->stop), 0);
	assert_int_equal(pthread_create(&thread, NULL, serve, fixture), 0);
	int err = control_call(&control_args, &reply);
	assert_int_equal(write(fixture->stop[1], "x", 1), 1);
	pthread_join(thread, NULL);
	assert_int_equal(err, 0);
	assert_string_equal(json_string_value(json_object_get(reply, "error")),
			    "all clients wait for answers; try again");
	json_decref(reply);
	json_decref(request);
	free(text);
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		control_reply(token[i], json_object());
		close(fd[i]);
	}
	close(fixture->stop[0]);
	close(fixture->stop[1]);
}

static int call(const struct fixture *fixture, const char *verb, int timeout_ms, json_t **reply,
		unsigned *progress)
{
	json_t *request = json_pack("{s:s, s:{s:i}}", "verb", verb, "args", "bytes", 3000000);
	struct control_call control_args = {fixture->path, request, timeout_ms, count_progress,
					    progress};
	int err = control_call(&control_args, reply);
	json_decref(request);
	return err;
}

static void command_is_served(void **state)
{
	struct fixture *fixture = *state;
	pthread_t thread;
	json_t *reply;
	unsigned progress = 0;
	assert_int_equal(pipe(fixture->stop), 0);
	assert_int_equal(pthread_create(&thread, NULL, serve, fixture), 0);

	int echoed = call(fixture, "echo", 5000, &reply, &progress);
	bool echo_ok = json_is_true(json_object_get(reply, "ok"));
	json_decref(reply);
	int slow = call(fixture, "slow", 5000, &reply, &progress);
	json_decref(reply);
	int big = call(fixture, "big", 5000, &reply, &progress);
	size_t big_bytes = json_string_length(json_object_get(reply, "text"));
	json_decref(reply);
	int late = call(fixture, "later", 50, &reply, &progress);

	assert_int_equal(write(fixture->stop[1], "x", 1), 1);
	pthread_join(thread, NULL);
	close(fixture->stop[0]);
	close(fixture->stop[1]);
	control_reply(fixture->later, json_object());
	assert_int_equal(echoed, 0);
	assert_true(echo_ok);
	assert_int_equal(slow, 0);
	assert_int_equal(progress, 3);
	assert_int_equal(big, 0);
	assert_int_equal(big_bytes, 3000000);
	assert_int_equal(late, -ETIMEDOUT);
	assert_null(reply);
}

/* The server hangs and its backlog is full: the timeout holds for the connection too. */
static void nobody_is_let_in(void **state)
{
	struct fixture *fixture = *state;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd[64], count = 0;
	json_t *reply;
	snprintf(address.sun_path, sizeof address.sun_path, "%s", fixture->path);
	for (;;) {
		assert_in_range(count, 0, 63);
		fd[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		if (connect(fd[count++], (struct sockaddr *)&address, sizeof address))
			break;
	}
	assert_int_equal(errno, EAGAIN);
	alarm(60); /* not for ever */
	assert_int_equal(call(fixture, "echo", 50, &reply, NULL), -ETIMEDOUT);
	alarm(0);
	assert_null(reply);
	while (count)
		close(fd[--count]);
}

static void nobody_answers(void **state)
{
	struct fixture *fixture = *state;
	struct fixture other = *fixture;
	json_t *reply;
	snprintf(other.path, sizeof other.path, "%.50s-none", fixture->path);
	assert_int_equal(call(&other, "echo", 100, &reply, NULL), -ENOENT);
	assert_null(reply);
}

#define control_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		control_test(lines_are_answered),
		control_test(line_in_pieces),
		control_test(oversized_line_is_refused),
		control_test(slow_client_costs_nothing),
		control_test(answer_has_a_bound),
		control_test(answers_may_come_later),
		control_test(token_outlives_its_client),
		control_test(half_closed_client_is_answered),
		control_test(idle_client_makes_room),
		control_test(open_requests_keep_their_slots),
		control_test(socket_is_owned_once),
		control_test(files_are_left_alone),
		control_test(descriptors_run_out),
		control_test(command_is_served),
		control_test(busy_server_is_heard),
		control_test(nobody_is_let_in),
		control_test(nobody_answers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
