/* SPDX-License-Identifier: Apache-2.0 */
/* The loop of a lane. A turn collects what happened, hands it to the core in one step, and carries
 * out what the core wants; each part is bounded, so no side starves another.
 *
 * Idling. Virtual devices have no interrupts, so an idle lane must look again by itself: it spins
 * for some turns, then naps, 50 us at first and 2 ms in the end (a nap costs about 25 us of CPU
 * whatever its length, so a lane at rest takes naps of milliseconds). Client sockets, disks and the
 * control thread end a nap at once, as they are in the ring that it waits on; the core's and the
 * ports' deadlines bound it.
 *
 * The control thread. Each queue has one producer and one consumer; `lane:` and `control:` tell
 * whose side each field is. Counters are copied under a lock that the lane only tries. */
#include "lane.h"

#include "core/keys.h"
#include "core/wire.h"
#include "port_memory.h"
#include "spsc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

enum {
	PACKETS_PER_PORT = 32,
	SENT_PER_PORT = 128,
	SEND_BURST = 32,
	COMPLETIONS = 64,
	REQUESTS = 32,
	COMMANDS = 8,
	CONTROL_CELLS = 32,
	CONTROL_QUEUE = 128,
	NOTES_QUEUE = 256,
	SESSIONS_QUEUE = 2,
	NAPS_SHORT = 8, /* then naps of 1 ms, then of 2 ms */
	NAPS_MIDDLE = 16,
	NAPS_SHORT_OPEN = 256, /* while clients wait for an answer */
};
#define SESSIONS_BYTES	 (SESSIONS_QUEUE * sizeof(struct session_keys))
#define NAP_SHORT_NS	 (50 * NS_PER_US)
#define NAP_MIDDLE_NS	 NS_PER_MS
#define NAP_LONG_NS	 (2 * NS_PER_MS)
#define PUBLISH_EVERY_NS (100 * NS_PER_MS)
#define STOP_WITHIN_NS	 (5 * NS_PER_S)

/* A cell of ours for a handshake's datagram. */
struct control_cell {
	uint8_t headroom[CELL_HEADROOM_BYTES];
	uint8_t bytes[LANE_CONTROL_BYTES_MAX];
};

/* The events and effects of the turn. */
struct turn {
	struct packet packet[PATHS_MAX * PACKETS_PER_PORT];
	struct completion completion[COMPLETIONS];
	struct request *request[REQUESTS];
	struct cell *sent[PATHS_MAX * SENT_PER_PORT];
	struct command *command[COMMANDS];
	struct events events;
	struct effects effects;
	bool busy;
	uint64_t cycles[LANE_STAGES];
	uint64_t stage_began; /* time stamp counter */
	ns_t port_deadline;
};

struct lane {
	struct lane_config config; /* both: ro */
	struct turn turn;	   /* lane: rw */
	struct lane_counters counters;
	struct control_cell *control_memory;
	struct cell control_cell[CONTROL_CELLS];
	struct cell_list control_idle;
	struct cell *burst[PATHS_MAX][SEND_BURST];
	unsigned burst_count[PATHS_MAX];
	unsigned idle_turns, requests_open;
	ns_t publish_at, stop_before;
	bool told_something;
	uint64_t notes_lost_by_core;

	struct spsc commands;	   /* of struct command *; control -> lane */
	struct spsc results;	   /* of struct command *; lane -> control */
	struct spsc sessions;	   /* control -> lane */
	struct spsc control_in;	   /* of struct lane_datagram; lane -> control */
	struct spsc control_out;   /* control -> lane */
	struct spsc notes;	   /* lane -> control */
	unsigned commands_out;	   /* control: rw */
	atomic_bool stop;	   /* control: rw, lane: ro */
	atomic_bool wants_session; /* lane: rw, control: ro */
	atomic_bool told;	   /* the descriptor is readable, or about to be */
	int descriptor;
	pthread_mutex_t published_lock;
	struct lane_counters published;
};

/* ---- life ---- */

