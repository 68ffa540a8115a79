/* SPDX-License-Identifier: Apache-2.0 */
/* The lane with a core and ports made of glass: what reaches the core, what leaves for which port,
 * and what the control thread gets. The ring is real. The fakes are touched by the lane's thread
 * while it runs, and looked at after it was joined. */
#include "drive/lane.h"

#include "core/wire.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

enum { PORTS = 2, LOG = 512 };

/* ---- the core of glass ---- */

struct core {
	uint8_t packet_type[LOG];
	unsigned packets, sessions, sent, requests, commands, most_requests;
	struct session_keys session;
	const struct session_keys *session_slot;
	struct cell *to_send[8];
	unsigned to_send_count;
	unsigned room;
	bool keeps_requests;
	bool wants_session;
	bool notes;
	ns_t deadline_in;
	ns_t now;
};

void core_step(struct core *core, const struct events *events, struct effects *effects)
{
	core->now = effects->now;
	for (unsigned i = 0; i < events->packet_count; i++)
		core->packet_type[core->packets++ % LOG] = events->packet[i].datagram[1];
	core->sent += events->sent_count;
	core->requests += events->request_count;
	if (events->request_count > core->most_requests)
		core->most_requests = events->request_count;
	for (unsigned i = 0; i < events->request_count && !core->keeps_requests; i++)
		request_list_push(&effects->replies, events->request[i]);
	for (unsigned i = 0; i < events->command_count; i++) {
		struct command *command = events->command[i];
		command->result = -(int32_t)++core->commands;
		command->next = NULL;
		*effects->results_tail = command;
		effects->results_tail = &command->next;
	}
	if (events->session) {
		core->sessions++;
		core->session = *events->session;
		core->session_slot = events->session;
		core->wants_session = false;
	}
	for (unsigned i = 0; i < core->to_send_count; i++)
		cell_list_push(&effects->packets, core->to_send[i]);
	core->to_send_count = 0;
	if (core->notes)
		effects_note(effects, NOTE_WARNING, "vol0", "seen", NULL);
	core->notes = false;
}

ns_t core_deadline(const struct core *core)
{
	return core->deadline_in == NS_NEVER ? NS_NEVER : core->now + core->deadline_in;
}

unsigned core_request_room(const struct core *core)
{
	return core->room;
}

bool core_wants_session(const struct core *core)
{
	return core->wants_session;
}

bool core_takes_datagram(const uint8_t *datagram, uint32_t length)
{
	return length > 2 && datagram[1] >= WIRE_TYPE_FIRST;
}

/* ---- ports of glass ---- */

struct port {
	uint8_t path;
	struct {
		uint8_t bytes[2000];
		uint32_t length;
	} in[80];
	unsigned in_count, in_next;
	ns_t keepalive_every, keepalive_at;
	struct packet given[32];
	struct {
		uint8_t bytes[64];
		uint32_t length;
	} out[LOG];
	unsigned out_count;
	struct cell_list back;
};

unsigned port_receive(struct port *port, struct packet *packet, unsigned max, ns_t now)
{
	unsigned count = 0;
	static const uint8_t keepalive[] = {1, WIRE_ALIVE, 0};
	if (port->keepalive_every && now >= port->keepalive_at) {
		port->keepalive_at = now + port->keepalive_every;
		packet[count++] = (struct packet){.datagram = (uint8_t *)keepalive,
						  .length = sizeof keepalive,
						  .path = port->path};
	}
	while (count < max && port->in_next < port->in_count) {
		packet[count++] = (struct packet){
			.datagram = port->in[port->in_next].bytes,
			.length = port->in[port->in_next].length,
			.path = port->path,
		};
		port->in_next++;
	}
	return count;
}

void port_send(struct port *port, struct cell *const *cell, unsigned count, ns_t now)
{
	for (unsigned i = 0; i < count; i++) {
		must(port->out_count < LOG, "the log is long enough");
		memcpy(port->out[port->out_count].bytes, cell[i]->datagram, 64);
		port->out[port->out_count++].length = cell[i]->length;
		cell_list_push(&port->back, cell[i]);
	}
}

