/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a store are made anew by a thread of their own: a journal is written in full, and
 * meanwhile the control thread has a watchdog, stores to look after and orders to answer. The
 * thread knows nothing but what stands in the renewal; the control thread looks whether it is done.
 *
 * At a stop it is told to cease, which it does between two pieces, and removes what it has made. A
 * thread that a disk holds is left behind, with what it reads. */
#include "engine.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define CEASES_WITHIN_S 5

struct renewal {
	const struct config_group *config;
	struct volume_store store;
	pthread_t thread;
	atomic_bool cancel; /* control: w, thread: r */
	atomic_bool done;   /* thread: w, control: r; what follows is the thread's until then */
	int err;
	char why[ENGINE_WHY_BYTES];
};

static void *renewal_thread(void *context)
{
	struct renewal *renewal = context;

	renewal->err = volume_store_format(renewal->config, &renewal->store, renewal->why,
					   sizeof renewal->why);
	atomic_store(&renewal->done, true);
	return NULL;
}

int renewal_start(struct engine *engine, unsigned group, const struct volume_store *store)
{
	struct renewal *renewal = calloc(1, sizeof *renewal);

	must(!engine->renewal[group], "the core prepares one rebuild of a group at a time");
	if (!renewal)
		return -ENOMEM;
	renewal->config = &engine->config->group[group];
	renewal->store = *store;
	renewal->store.cancel = &renewal->cancel;
	int err = pthread_create(&renewal->thread, NULL, renewal_thread, renewal);
	if (err) {
		free(renewal);
		return -err;
	}
	pthread_setname_np(renewal->thread, "files");
	engine->renewal[group] = renewal;
	return 0;
}

bool renewal_done(const struct engine *engine, unsigned group)
{
	return atomic_load(&engine->renewal[group]->done);
}

int renewal_end(struct engine *engine, unsigned group, char *why, size_t why_bytes)
{
	struct renewal *renewal = engine->renewal[group];

	must(atomic_load(&renewal->done), "it is asked for when it is done");
	pthread_join(renewal->thread, NULL);
	int err = renewal->err;
	snprintf(why, why_bytes, "%s", renewal->why);
	free(renewal);
	engine->renewal[group] = NULL;
	return err;
}

void renewals_cancel(struct engine *engine)
{
	for (unsigned g = 0; g < GROUPS_MAX; g++)
		if (engine->renewal[g])
			atomic_store(&engine->renewal[g]->cancel, true);
}

bool renewals_close(struct engine *engine)
{
	struct timespec until;
	bool all = true;

	renewals_cancel(engine);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += CEASES_WITHIN_S;
	for (unsigned g = 0; g < GROUPS_MAX; g++) {
		struct renewal *renewal = engine->renewal[g];
		if (!renewal)
			continue;
		engine->renewal[g] = NULL;
		if (pthread_clockjoin_np(renewal->thread, NULL, CLOCK_MONOTONIC, &until)) {
			log_line(NOTE_WARNING, renewal->config->name,
				 "store %u: its disk does not answer; its files are left as they "
				 "are",
				 renewal->store.index);
			all = false;
		} else {
			free(renewal);
		}
	}
	return all;
}