static int queues_init(struct lane *lane)
{
	void *sessions = memory_take(lane->config.memory, MEMORY_KEYS, SESSIONS_BYTES);
	if (!sessions)
		return -1;
	spsc_init_at(&lane->sessions, sessions, SESSIONS_QUEUE, sizeof(struct session_keys));
	return spsc_init(&lane->commands, LANE_COMMANDS_MAX, sizeof(struct command *)) ||
	       spsc_init(&lane->results, LANE_COMMANDS_MAX, sizeof(struct command *)) ||
	       spsc_init(&lane->control_in, CONTROL_QUEUE, sizeof(struct lane_datagram)) ||
	       spsc_init(&lane->control_out, CONTROL_QUEUE, sizeof(struct lane_datagram)) ||
	       spsc_init(&lane->notes, NOTES_QUEUE, sizeof(struct note));
}

struct lane *lane_new(const struct lane_config *config)
{
	must(config->core && config->disk && config->port_count <= PATHS_MAX,
	     "a lane has a core, disks and at most one port per path");
	struct lane *lane = aligned_alloc(64, align_up(sizeof *lane, 64));
	if (!lane)
		return NULL;
	memset(lane, 0, sizeof *lane);
	lane->config = *config;
	if (!lane->config.spin_turns)
		lane->config.spin_turns = LANE_SPIN_TURNS;
	pthread_mutex_init(&lane->published_lock, NULL);
	lane->descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	lane->control_memory = packet_memory_new(CONTROL_CELLS * sizeof(struct control_cell));
	if (queues_init(lane) || lane->descriptor < 0 || !lane->control_memory) {
		int err = errno;
		lane_free(lane);
		errno = err;
		return NULL;
	}
	for (unsigned i = 0; i < CONTROL_CELLS; i++) {
		lane->control_cell[i].datagram = lane->control_memory[i].bytes;
		cell_list_push(&lane->control_idle, &lane->control_cell[i]);
	}
	atomic_store(&lane->wants_session, core_wants_session(config->core));
	if (config->front.completed)
		disk_set_foreign(config->disk, config->front.completed, config->front.context);
	return lane;
}

void lane_free(struct lane *lane)
{
	if (!lane)
		return;
	memory_give(lane->config.memory, MEMORY_KEYS, lane->sessions.slots, SESSIONS_BYTES);
	struct spsc *queue[] = {&lane->commands, &lane->results, &lane->control_in,
				&lane->control_out, &lane->notes};
	for (unsigned i = 0; i < ARRAY_COUNT(queue); i++)
		spsc_fini(queue[i]);
	packet_memory_free(lane->control_memory, CONTROL_CELLS * sizeof(struct control_cell));
	if (lane->descriptor >= 0)
		close(lane->descriptor);
	pthread_mutex_destroy(&lane->published_lock);
	free(lane);
}

/* ---- a turn: time ---- */

static ns_t clock_ns(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return (ns_t)time.tv_sec * NS_PER_S + (ns_t)time.tv_nsec;
}

static void turn_begin(struct lane *lane)
{
	struct turn *turn = &lane->turn;
	turn->busy = false;
	turn->port_deadline = NS_NEVER;
	turn->stage_began = __rdtsc();
	memset(turn->cycles, 0, sizeof turn->cycles);
	turn->events = (struct events){
		.packet = turn->packet,
		.completion = turn->completion,
		.request = turn->request,
		.sent = turn->sent,
		.command = turn->command,
	};
	effects_init(&turn->effects, clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_REALTIME));
	lane->counters.turns++;
}

static void stage_ends(struct lane *lane, enum lane_stage stage)
{
	uint64_t tsc = __rdtsc();
	lane->turn.cycles[stage] += tsc - lane->turn.stage_began;
	lane->turn.stage_began = tsc;
}

/* ---- a turn: what happened ---- */

/* The handshake is the control thread's: it gets a copy, or, when it does not keep up, nothing. */
static void control_takes(struct lane *lane, const struct packet *packet)
{
	bool handshake = packet->length >= 2 && packet->datagram[1] < WIRE_TYPE_FIRST &&
			 packet->length <= LANE_CONTROL_BYTES_MAX;
	struct lane_datagram *slot = handshake ? spsc_reserve(&lane->control_in) : NULL;
	if (!slot) {
		lane->counters.control_dropped++;
		return;
	}
	memcpy(slot->bytes, packet->datagram, packet->length);
	slot->length = (uint16_t)packet->length;
	slot->path = packet->path;
	spsc_commit(&lane->control_in);
	lane->counters.control_in++;
	lane->told_something = true;
}

