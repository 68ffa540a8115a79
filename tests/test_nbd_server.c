/* SPDX-License-Identifier: Apache-2.0 */
/* The NBD server on a real ring and real sockets, in one thread: what happens when clients die,
 * stand still, are too many or want too much, and when exports and the server go away. */
#include "front/nbd_client.h"

#include "front/nbd_listen.h"
#include "nbd_script.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

enum { CONNECTIONS = 3, PAYLOAD_BYTES = 34 << 20, TICKS = 6 };

struct rig {
	struct io_uring ring;
	struct nbd_server *server;
	char path[108];
};

/* Turns until nothing has happened for a while. */
static void rig_turn(struct rig *rig)
{
	struct __kernel_timespec time = {.tv_nsec = 3000000};
	struct io_uring_cqe *cqe[64];

	for (unsigned quiet = 0; quiet < 2;) {
		nbd_server_turn(rig->server);
		io_uring_submit_and_wait_timeout(&rig->ring, cqe, 1, &time, NULL);
		unsigned count = io_uring_peek_batch_cqe(&rig->ring, cqe, ARRAY_COUNT(cqe));
		unsigned ours = 0;
		for (unsigned i = 0; i < count; i++) {
			if (!(cqe[i]->user_data & 1))
				continue; /* liburing's own timeout, on older kernels */
			ours++;
			nbd_server_completed(rig->server, cqe[i]->user_data, cqe[i]->res,
					     cqe[i]->flags);
		}
		io_uring_cq_advance(&rig->ring, count);
		quiet = ours ? 0 : quiet + 1;
	}
}

static struct rig *rig_new(void)
{
	static unsigned number;
	struct rig *rig = calloc(1, sizeof *rig);

	assert_non_null(rig);
	snprintf(rig->path, sizeof rig->path, "/tmp/casemate-test-nbd-%d-%u", getpid(), number++);
	assert_int_equal(io_uring_queue_init(32, &rig->ring, 0), 0);
	rig->server = nbd_server_new(&(struct nbd_server_config){
		.ring = &rig->ring, .connections = CONNECTIONS, .payload_bytes = PAYLOAD_BYTES});
	assert_non_null(rig->server);
	assert_int_equal(nbd_server_listen_unix(rig->server, rig->path), 0);
	nbd_server_set_export(rig->server, 0,
			      &(struct nbd_export){.name = "vol0", .size = 1 << 30, .ready = true});
	return rig;
}

static void rig_free(struct rig *rig)
{
	nbd_server_stop(rig->server);
	rig_turn(rig);
	assert_true(nbd_server_stopped(rig->server));
	assert_int_equal(nbd_server_figures(rig->server).payload_used, 0);
	nbd_server_free(rig->server);
	assert_int_equal(access(rig->path, F_OK), -1);
	io_uring_queue_exit(&rig->ring);
	free(rig);
}

static unsigned rig_open_count(const struct rig *rig)
{
	return nbd_server_figures(rig->server).connections;
}

static struct request *rig_take(struct rig *rig)
{
	struct request *request;

	rig_turn(rig);
	return nbd_server_take_requests(rig->server, &request, 1) ? request : NULL;
}

static void rig_answer(struct rig *rig, struct request *request, int result)
{
	request->result = result;
	nbd_server_answer(rig->server, request);
	rig_turn(rig);
}

/* ---- the client's side ---- */

static int client_connect(struct rig *rig)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int client = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	memcpy(address.sun_path, rig->path, strlen(rig->path));
	assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof address), 0);
	rig_turn(rig);
	return client;
}

static void client_say(struct rig *rig, int client, const char *script)
{
	uint8_t bytes[4096];
	size_t length = script_bytes(script, bytes);

	assert_int_equal(send(client, bytes, length, MSG_NOSIGNAL), length);
	rig_turn(rig);
}

static void client_expect(int client, const char *script)
{
	uint8_t bytes[8192];
	ssize_t length = recv(client, bytes, sizeof bytes, 0);

	if (!script_matches(script, bytes, length < 0 ? 0 : (size_t)length))
		fail_msg("%zd bytes came, not: %s", length, script);
}

