/* SPDX-License-Identifier: Apache-2.0 */
/* The lane of this engine: its core, its clients and its thread, and what it tells the control
 * thread. Functions named front_ run on the lane's thread. */
#include "engine.h"
#include "log.h"

#include "drive/eal.h"
#include "drive/port_memory.h"
#include "session/secret.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#define CLIENTS_LEAVE_WITHIN_NS (2 * NS_PER_S)
#define CLIENTS_LOOK_US		1000
#define CLIENTS_FULL_AGAIN_NS	(60 * NS_PER_S)

/* ---- on the lane's thread: clients ---- */

static unsigned front_take(void *context, struct request **request, unsigned max)
{
	const struct engine *engine = context;
	return nbd_server_take_requests(engine->nbd, request, max);
}

static void front_answer(void *context, struct request *request)
{
	const struct engine *engine = context;
	nbd_server_answer(engine->nbd, request);
}

static void front_completed(void *context, uint64_t user_data, int32_t result, uint32_t flags)
{
	const struct engine *engine = context;
	nbd_server_completed(engine->nbd, user_data, result, flags);
}

static void front_exports(struct engine *engine)
{
	for (unsigned index = 0; index < engine->export_count; index++) {
		struct nbd_export *export = &engine->export[index];

		export->ready = core_export_ready(engine->core, index, &export->read_only);
		nbd_server_set_export(engine->nbd, index, export);
	}
}

static void front_turn(void *context)
{
	struct engine *engine = context;

	files_lane_turn(engine);
	if (atomic_load_explicit(&engine->nbd_stop, memory_order_relaxed)) {
		nbd_server_stop(engine->nbd);
		if (nbd_server_stopped(engine->nbd))
			atomic_store(&engine->nbd_stopped, true);
	} else {
		front_exports(engine);
	}
	nbd_server_turn(engine->nbd);
}

/* Whoever reads them holds the lock for a moment: then the next time will do. */
static void front_publish(void *context)
{
	struct engine *engine = context;

	if (pthread_mutex_trylock(&engine->clients_lock) != 0)
		return;
	engine->clients = nbd_server_figures(engine->nbd);
	pthread_mutex_unlock(&engine->clients_lock);
}

void clients_figures(struct engine *engine, struct nbd_server_figures *figures)
{
	pthread_mutex_lock(&engine->clients_lock);
	*figures = engine->clients;
	pthread_mutex_unlock(&engine->clients_lock);
}

/* Whoever comes now gets no greeting until another goes: without a word here it looks dead. */
void clients_watch(struct engine *engine, ns_t now)
{
	struct nbd_server_figures figures;

	clients_figures(engine, &figures);
	if (figures.connections < ENGINE_NBD_CONNECTIONS) {
		engine->clients_full &= now < engine->clients_full_at + CLIENTS_FULL_AGAIN_NS;
		return;
	}
	if (!engine->clients_full)
		log_line(NOTE_WARNING, NULL,
			 "%u NBD clients are connected, which is the bound: others wait until one "
			 "goes",
			 figures.connections);
	engine->clients_full = true;
	engine->clients_full_at = now;
}

/* ---- start ---- */

static int listen_one(struct engine *engine, const struct config_listen *listen)
{
	char host[16];
	int err;

	if (listen->unix_path) {
		err = nbd_server_listen_unix(engine->nbd, listen->unix_path);
		if (err)
			log_line(NOTE_ERROR, NULL, "cannot listen at %s: %s", listen->unix_path,
				 strerror(-err));
		return err;
	}
	snprintf(host, sizeof host, "%u.%u.%u.%u", listen->ip >> 24, listen->ip >> 16 & 255,
		 listen->ip >> 8 & 255, listen->ip & 255);
	err = nbd_server_listen_tcp(engine->nbd, host, listen->port);
	if (err)
		log_line(NOTE_ERROR, NULL, "cannot listen at %s:%u: %s", host, listen->port,
			 strerror(-err));
	return err;
}

/* A primary's device is written from the clients' memory: pages that the kernel has at hand need no
 * look-up per write. Where the limit on locked memory forbids it, all works without. */
static void clients_register(struct engine *engine)
{
	const struct config *config = engine->config;
	struct iovec payload = nbd_server_payload_memory(engine->nbd);
	bool primary = false;

	for (unsigned i = 0; i < config->group_count; i++)
		primary |= config->group[i].primary == engine->self;
	int err =
		primary ? disk_register_memory(engine->disk, payload.iov_base, payload.iov_len) : 0;
	if (err)
		log_line(NOTE_INFO, NULL, "clients' memory is not registered with the kernel: %s",
			 strerror(-err));
}

_Static_assert((int)GROUPS_MAX *(int)VOLUMES_PER_GROUP_MAX <= (int)NBD_EXPORTS_MAX,
	       "every volume has a place among the exports");

/* In the core's order of volumes. */
static void exports_name(struct engine *engine)
{
	for (unsigned g = 0; g < engine->config->group_count; g++)
		for (unsigned v = 0; v < engine->config->group[g].volume_count; v++) {
			const struct config_volume *volume = &engine->config->group[g].volume[v];
			struct nbd_export *export = &engine->export[engine->export_count++];

			export->size = volume->size;
			snprintf(export->name, sizeof export->name, "%s", volume->name);
		}
}