static void packets_sort(struct lane *lane, struct packet *packet, unsigned count)
{
	struct events *events = &lane->turn.events;
	for (unsigned i = 0; i < count; i++) {
		lane->turn.busy = true;
		if (core_takes_datagram(packet[i].datagram, packet[i].length))
			events->packet[events->packet_count++] = packet[i];
		else
			control_takes(lane, &packet[i]);
	}
}

static void sent_sort(struct lane *lane, struct cell *const *cell, unsigned count)
{
	struct events *events = &lane->turn.events;
	for (unsigned i = 0; i < count; i++) {
		bool ours = cell[i] >= lane->control_cell &&
			    cell[i] < lane->control_cell + CONTROL_CELLS;
		if (ours)
			cell_list_push(&lane->control_idle, cell[i]);
		else
			lane->turn.sent[events->sent_count++] = cell[i];
	}
}

static void receive(struct lane *lane)
{
	struct turn *turn = &lane->turn;
	struct packet packet[PACKETS_PER_PORT];
	struct cell *sent[SENT_PER_PORT];
	ns_t now = turn->effects.now;
	for (unsigned i = 0; i < lane->config.port_count; i++) {
		struct port *port = lane->config.port[i];
		turn->port_deadline = min_u64(turn->port_deadline, port_turn(port, now));
		packets_sort(lane, packet, port_receive(port, packet, PACKETS_PER_PORT, now));
		sent_sort(lane, sent, port_sent(port, sent, SENT_PER_PORT));
	}
	lane->counters.packets += turn->events.packet_count;
	stage_ends(lane, LANE_RECEIVE);
}

static void reap(struct lane *lane)
{
	struct turn *turn = &lane->turn;
	turn->events.completion_count = disk_reap(lane->config.disk, turn->completion, COMPLETIONS);
	lane->counters.completions += turn->events.completion_count;
	stage_ends(lane, LANE_DISK);
}

static bool is_stopping(struct lane *lane)
{
	return atomic_load_explicit(&lane->stop, memory_order_relaxed);
}

static void take_requests(struct lane *lane)
{
	const struct lane_front *front = &lane->config.front;
	struct turn *turn = &lane->turn;
	unsigned room =
		front->take && !is_stopping(lane) ? core_request_room(lane->config.core) : 0;
	if (room)
		turn->events.request_count = front->take(front->context, turn->request,
							 room < REQUESTS ? room : REQUESTS);
	lane->requests_open += turn->events.request_count;
	lane->counters.requests += turn->events.request_count;
	stage_ends(lane, LANE_FRONT);
}

static void take_orders(struct lane *lane)
{
	struct events *events = &lane->turn.events;
	while (events->command_count < COMMANDS &&
	       spsc_pop(&lane->commands, &lane->turn.command[events->command_count]))
		events->command_count++;
	events->session = spsc_front(&lane->sessions);
	lane->counters.commands += events->command_count;
}

/* ---- a turn: the core ---- */

static void step(struct lane *lane)
{
	struct turn *turn = &lane->turn;
	const struct events *events = &turn->events;
	turn->busy |= events->packet_count || events->completion_count || events->request_count ||
		      events->sent_count || events->command_count || events->session;
	core_step(lane->config.core, events, &turn->effects);
	if (events->session) {
		keys_wipe(spsc_front(&lane->sessions), sizeof *events->session);
		spsc_release(&lane->sessions);
	}
	turn->busy |=
		turn->effects.disk.head || turn->effects.packets.head || turn->effects.replies.head;
	stage_ends(lane, LANE_CORE);
}

/* ---- a turn: what the core wants ---- */

static void burst_send(struct lane *lane, unsigned path)
{
	if (lane->burst_count[path])
		port_send(lane->config.port[path], lane->burst[path], lane->burst_count[path],
			  lane->turn.effects.now);
	lane->burst_count[path] = 0;
}

static void burst_add(struct lane *lane, struct cell *cell)
{
	must(cell->path < lane->config.port_count, "datagrams go out on paths that exist");
	lane->burst[cell->path][lane->burst_count[cell->path]++] = cell;
	if (lane->burst_count[cell->path] == SEND_BURST)
		burst_send(lane, cell->path);
}