static void client_expect_nothing(int client)
{
	uint8_t byte;

	assert_int_equal(recv(client, &byte, 1, 0), -1);
	assert_int_equal(errno, EAGAIN);
}

static void client_expect_end(int client)
{
	uint8_t byte;

	assert_int_equal(recv(client, &byte, 1, 0), 0);
	close(client);
}

/* A client that has chosen the export, all replies read. */
static int client_go(struct rig *rig)
{
	uint8_t bytes[1024];
	int client = client_connect(rig);

	client_say(rig, client, "d3 O d7 d10 d4 'vol0 w0");
	assert_true(recv(client, bytes, sizeof bytes, 0) > 18 + 20);
	return client;
}

/* ---- tests ---- */

static void a_read_and_a_goodbye(void **state)
{
	struct rig *rig = rig_new();
	int client = client_connect(rig);

	client_expect(client, "q0x4e42444d41474943 O w3");
	client_say(rig, client, "d3 O d7 d10 d4 'vol0 w0");
	client_expect(client, "R d7 d3 d12 w0 q0x40000000 w3437 R d7 d3 d14 w3 d1 d4096 d0x2000000 "
			      "R d7 d1 d0");
	client_say(rig, client, "Q w0 w0 q5 q1 d3");
	struct request *request = rig_take(rig);
	assert_non_null(request);
	memcpy(request->data, "abc", 3);
	rig_answer(rig, request, 0);
	client_expect(client, "S d0 q5 'abc");
	client_say(rig, client, "Q w0 w2 q0 q0 d0");
	client_expect_end(client);
	rig_turn(rig);
	assert_int_equal(rig_open_count(rig), 0);
	rig_free(rig);
}

static void a_client_that_dies_leaves_its_requests(void **state)
{
	struct rig *rig = rig_new();
	int client = client_go(rig);

	client_say(rig, client, "Q w0 w0 q1 q0 d65536 Q w0 w0 q2 q0 d65536 Q w0 w1 q3 q0 d9 'half");
	struct request *first = rig_take(rig), *second = rig_take(rig);
	close(client);
	rig_turn(rig);
	assert_int_equal(rig_open_count(rig), 1);
	memset(first->data, 1, first->length);
	rig_answer(rig, first, 0);
	assert_int_equal(rig_open_count(rig), 1);
	memset(second->data, 2, second->length);
	rig_answer(rig, second, -EIO);
	assert_int_equal(rig_open_count(rig), 0);
	assert_int_equal(nbd_server_figures(rig->server).payload_used, 0);
	rig_free(rig);
}

static void stop_answers_what_the_lane_has(void **state)
{
	struct rig *rig = rig_new();
	int client = client_go(rig);

	client_say(rig, client, "Q w0 w3 q1 q0 d0");
	struct request *taken = rig_take(rig);
	client_say(rig, client, "Q w0 w3 q2 q0 d0");
	nbd_server_stop(rig->server);
	rig_turn(rig);
	client_expect(client, "S d108 q2");
	assert_false(nbd_server_stopped(rig->server));
	rig_answer(rig, taken, 0);
	client_expect(client, "S d0 q1");
	client_expect_end(client);
	assert_true(nbd_server_stopped(rig->server));
	rig_free(rig);
}

static void an_export_goes_and_comes(void **state)
{
	struct rig *rig = rig_new();
	int client = client_go(rig);
	struct nbd_export export = {.name = "vol0", .size = 1 << 30, .ready = true};

	nbd_server_set_export(rig->server, 0, &export); /* the same: nothing happens */
	client_say(rig, client, "Q w0 w3 q1 q0 d0");
	export.ready = false;
	nbd_server_set_export(rig->server, 0, &export);
	rig_turn(rig);
	client_expect(client, "S d108 q1");
	client_expect_end(client);
	client = client_connect(rig);
	client_say(rig, client, "d3 O d7 d10 d4 'vol0 w0");
	client_expect(client, "q0x4e42444d41474943 O w3 R d7 e6 *");
	export.ready = export.read_only = true;
	nbd_server_set_export(rig->server, 0, &export);
	client_say(rig, client, "O d1 d4 'vol0");
	client_expect(client, "q0x40000000 w1295");
	client_say(rig, client, "Q w0 w1 q9 q0 d1 'x");
	client_expect(client, "S d1 q9");
	close(client);
	rig_turn(rig);
	rig_free(rig);
}

