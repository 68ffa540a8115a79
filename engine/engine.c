/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an engine: everything is opened in one order, read top to bottom, and closed in the
 * reverse one. In between this is the control thread: it sleeps until the lane, a command, a signal
 * or a timer has something for it. */
#include "engine.h"
#include "log.h"
#include "notify.h"

#include "session/secret.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* A store that lost its files is out within a second. */
#define LIVENESS_EVERY_NS (NS_PER_S / 2)
#define DRAIN_WITHIN_NS	  (10 * NS_PER_S)
#define DRAIN_LOOK_NS	  (NS_PER_S / 2)

ns_t engine_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (ns_t)now.tv_sec * NS_PER_S + (ns_t)now.tv_nsec;
}

/* ---- opening, in order ---- */

static int control_open(struct engine *engine)
{
	const char *path = engine->config->site[engine->self].control;

	engine->control = control_new(path, verbs_handle, engine);
	if (engine->control)
		return 0;
	int err = -abs(errno);
	log_line(NOTE_ERROR, NULL, "cannot listen at %s: %s", path, strerror(-err));
	return err;
}

static int volume_keys_open(struct engine *engine)
{
	int err = 0;

	for (unsigned g = 0; !err && g < engine->config->group_count; g++)
		if (engine->core_config->group[g].role == ROLE_PRIMARY)
			err = keys_load(engine, g, &engine->core_config->group[g]);
	return err;
}

static bool stop_wanted(const struct engine *engine)
{
	struct pollfd stop = {.fd = engine->stop_event, .events = POLLIN};

	return poll(&stop, 1, 0) > 0;
}

static int engine_open(struct engine *engine)
{
	static int (*const steps[])(struct engine *) = {
		files_lock, core_config_make, files_open,   volume_keys_open, ports_open,
		lane_open,  session_open,     control_open, ports_let_in,
	};
	int err = 0;

	for (unsigned i = 0; !err && i < ARRAY_COUNT(steps); i++)
		err = stop_wanted(engine) ? -ECANCELED : steps[i](engine);
	if (err == -ECANCELED)
		log_line(NOTE_INFO, NULL, "stopped before the start was over");
	return err;
}

/* From here on it can be stopped. */
static int engine_make(struct engine **out)
{
	struct engine *engine = calloc(1, sizeof *engine);

	if (!engine)
		return -ENOMEM;
	engine->lock = -1;
	engine->stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (engine->stop_event < 0) {
		int err = -errno;
		free(engine);
		return err;
	}
	pthread_mutex_init(&engine->clients_lock, NULL);
	*out = engine;
	return 0;
}

static int engine_configure(struct engine *engine, const char *config_path, const char *node)
{
	int err = config_load(&engine->config, config_path, node, stderr);
	if (err)
		return -EINVAL;
	engine->self = engine->config->self;
	engine->core_config = secret_take(sizeof *engine->core_config);
	if (!engine->core_config) {
		err = -errno;
		log_line(NOTE_ERROR, NULL, "no memory for keys: %s", secret_why(-err));
	}
	return err;
}

static int process_harden(void)
{
	int err = secret_process_harden();

	if (err)
		log_line(NOTE_WARNING, NULL, "core dumps could not be forbidden: %s",
			 strerror(-err));
	err = secret_libcrypto_harden();
	if (err)
		log_line(NOTE_ERROR, NULL, "no memory for keys: %s", secret_why(-err));
	return err;
}

int casemate_engine_new(struct casemate_engine **out, const char *config_path, const char *node)
{
	struct engine *engine = NULL;
	int err = process_harden();

	*out = NULL;
	if (!err)
		err = engine_make(&engine);
	if (err)
		return err;
	*out = (struct casemate_engine *)engine;
	err = engine_configure(engine, config_path, node);
	if (!err) {
		err = engine_open(engine);
		/* A wrong file is told apart from a wrong machine by its own code. */
		err = err == -EINVAL ? -EIO : err;
	}
	if (err) {
		*out = NULL;
		casemate_engine_free((struct casemate_engine *)engine);
	}
	return err;
}

void casemate_engine_free(struct casemate_engine *opaque)
{
	struct engine *engine = (struct engine *)opaque;

	if (!engine)
		return;
	if (engine->control)
		control_free(engine->control);
	bool ceased = renewals_close(engine);
	session_close(engine);
	lane_close(engine);
	if (ports_close(engine))
		lane_release(engine);
	if (engine->disk)
		disk_free(engine->disk);
	files_unlock(engine);
	secret_give(engine->core_config, sizeof *engine->core_config);
	if (engine->config && ceased)
		config_free(engine->config);
	close(engine->stop_event);
	pthread_mutex_destroy(&engine->clients_lock);
	free(engine);
}

/* ---- the control thread ---- */

void casemate_engine_stop(struct casemate_engine *opaque)
{
	const struct engine *engine = (const struct engine *)opaque;
	uint64_t one = 1;
	ssize_t written = write(engine->stop_event, &one, sizeof one);
	(void)written;
}