/* What the control thread wants sent, as far as we have cells for it. */
static void control_sends(struct lane *lane)
{
	struct lane_datagram *datagram;
	while (lane->control_idle.head && (datagram = spsc_front(&lane->control_out))) {
		uint8_t path = datagram->path;
		if (path < lane->config.port_count &&
		    datagram->length <= port_datagram_bytes_max(lane->config.port[path])) {
			struct cell *cell = cell_list_pop(&lane->control_idle);
			memcpy(cell->datagram, datagram->bytes, datagram->length);
			cell->length = datagram->length;
			cell->path = path;
			burst_add(lane, cell);
			lane->counters.control_out++;
		} else {
			lane->counters.control_dropped++;
		}
		spsc_release(&lane->control_out);
		lane->turn.busy = true;
	}
}

static void send_all(struct lane *lane)
{
	struct cell *cell;
	control_sends(lane);
	while ((cell = cell_list_pop(&lane->turn.effects.packets))) {
		burst_add(lane, cell);
		lane->counters.sent++;
	}
	for (unsigned path = 0; path < lane->config.port_count; path++)
		burst_send(lane, path);
	stage_ends(lane, LANE_SEND);
}

static void answer(struct lane *lane)
{
	const struct lane_front *front = &lane->config.front;
	struct request *request;
	while ((request = request_list_pop(&lane->turn.effects.replies))) {
		must(lane->requests_open > 0, "answers are to requests");
		lane->requests_open--;
		lane->counters.answers++;
		front->answer(front->context, request);
	}
	if (front->turn)
		front->turn(front->context);
	stage_ends(lane, LANE_FRONT);
}

static void submit(struct lane *lane)
{
	disk_submit(lane->config.disk, &lane->turn.effects.disk);
	stage_ends(lane, LANE_DISK);
}

/* ---- a turn: what the control thread hears ---- */

static void tell_results(struct lane *lane)
{
	struct command *command = lane->turn.effects.results;
	while (command) {
		struct command *next = command->next;
		command->next = NULL;
		must(spsc_push(&lane->results, &command),
		     "no more commands are out than results have room");
		lane->told_something = true;
		command = next;
	}
}

static void tell_notes(struct lane *lane)
{
	const struct effects *effects = &lane->turn.effects;
	for (unsigned i = 0; i < effects->note_count; i++) {
		if (spsc_push(&lane->notes, &effects->note[i]))
			lane->told_something = true;
		else
			lane->counters.notes_lost++;
	}
	lane->counters.notes_lost += effects->notes_lost - lane->notes_lost_by_core;
	lane->notes_lost_by_core = effects->notes_lost;
}

static void publish(struct lane *lane)
{
	if (lane->turn.effects.now < lane->publish_at ||
	    pthread_mutex_trylock(&lane->published_lock) != 0)
		return;
	lane->publish_at = lane->turn.effects.now + PUBLISH_EVERY_NS;
	for (unsigned i = 0; i < lane->config.port_count; i++)
		port_stats(lane->config.port[i], &lane->counters.port[i]);
	disk_counters(lane->config.disk, &lane->counters.disk);
	lane->published = lane->counters;
	pthread_mutex_unlock(&lane->published_lock);
	if (lane->config.front.publish)
		lane->config.front.publish(lane->config.front.context);
}

static void report(struct lane *lane)
{
	bool wants = core_wants_session(lane->config.core);
	tell_results(lane);
	tell_notes(lane);
	if (wants != atomic_load_explicit(&lane->wants_session, memory_order_relaxed)) {
		atomic_store_explicit(&lane->wants_session, wants, memory_order_relaxed);
		lane->told_something = true;
	}
	publish(lane);
	/* Once until it is heard: the control thread clears `told` before it fetches. */
	if (lane->told_something && !atomic_exchange(&lane->told, true)) {
		uint64_t one = 1;
		ssize_t written = write(lane->descriptor, &one, sizeof one);
		(void)written;
	}
	lane->told_something = false;
}

/* ---- idling ---- */

static ns_t nap_length(const struct lane *lane, unsigned naps)
{
	/* A client may wait for the peer's word, which no interrupt announces. */
	if (naps < (lane->requests_open ? NAPS_SHORT_OPEN : NAPS_SHORT))
		return NAP_SHORT_NS;
	return naps < NAPS_SHORT + NAPS_MIDDLE || lane->requests_open ? NAP_MIDDLE_NS : NAP_LONG_NS;
}

/* A keepalive or two: they come all the time, and are no reason to look more often again. */
static bool turn_was_light(const struct lane *lane)
{
	const struct events *events = &lane->turn.events;
	return events->packet_count <= lane->config.port_count && !events->completion_count &&
	       !events->request_count && !events->command_count && !lane->requests_open;
}