static void one_client_too_many_waits(void **state)
{
	struct rig *rig = rig_new();
	int client[CONNECTIONS + 2];

	for (unsigned i = 0; i < ARRAY_COUNT(client); i++)
		client[i] = client_connect(rig);
	assert_int_equal(rig_open_count(rig), CONNECTIONS);
	client_expect_nothing(client[CONNECTIONS]);
	close(client[0]);
	rig_turn(rig);
	client_expect(client[CONNECTIONS], "q0x4e42444d41474943 O w3");
	client_expect_nothing(client[CONNECTIONS + 1]);
	/* who says nothing while others wait is sent away in time */
	for (unsigned i = 0; i < TICKS; i++)
		nbd_client_tick(&rig->server->client[1]);
	rig_turn(rig);
	client_expect(client[CONNECTIONS + 1], "q0x4e42444d41474943 O w3");
	assert_int_equal(nbd_server_figures(rig->server).stalled, 1);
	for (unsigned i = 1; i < ARRAY_COUNT(client); i++)
		close(client[i]);
	rig_turn(rig);
	assert_int_equal(rig_open_count(rig), 0);
	rig_free(rig);
}

static void memory_is_served_in_order(void **state)
{
	struct rig *rig = rig_new();
	int first = client_go(rig), second = client_go(rig), third = client_go(rig);

	client_say(rig, first, "Q w0 w0 q1 q0 d0x2000000");
	struct request *large = rig_take(rig);
	assert_non_null(large);
	client_say(rig, second, "Q w0 w1 q2 q0 d0x2000000 'some");
	client_say(rig, third, "Q w0 w0 q3 q0 d4096");
	assert_null(rig_take(rig)); /* there is room for the third, but the second was first */
	assert_int_equal(nbd_server_figures(rig->server).waiting, 2);
	rig_answer(rig, large, -EIO);
	client_expect(first, "S d5 q1");
	struct request *small = rig_take(rig);
	assert_non_null(small);
	assert_int_equal(small->length, 4096);
	assert_int_equal(nbd_server_figures(rig->server).waiting, 0);
	/* the second says no more while the first waits: it is cut off */
	client_say(rig, first, "Q w0 w0 q4 q0 d0x2000000");
	assert_null(rig_take(rig));
	for (unsigned i = 0; i < TICKS; i++)
		nbd_client_tick(&rig->server->client[1]);
	large = rig_take(rig);
	assert_non_null(large);
	assert_int_equal(nbd_server_figures(rig->server).stalled, 1);
	rig_answer(rig, small, -EIO);
	rig_answer(rig, large, -EIO);
	close(first);
	close(second);
	close(third);
	rig_turn(rig);
	rig_free(rig);
}

static void tick(struct rig *rig)
{
	for (unsigned i = 0; i < CONNECTIONS; i++)
		nbd_client_tick(&rig->server->client[i]);
	rig_turn(rig);
}

/* Whoever sends a byte now and then holds 32 MiB for ever. */
static void a_trickle_is_no_progress(void **state)
{
	struct rig *rig = rig_new();
	int slow = client_go(rig), large = client_go(rig), small = client_go(rig);

	client_say(rig, slow, "Q w0 w1 q1 q0 d0x2000000 'begin");
	for (unsigned i = 0; i < 2 * TICKS; i++) {
		client_say(rig, slow, "'.");
		tick(rig);
	}
	assert_int_equal(rig_open_count(rig), 3); /* nobody needs what it holds */
	client_say(rig, large, "Q w0 w0 q2 q0 d0x2000000");
	client_say(rig, small, "Q w0 w0 q3 q0 d4096");
	for (unsigned i = 0; i < TICKS && rig_open_count(rig) == 3; i++) {
		client_say(rig, slow, "'.");
		tick(rig);
	}
	assert_int_equal(nbd_server_figures(rig->server).stalled, 1);
	for (unsigned i = 0; i < 2; i++)
		rig_answer(rig, rig_take(rig), -EIO);
	client_expect(large, "S d5 q2");
	client_expect(small, "S d5 q3");
	close(slow);
	close(large);
	close(small);
	rig_turn(rig);
	rig_free(rig);
}