unsigned port_sent(struct port *port, struct cell **cell, unsigned max)
{
	unsigned count = 0;
	while (count < max && port->back.head)
		cell[count++] = cell_list_pop(&port->back);
	return count;
}

ns_t port_turn(struct port *port, ns_t now)
{
	return NS_NEVER;
}

void port_stats(const struct port *port, struct port_stats *stats)
{
	*stats = (struct port_stats){.tx_packets = port->out_count};
}

uint32_t port_datagram_bytes_max(const struct port *port)
{
	return port->path == 0 ? 8972 : 1000;
}

/* ---- a front of glass ---- */

struct front {
	struct request request[100];
	unsigned taken, answered, turns;
};

static unsigned front_take(void *context, struct request **request, unsigned max)
{
	struct front *front = context;
	unsigned count = 0;
	while (count < max && front->taken < ARRAY_COUNT(front->request))
		request[count++] = &front->request[front->taken++];
	return count;
}

static void front_answer(void *context, struct request *request)
{
	struct front *front = context;
	assert_ptr_equal(&front->request[front->answered], request);
	front->answered++;
}

static void front_turn(void *context)
{
	((struct front *)context)->turns++;
}

/* ---- the house around them ---- */

static struct core core;
static struct port port[PORTS];
static struct front front;
static struct disk *disk;
static struct lane *lane;
static pthread_t thread;
static int returned;
static _Atomic uint64_t cpu_ns;