static void idle(struct lane *lane)
{
	unsigned spins = lane->config.spin_turns;
	if (lane->turn.busy) {
		if (!turn_was_light(lane))
			lane->idle_turns = 0;
		return;
	}
	ns_t now = lane->turn.effects.now;
	ns_t deadline = min_u64(core_deadline(lane->config.core), lane->turn.port_deadline);
	if (lane->idle_turns < spins || deadline <= now) {
		lane->idle_turns += lane->idle_turns < spins;
		_mm_pause();
		return;
	}
	ns_t nap = nap_length(lane, lane->idle_turns - spins);
	lane->idle_turns += lane->idle_turns < spins + NAPS_SHORT_OPEN;
	lane->counters.naps++;
	disk_wait(lane->config.disk, min_u64(nap, deadline - now));
}

static void turn_end(struct lane *lane)
{
	struct turn *turn = &lane->turn;
	lane->counters.busy_turns += turn->busy;
	for (unsigned stage = 0; stage < LANE_STAGES; stage++)
		lane->counters.cycles[turn->busy ? stage : LANE_IDLE] += turn->cycles[stage];
}

static bool is_finished(struct lane *lane)
{
	if (!is_stopping(lane))
		return false;
	if (!lane->stop_before)
		lane->stop_before = clock_ns(CLOCK_MONOTONIC) + STOP_WITHIN_NS;
	return !disk_in_flight(lane->config.disk) || lane->turn.effects.now >= lane->stop_before;
}

int lane_run(struct lane *lane)
{
	while (!is_finished(lane)) {
		turn_begin(lane);
		receive(lane);
		reap(lane);
		take_requests(lane);
		take_orders(lane);
		step(lane);
		send_all(lane);
		answer(lane);
		submit(lane);
		report(lane);
		turn_end(lane);
		idle(lane);
	}
	lane->publish_at = 0;
	publish(lane);
	return disk_in_flight(lane->config.disk) ? -ETIMEDOUT : 0;
}

/* ---- the control thread's side ---- */

bool lane_command(struct lane *lane, struct command *command)
{
	if (lane->commands_out == LANE_COMMANDS_MAX)
		return false;
	must(spsc_push(&lane->commands, &command), "the queue has room for all that may be out");
	lane->commands_out++;
	disk_wake(lane->config.disk);
	return true;
}

struct command *lane_results(struct lane *lane)
{
	struct command *command;
	if (!spsc_pop(&lane->results, &command))
		return NULL;
	must(lane->commands_out > 0, "results are of commands");
	lane->commands_out--;
	return command;
}

bool lane_session(struct lane *lane, const struct session_keys *keys)
{
	if (!spsc_push(&lane->sessions, keys))
		return false;
	disk_wake(lane->config.disk);
	return true;
}

bool lane_wants_session(const struct lane *lane)
{
	return atomic_load_explicit(&lane->wants_session, memory_order_relaxed);
}

bool lane_control_receive(struct lane *lane, struct lane_datagram *datagram)
{
	return spsc_pop(&lane->control_in, datagram);
}

bool lane_control_send(struct lane *lane, const struct lane_datagram *datagram)
{
	must(datagram->length <= LANE_CONTROL_BYTES_MAX, "a handshake's datagram is small");
	if (!spsc_push(&lane->control_out, datagram))
		return false;
	disk_wake(lane->config.disk);
	return true;
}

bool lane_notes(struct lane *lane, struct note *note)
{
	return spsc_pop(&lane->notes, note);
}

void lane_counters(struct lane *lane, struct lane_counters *counters)
{
	pthread_mutex_lock(&lane->published_lock);
	*counters = lane->published;
	pthread_mutex_unlock(&lane->published_lock);
}

void lane_stop(struct lane *lane)
{
	atomic_store(&lane->stop, true);
	disk_wake(lane->config.disk);
}

int lane_descriptor(const struct lane *lane)
{
	return lane->descriptor;
}

void lane_heard(struct lane *lane)
{
	uint64_t count;
	ssize_t got = read(lane->descriptor, &count, sizeof count);
	(void)got; /* nothing to read: heard already */
	/* An exchange, not a store: it reads what the lane wrote when it found us told already, so
	 * that what the lane had queued before is seen by the fetching that follows. */
	atomic_exchange(&lane->told, false);
}