/* 1 MB/s, a look every two seconds: slow, but on its way, though others wait. */
static void a_slow_reader_is_let_finish(void **state)
{
	enum { PER_TICK = 2000000 };
	struct rig *rig = rig_new();
	int slow = client_go(rig), other = client_go(rig);
	size_t whole = NBD_PAYLOAD_BYTES_MAX + 16, got = 0;
	uint8_t *bytes = malloc(PER_TICK);

	client_say(rig, slow, "Q w0 w0 q1 q0 d0x2000000");
	rig_answer(rig, rig_take(rig), 0);
	client_say(rig, other, "Q w0 w0 q2 q0 d0x2000000");
	assert_null(rig_take(rig));
	while (got < whole) {
		size_t now = 0;
		for (ssize_t length = 1; length > 0 && now < PER_TICK; rig_turn(rig)) {
			length = recv(slow, bytes, PER_TICK - now, 0);
			now += length > 0 ? (size_t)length : 0;
		}
		got += now;
		assert_true(now > 0);
		tick(rig);
	}
	assert_int_equal(got, whole);
	assert_int_equal(nbd_server_figures(rig->server).stalled, 0);
	rig_answer(rig, rig_take(rig), -EIO);
	client_expect(other, "S d5 q2");
	/* and one that reads at a tenth of that is not */
	client_say(rig, slow, "Q w0 w0 q1 q0 d0x2000000");
	rig_answer(rig, rig_take(rig), 0);
	client_say(rig, other, "Q w0 w0 q2 q0 d0x2000000");
	for (unsigned i = 0; i < 4 * TICKS && rig_open_count(rig) == 2; i++) {
		assert_true(recv(slow, bytes, PER_TICK / 10, 0) > 0);
		tick(rig);
	}
	assert_int_equal(nbd_server_figures(rig->server).stalled, 1);
	rig_answer(rig, rig_take(rig), -EIO);
	client_expect(other, "S d5 q2");
	close(slow);
	close(other);
	rig_turn(rig);
	free(bytes);
	rig_free(rig);
}

static void a_client_that_waits_may_die(void **state)
{
	struct rig *rig = rig_new();
	int first = client_go(rig), second = client_go(rig), third = client_go(rig);

	client_say(rig, first, "Q w0 w0 q1 q0 d0x2000000");
	struct request *large = rig_take(rig);
	client_say(rig, second, "Q w0 w0 q2 q0 d0x2000000");
	client_say(rig, third, "Q w0 w0 q3 q0 d4096");
	nbd_client_cut(&rig->server->client[1]);
	struct request *small = rig_take(rig);
	assert_non_null(small);
	rig_answer(rig, small, -EIO);
	client_expect(third, "S d5 q3");
	client_expect_end(second);
	rig_answer(rig, large, -EIO);
	close(first);
	close(third);
	rig_turn(rig);
	rig_free(rig);
}