static void *run(void *unused)
{
	struct timespec time;
	returned = lane_run(lane);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	cpu_ns = (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
	return NULL;
}

static int setup(void **state)
{
	core = (struct core){.deadline_in = NS_NEVER};
	memset(port, 0, sizeof port);
	memset(&front, 0, sizeof front);
	port[1].path = 1;
	disk = disk_new(8);
	assert_non_null(disk);
	const struct lane_config config = {
		.core = &core,
		.disk = disk,
		.port = {&port[0], &port[1]},
		.port_count = PORTS,
		.front = {.context = &front,
			  .take = front_take,
			  .answer = front_answer,
			  .turn = front_turn},
	};
	lane = lane_new(&config);
	assert_non_null(lane);
	return 0;
}

static int teardown(void **state)
{
	lane_free(lane);
	disk_free(disk);
	return 0;
}

static void start(void)
{
	assert_int_equal(0, pthread_create(&thread, NULL, run, NULL));
}

static void stop(void)
{
	lane_stop(lane);
	pthread_join(thread, NULL);
	assert_int_equal(0, returned);
}

/* Until the lane says that there is something to fetch. */
static bool hears_within(int ms)
{
	struct pollfd wait = {.fd = lane_descriptor(lane), .events = POLLIN};
	if (poll(&wait, 1, ms) != 1)
		return false;
	lane_heard(lane);
	return true;
}

static void arrives(unsigned at, uint8_t type, uint32_t length)
{
	unsigned n = port[at].in_count++;
	must(n < ARRAY_COUNT(port[at].in), "few datagrams arrive");
	memset(port[at].in[n].bytes, (int)n, sizeof port[at].in[n].bytes);
	port[at].in[n].bytes[0] = WIRE_VERSION;
	port[at].in[n].bytes[1] = type;
	port[at].in[n].length = length;
}

static void datagrams_go_where_they_belong(void **state)
{
	static const struct {
		uint8_t type;
		uint32_t length;
		enum { CORE, CONTROL, NOWHERE } to;
	} row[] = {
		/* 0 */ {16, 100, CORE},
		/* 1 */ {1, 1200, CONTROL},
		/* 2 */ {15, 2, CONTROL},
		/* 3 */ {255, 8, CORE},
		/* 4: no type */ {1, 1, NOWHERE},
		/* 5 */ {1, 0, NOWHERE},
		/* 6: core refuses it */ {16, 2, NOWHERE},
		/* 7: too long */ {3, 1281, NOWHERE},
		/* 8 */ {3, 1280, CONTROL},
	};
	unsigned want[3] = {0};
	for (unsigned i = 0; i < ARRAY_COUNT(row); i++) {
		arrives(i % 2, row[i].type, row[i].length);
		want[row[i].to]++;
	}
	start();
	unsigned got = 0;
	struct lane_datagram datagram;
	while (got < want[CONTROL]) {
		assert_true(hears_within(2000));
		while (lane_control_receive(lane, &datagram)) {
			assert_int_equal(WIRE_VERSION, datagram.bytes[0]);
			assert_true(datagram.bytes[1] < WIRE_TYPE_FIRST);
			got++;
		}
	}
	usleep(20000);
	stop();
	struct lane_counters counters;
	lane_counters(lane, &counters);
	assert_int_equal(want[CONTROL], got);
	assert_int_equal(want[CORE], core.packets);
	assert_int_equal(want[NOWHERE], counters.control_dropped);
	assert_int_equal(16, core.packet_type[0]);
}

static void more_than_a_burst_takes_more_turns(void **state)
{
	for (unsigned i = 0; i < 80; i++)
		arrives(0, 16, 100);
	start();
	usleep(50000);
	stop();
	struct lane_counters counters;
	lane_counters(lane, &counters);
	assert_int_equal(80, core.packets);
	assert_int_equal(80, counters.packets);
	assert_true(counters.busy_turns >= 3);
}

static void commands_come_back_with_results(void **state)
{
	static struct command command[LANE_COMMANDS_MAX + 1];
	for (unsigned i = 0; i < LANE_COMMANDS_MAX; i++)
		assert_true(lane_command(lane, &command[i]));
	assert_false(lane_command(lane, &command[LANE_COMMANDS_MAX]));
	assert_null(lane_results(lane));
	start();
	for (unsigned i = 0; i < LANE_COMMANDS_MAX;) {
		assert_true(hears_within(2000));
		struct command *result;
		while ((result = lane_results(lane))) {
			assert_ptr_equal(&command[i], result);
			assert_int_equal(-(int)++i, result->result);
		}
	}
	/* A lane at rest hears one at once. */
	usleep(100000);
	assert_true(lane_command(lane, &command[0]));
	/* The word of the last one may come after it was taken. */
	struct command *result = NULL;
	while (!result) {
		assert_true(hears_within(2000));
		result = lane_results(lane);
	}
	assert_ptr_equal(&command[0], result);
	stop();
}

static void a_session_is_taken_once_and_wiped(void **state)
{
	struct session_keys keys = {.id_in = 7, .secret_in = "secret", .initiator = true};
	static const struct session_keys none;
	core.wants_session = true;
	core.notes = true;
	start();
	assert_true(hears_within(2000));
	assert_true(lane_wants_session(lane));
	assert_true(lane_session(lane, &keys));
	for (unsigned i = 0; i < 100 && lane_wants_session(lane); i++)
		hears_within(50);
	assert_false(lane_wants_session(lane));
	usleep(20000);
	stop();
	assert_int_equal(1, core.sessions);
	assert_memory_equal(&keys, &core.session, sizeof keys);
	assert_memory_equal(&none, core.session_slot, sizeof none);
	struct note note;
	assert_true(lane_notes(lane, &note));
	assert_string_equal("seen", note.text);
	assert_false(lane_notes(lane, &note));
}

static void the_handshake_is_sent_on_its_path(void **state)
{
	enum { COUNT = 100 }; /* more than there are cells */
	struct lane_datagram datagram = {.length = 600};
	unsigned sent = 0;
	start();
	while (sent < COUNT) {
		datagram.path = (uint8_t)(sent % 2);
		datagram.bytes[5] = (uint8_t)sent;
		if (lane_control_send(lane, &datagram))
			sent++;
		else
			usleep(1000);
	}
	datagram.path = 1;
	datagram.length = 1001; /* above what the path carries */
	while (!lane_control_send(lane, &datagram))
		usleep(1000);
	datagram.path = 2; /* is not there */
	while (!lane_control_send(lane, &datagram))
		usleep(1000);
	usleep(50000);
	stop();
	struct lane_counters counters;
	lane_counters(lane, &counters);
	assert_int_equal(COUNT, counters.control_out);
	assert_int_equal(2, counters.control_dropped);
	for (unsigned i = 0; i < COUNT; i++) {
		assert_int_equal(600, port[i % 2].out[i / 2].length);
		assert_int_equal(i, port[i % 2].out[i / 2].bytes[5]);
	}
	assert_int_equal(0, core.sent); /* these cells are not the core's */
}

static void cells_leave_by_path_and_come_back(void **state)
{
	static uint8_t memory[8][64];
	static struct cell cell[8];
	for (unsigned i = 0; i < 8; i++) {
		memory[i][0] = (uint8_t)i;
		cell[i] = (struct cell){.datagram = memory[i], .length = 64, .path = i % 3 == 0};
		core.to_send[core.to_send_count++] = &cell[i];
	}
	start();
	usleep(30000);
	stop();
	assert_int_equal(3, port[1].out_count);
	assert_int_equal(5, port[0].out_count);
	assert_int_equal(3, port[1].out[1].bytes[0]);
	assert_int_equal(8, core.sent);
}

static void requests_are_taken_as_the_core_has_room(void **state)
{
	core.room = 3;
	start();
	usleep(50000);
	stop();
	assert_int_equal(100, front.taken);
	assert_int_equal(100, front.answered);
	assert_int_equal(3, core.most_requests);
	assert_true(front.turns > 0);
}

static void a_lane_at_rest_sleeps(void **state)
{
	core.room = 0;
	start();
	usleep(500000);
	stop();
	struct lane_counters counters;
	lane_counters(lane, &counters);
	print_message("%llu turns, %llu naps, %llu us of CPU in 500 ms\n",
		      (unsigned long long)counters.turns, (unsigned long long)counters.naps,
		      (unsigned long long)(cpu_ns / 1000));
	assert_true(counters.naps > 50);
	assert_true(counters.turns < LANE_SPIN_TURNS + 2000);
	assert_true(cpu_ns < 500 * NS_PER_MS / 10);
}

/* A link at rest says so all the time: a lane that looked more often after each would never rest.
 */
static void keepalives_do_not_keep_a_lane_awake(void **state)
{
	core.room = 0;
	port[0].keepalive_every = port[1].keepalive_every = 10 * NS_PER_MS;
	start();
	usleep(500000);
	stop();
	struct lane_counters counters;
	lane_counters(lane, &counters);
	assert_true(counters.packets > 4);
	/* 250 of 2 ms, the few before them, and one for each keepalive at the most. */
	assert_true(counters.naps < 250 + 24 + 100 + 26);
}

static void the_cores_deadline_is_kept(void **state)
{
	core.deadline_in = 100 * NS_PER_US;
	start();
	usleep(300000);
	stop();
	struct lane_counters counters;
	lane_counters(lane, &counters);
	/* Naps of 100 us, and not of 2 ms: at least 500 of them, however loaded the machine. */
	assert_true(counters.naps > 500);
}

int main(void)
{
#define LANE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		LANE_TEST(datagrams_go_where_they_belong),
		LANE_TEST(more_than_a_burst_takes_more_turns),
		LANE_TEST(commands_come_back_with_results),
		LANE_TEST(a_session_is_taken_once_and_wiped),
		LANE_TEST(the_handshake_is_sent_on_its_path),
		LANE_TEST(cells_leave_by_path_and_come_back),
		LANE_TEST(requests_are_taken_as_the_core_has_room),
		LANE_TEST(a_lane_at_rest_sleeps),
		LANE_TEST(keepalives_do_not_keep_a_lane_awake),
		LANE_TEST(the_cores_deadline_is_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