static void watchdog_turn(struct engine *engine, ns_t now)
{
	ns_t every = notify_watchdog_interval();

	if (every == NS_NEVER || now < engine->watchdog_at)
		return;
	engine->watchdog_at = now + every;
	if (lane_lives(engine))
		notify_watchdog();
	else
		log_line(NOTE_ERROR, NULL, "the lane has not turned for a while");
}

static void timers_turn(struct engine *engine, ns_t now)
{
	watchdog_turn(engine, now);
	if (now < engine->liveness_at)
		return;
	engine->liveness_at = now + LIVENESS_EVERY_NS;
	files_watch(engine);
	clients_watch(engine, now);
}

static int poll_timeout_ms(const struct engine *engine, ns_t now)
{
	ns_t next = min_u64(engine->liveness_at, session_next(engine, now));

	next = min_u64(next, verbs_next(engine));
	if (notify_watchdog_interval() != NS_NEVER)
		next = min_u64(next, engine->watchdog_at);
	return next <= now ? 0 : (int)div_up(min_u64(next - now, NS_PER_S), NS_PER_MS);
}

/* One turn; false once somebody wants us to stop. */
static bool control_thread_turn(struct engine *engine)
{
	struct pollfd poll_for[2 + CONTROL_POLLFDS_MAX] = {
		{.fd = engine->stop_event, .events = POLLIN},
		{.fd = lane_descriptor(engine->lane), .events = POLLIN},
	};
	unsigned count = control_pollfds(engine->control, poll_for + 2);

	if (poll(poll_for, 2 + count, poll_timeout_ms(engine, engine_now())) < 0 && errno != EINTR)
		log_line(NOTE_ERROR, NULL, "poll: %s", strerror(errno));
	lane_listen(engine);
	control_turn(engine->control, poll_for + 2, count);
	ns_t now = engine_now();
	session_turn(engine, now);
	verbs_turn(engine, now);
	timers_turn(engine, now);
	return !(poll_for[0].revents & POLLIN);
}

/* Once this order was carried out and, if need be, the clients have gone; or when time is up. */
static void drain_order(struct engine *engine, uint8_t kind, ns_t until)
{
	bool sent = false;

	engine->drain = (struct command){.kind = kind, .status = &engine->drain_status};
	engine->drained = false;
	while (engine_now() < until && !(engine->drained && atomic_load(&engine->nbd_stopped))) {
		if (!sent)
			sent = lane_command(engine->lane, &engine->drain);
		struct pollfd lane = {.fd = lane_descriptor(engine->lane), .events = POLLIN};
		poll(&lane, 1, 10);
		lane_listen(engine);
		session_turn(engine, engine_now());
	}
}

/* A drain ends as well when the peer has gone: whether the vault has all is seen by the points. A
 * group that never met its vault has none, but what it wrote is in open intents. */
static bool vault_has_all(const struct group_status *group)
{
	return group->role != ROLE_PRIMARY ||
	       (group->lsn <= group->durable && (group->lsn || !group->intent_bytes));
}

static void drain_judge(struct engine *engine)
{
	const struct core_status *status = &engine->drain_status;

	if (!engine->drained)
		log_line(NOTE_WARNING, NULL,
			 "not everything was durable in time: the lane does not answer");
	else if (!atomic_load(&engine->nbd_stopped))
		log_line(NOTE_WARNING, NULL,
			 "not everything was durable in time: clients wait for answers");
	for (unsigned g = 0; engine->drained && g < status->group_count; g++)
		if (!vault_has_all(&status->group[g]))
			log_line(NOTE_WARNING, status->group[g].name,
				 "not everything was durable in time: the vault lacks what is in "
				 "open intents, which is compared at the next start");
}

/* Clients are told first, so that nothing new comes while what is on its way arrives. */
static void engine_drain(struct engine *engine)
{
	ns_t until = engine_now() + DRAIN_WITHIN_NS;

	log_line(NOTE_INFO, NULL, "stopping");
	notify_stopping();
	renewals_cancel(engine);
	atomic_store(&engine->nbd_stop, true);
	engine->drain_sent = true;
	/* The stop event stays readable: it must not end our waiting. */
	uint64_t count;
	ssize_t got = read(engine->stop_event, &count, sizeof count);
	(void)got;
	drain_order(engine, COMMAND_DRAIN, until);
	if (engine->drained)
		drain_order(engine, COMMAND_STATUS, until + DRAIN_LOOK_NS);
	drain_judge(engine);
}

int casemate_engine_run(struct casemate_engine *opaque)
{
	struct engine *engine = (struct engine *)opaque;

	log_line(NOTE_INFO, NULL, "site %s is up", engine->config->node);
	notify_ready();
	while (control_thread_turn(engine))
		;
	engine_drain(engine);
	log_line(NOTE_INFO, NULL, "stopped");
	return 0;
}

const char *casemate_version(void)
{
	return CASEMATE_VERSION;
}