static void large_requests_go_through(void **state)
{
	struct rig *rig = rig_new();
	int client = client_go(rig);
	size_t length = NBD_PAYLOAD_BYTES_MAX, at = 0;
	uint8_t *bytes = malloc(length), *back = malloc(length + 16);
	unsigned seed = 3;

	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)rand_r(&seed);
	client_say(rig, client, "Q w0 w1 q1 q77 d0x2000000");
	while (at < length) {
		ssize_t sent = send(client, bytes + at, length - at, MSG_NOSIGNAL);
		assert_true(sent > 0 || errno == EAGAIN);
		at += sent > 0 ? (size_t)sent : 0;
		rig_turn(rig);
	}
	struct request *request = rig_take(rig);
	assert_memory_equal(request->data, bytes, length);
	rig_answer(rig, request, 0);
	client_expect(client, "S d0 q1");
	client_say(rig, client, "Q w0 w0 q2 q4095 d0x2000000");
	request = rig_take(rig);
	memcpy(request->data, bytes, length);
	rig_answer(rig, request, 0);
	for (at = 0; at < length + 16; rig_turn(rig)) {
		ssize_t got = recv(client, back + at, length + 16 - at, 0);
		assert_true(got > 0 || errno == EAGAIN);
		at += got > 0 ? (size_t)got : 0;
	}
	assert_memory_equal(back + 16, bytes, length);
	close(client);
	rig_turn(rig);
	free(bytes);
	free(back);
	rig_free(rig);
}

static void socket_files(void **state)
{
	struct rig *rig = rig_new();
	char long_path[200];
	char path[120];

	assert_int_equal(nbd_server_listen_unix(rig->server, rig->path), -EADDRINUSE);
	memset(long_path, 'x', sizeof long_path - 1);
	long_path[sizeof long_path - 1] = 0;
	assert_int_equal(nbd_server_listen_unix(rig->server, long_path), -ENAMETOOLONG);
	assert_int_equal(nbd_server_listen_unix(rig->server, "/no/such/place"), -ENOENT);
	snprintf(path, sizeof path, "%s.file", rig->path);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(nbd_server_listen_unix(rig->server, path), -EEXIST);
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
	/* one that nobody serves any more */
	close(nbd_listen_unix(path));
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(nbd_server_listen_unix(rig->server, path), 0);
	rig_free(rig);
	assert_int_equal(access(path, F_OK), -1);
}

static void over_tcp(void **state)
{
	struct rig *rig = rig_new();
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof address;
	int client = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(nbd_server_listen_tcp(rig->server, "127.0.0.1", 0), 0);
	assert_int_equal(getsockname(rig->server->listener[1].descriptor,
				     (struct sockaddr *)&address, &length),
			 0);
	assert_int_equal(connect(client, (struct sockaddr *)&address, length), 0);
	rig_turn(rig);
	client_expect(client, "q0x4e42444d41474943 O w3");
	assert_int_equal(nbd_server_listen_tcp(rig->server, "127.0.0.1", ntohs(address.sin_port)),
			 -EADDRINUSE);
	assert_int_equal(nbd_server_listen_tcp(rig->server, "256.1.1.1", 1), -EADDRNOTAVAIL);
	close(client);
	rig_turn(rig);
	rig_free(rig);
}

static void figures_out_of_bounds(void **state)
{
	static const struct nbd_server_config config[] = {
		{.connections = NBD_CONNECTIONS_MAX + 1},
		{.payload_bytes = NBD_REQUEST_MEMORY_BYTES_MAX - 1},
		{.payload_bytes = 2 * GIB},
	};

	for (size_t i = 0; i < ARRAY_COUNT(config); i++) {
		assert_null(nbd_server_new(&config[i]));
		assert_int_equal(errno, EINVAL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_read_and_a_goodbye),
		cmocka_unit_test(a_client_that_dies_leaves_its_requests),
		cmocka_unit_test(stop_answers_what_the_lane_has),
		cmocka_unit_test(an_export_goes_and_comes),
		cmocka_unit_test(one_client_too_many_waits),
		cmocka_unit_test(memory_is_served_in_order),
		cmocka_unit_test(a_trickle_is_no_progress),
		cmocka_unit_test(a_slow_reader_is_let_finish),
		cmocka_unit_test(a_client_that_waits_may_die),
		cmocka_unit_test(large_requests_go_through),
		cmocka_unit_test(socket_files),
		cmocka_unit_test(over_tcp),
		cmocka_unit_test(figures_out_of_bounds),
	};
	struct io_uring ring;

	if (io_uring_queue_init(4, &ring, 0) < 0)
		return 77; /* no io_uring here */
	io_uring_queue_exit(&ring);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