static int clients_open(struct engine *engine)
{
	const struct config_site *site = &engine->config->site[engine->self];
	const struct nbd_server_config config = {
		.ring = disk_ring(engine->disk),
		.connections = ENGINE_NBD_CONNECTIONS,
	};
	int err = 0;

	engine->nbd = nbd_server_new(&config);
	if (!engine->nbd) {
		err = -errno;
		log_line(NOTE_ERROR, NULL, "no memory for NBD clients: %s", strerror(-err));
		return err;
	}
	exports_name(engine);
	for (unsigned i = 0; !err && i < site->nbd_count; i++)
		err = listen_one(engine, &site->nbd[i]);
	clients_register(engine);
	return err;
}

static void *lane_thread(void *context)
{
	struct engine *engine = context;
	int err = eal_thread_enter();

	if (err)
		log_line(NOTE_WARNING, NULL, "the lane has no caches of its own: %s",
			 strerror(-err));
	err = lane_run(engine->lane);
	if (err)
		log_line(NOTE_WARNING, NULL, "the disks did not finish in time");
	return NULL;
}

static int thread_start(struct engine *engine)
{
	int err = pthread_create(&engine->lane_thread, NULL, lane_thread, engine);

	if (err) {
		log_line(NOTE_ERROR, NULL, "no thread for the lane: %s", strerror(err));
		return -err;
	}
	engine->lane_runs = true;
	pthread_setname_np(engine->lane_thread, "lane0");
	unsigned cpu = engine->config->engine.cpu[engine->self];
	if (cpu == CONFIG_CPU_ANY)
		return 0;
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	err = pthread_setaffinity_np(engine->lane_thread, sizeof set, &set);
	if (err)
		log_line(NOTE_WARNING, NULL, "the lane cannot run on CPU %u alone: %s", cpu,
			 strerror(err));
	return 0;
}

int lane_open(struct engine *engine)
{
	int err = clients_open(engine);

	if (err)
		return err;
	engine->core = core_new(engine->core_config, engine->packet_memory);
	if (!engine->core) {
		err = -errno;
		log_line(NOTE_ERROR, NULL, "no memory for the core: %s", secret_why(-err));
		return err;
	}
	struct lane_config config = {
		.core = engine->core,
		.memory = &engine_memory,
		.disk = engine->disk,
		.port_count = engine->config->path_count,
		.front = {engine, front_take, front_answer, front_completed, front_turn,
			  front_publish},
	};
	memcpy(config.port, engine->port, sizeof config.port);
	engine->lane = lane_new(&config);
	if (!engine->lane) {
		err = -errno;
		log_line(NOTE_ERROR, NULL, "no memory for the lane: %s", secret_why(-err));
		return err;
	}
	return thread_start(engine);
}

/* A start that failed after the lane began: clients are listened for already, and the ring has
 * operations in their memory. A drain has waited for this before. */
static void clients_leave(struct engine *engine)
{
	ns_t until = engine_now() + CLIENTS_LEAVE_WITHIN_NS;

	atomic_store(&engine->nbd_stop, true);
	while (!atomic_load(&engine->nbd_stopped) && engine_now() < until) {
		disk_wake(engine->disk);
		usleep(CLIENTS_LOOK_US);
	}
}

void lane_close(struct engine *engine)
{
	bool clean = true;

	if (engine->lane_runs) {
		if (!engine->drain_sent)
			clients_leave(engine);
		lane_stop(engine->lane);
		pthread_join(engine->lane_thread, NULL);
		lane_listen(engine);
		engine->lane_runs = false;
		/* Clients whose requests were never answered keep their memory until the process
		 * ends. */
		clean = atomic_load(&engine->nbd_stopped);
	}
	if (engine->nbd && clean)
		nbd_server_free(engine->nbd);
	engine->nbd = NULL;
}

void lane_release(struct engine *engine)
{
	lane_free(engine->lane);
	if (engine->core)
		core_free(engine->core);
	packet_memory_free(engine->packet_memory, engine->packet_memory_bytes);
	engine->lane = NULL;
	engine->core = NULL;
	engine->packet_memory = NULL;
}

/* ---- what the lane tells ---- */

static void store_told(struct engine *engine, struct command *command)
{
	struct engine_store *store = &engine->store[command->group][command->store];

	store->telling = false;
	if (command->result == -EAGAIN)
		store->lost = false; /* told too early: again at the next look */
	else if (command->result)
		log_line(NOTE_WARNING, engine->config->group[command->group].name, "store %u: %s",
			 command->store,
			 command->text[0] ? command->text : strerror(-command->result));
}

static void command_done(struct engine *engine, struct command *command)
{
	if (command == &engine->drain)
		engine->drained = true;
	else if (command->owner)
		verbs_answered(engine, command);
	else
		store_told(engine, command);
}

void lane_listen(struct engine *engine)
{
	struct command *command;
	struct note note;

	lane_heard(engine->lane);
	while (lane_notes(engine->lane, &note))
		log_note(&note);
	while ((command = lane_results(engine->lane)))
		command_done(engine, command);
}

bool lane_lives(struct engine *engine)
{
	struct lane_counters counters;

	lane_counters(engine->lane, &counters);
	bool lives = counters.turns != engine->lane_turns;
	engine->lane_turns = counters.turns;
	return lives;
}
