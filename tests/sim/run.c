/* SPDX-License-Identifier: Apache-2.0 */
/* One seed from start to end: operations under faults, then perhaps a quiet time in which all must
 * meet, then a failover that is checked. */
#include "faults.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- liveness: when faults stop, everything is answered and all floors meet ---- */
static bool all_answered(struct world *w)
{
	return w->in_flight == 0 && w->op_count >= w->issued_target;
}

static void converge(struct world *w)
{
	world_run(w, w->now + 120 * NS_PER_S, all_answered);
	if (!all_answered(w) && !w->failed) {
		site_status(w, SITE_PRIMARY, &w->status);
		world_say(w, "primary: %s lsn %llu ack %llu durable %llu", w->status.group[0].state,
			  (unsigned long long)w->status.group[0].lsn,
			  (unsigned long long)w->status.group[0].acknowledged,
			  (unsigned long long)w->status.group[0].durable);
		site_status(w, SITE_VAULT, &w->status);
		world_say(w, "vault: %s received %llu durable %llu consistent %llu fold %llu",
			  w->status.group[0].state, (unsigned long long)w->status.group[0].received,
			  (unsigned long long)w->status.group[0].durable,
			  (unsigned long long)w->status.group[0].consistent,
			  (unsigned long long)w->status.group[0].fold);
		world_fail(w, "no progress: %u operations wait though all faults have ended",
			   w->in_flight);
	}
}

/* Everything that was written is durable, in every mode, and nothing is being compared. */
static bool all_durable(struct world *w)
{
	site_status(w, SITE_PRIMARY, &w->status);
	const struct group_status *group = &w->status.group[0];
	return group->durable == group->lsn && strcmp(group->state, "replicating") == 0;
}

/* All that were written are on all stores in service. */
static bool floors_equal(struct world *w, unsigned *in_service)
{
	lsn_t least = UINT64_MAX, most = 0;
	site_status(w, SITE_VAULT, &w->status);
	const struct group_status *group = &w->status.group[0];
	*in_service = 0;
	for (unsigned i = 0; i < geometry_n(w->options.geometry); i++)
		if (group->store[i].in_service) {
			least = min_u64(least, group->store[i].floor);
			most = max_u64(most, group->store[i].floor);
			++*in_service;
		}
	if (least != most)
		world_fail(w, "floors do not meet: %llu and %llu", (unsigned long long)least,
			   (unsigned long long)most);
	return !w->failed;
}

/* One that came back is as good as any other now, if its disk is. */
static void stores_are_good(struct world *w)
{
	for (unsigned i = 0; i < geometry_n(w->options.geometry); i++)
		if (w->status.group[0].store[i].in_service && !w->store_liar[i]) {
			w->store_spent[i] = false;
			w->wanders[i] = WANDER_HOME;
		}
}

/* A disk that does not answer yet is out soon, or answers. */
static bool none_hangs(struct world *w)
{
	bool hangs = false;
	for (unsigned i = 0; i < geometry_n(w->options.geometry); i++) {
		uint16_t number = w->start[SITE_VAULT].group[0].store[i].files.superblock;
		const struct file *file = &w->site[SITE_VAULT].file[number];
		hangs |= file->hung && file->stalled > w->now && store_serves(w, i);
	}
	return !hangs;
}

static void floors_meet(struct world *w)
{
	unsigned in_service;
	for (unsigned i = 0; i < 100 && !w->failed && !all_durable(w); i++)
		world_run(w, w->now + NS_PER_S, NULL);
	if (!w->failed && !all_durable(w))
		world_fail(w, "faults have ended, but durable stays at %llu of %llu (%s)",
			   (unsigned long long)w->status.group[0].durable,
			   (unsigned long long)w->status.group[0].lsn, w->status.group[0].state);
	world_run(w, w->now + 20 * NS_PER_S, none_hangs);
	world_run(w, w->now + 5 * NS_PER_S, NULL);
	if (w->failed || !floors_equal(w, &in_service) || !scrubbed_clean(w) ||
	    !floors_equal(w, &in_service))
		return;
	w->repaired += w->status.group[0].repaired;
	w->clean++;
	stores_are_good(w);
	if (in_service == geometry_n(w->options.geometry))
		wounds_heal(w);
}

void become_whole(struct world *w)
{
	w->quiet = true;
	removals_told(w);
	bool restores = fault_on(w, FAULT_REBUILD) && chance_permille(&w->chance, 800);
	if ((restores || stores_good(w) < w->options.quorum) && !stores_restored(w) && !w->failed)
		world_fail(w, "stores cannot be brought back: %s", w->rebuild.command.text);
	converge(w);
	if (!w->failed)
		floors_meet(w);
}

static void become_equal(struct world *w)
{
	become_whole(w);
	if (!w->failed)
		client_remember_device(w);
}

enum crash draw_crash(struct world *w)
{
	return chance_permille(&w->chance, 500) ? CRASH_POWER : CRASH_PROCESS;
}

/* ---- the end: the primary is gone, stores are lost, the vault is promoted and read ---- */
/* The one that has most to lose: those that are left know least. */
static unsigned store_richest(const struct world *w)
{
	const struct group_status *group = &w->status.group[0];
	unsigned richest = SHARDS_MAX;
	for (unsigned i = 0; i < geometry_n(w->options.geometry); i++)
		if (!w->store_gone[i] &&
		    (richest == SHARDS_MAX || group->store[i].floor > group->store[richest].floor))
			richest = i;
	return richest;
}

static void lose_some(struct world *w, bool worst)
{
	unsigned n = geometry_n(w->options.geometry), first = (unsigned)chance_below(&w->chance, n);
	unsigned richest = store_richest(w);
	if (worst && richest < n && store_may_go(w, richest))
		site_lose_store(w, richest);
	for (unsigned i = 0; i < n; i++)
		if (!w->store_gone[(first + i) % n] && store_may_go(w, (first + i) % n))
			site_lose_store(w, (first + i) % n);
}

static void lose_stores(struct world *w)
{
	bool worst = chance_permille(&w->chance, 750);
	unsigned n = geometry_n(w->options.geometry);
	if (w->options.lose_stores)
		lose_some(w, worst);
	unsigned more = w->options.lose_more ? 1 : 0;
	if (more && chance_permille(&w->chance, 300))
		more += (unsigned)chance_below(&w->chance, 3);
	for (unsigned i = 0; i < more; i++) {
		unsigned index = worst ? store_richest(w) : (unsigned)chance_below(&w->chance, n);
		w->beyond = true;
		if (index < n)
			site_lose_store(w, index);
	}
}

/* What must be there: docs/semantics.md "modes". */
static enum owed owed_now(const struct world *w)
{
	if (w->converged || w->options.ack == ACK_DURABLE)
		return OWED_ALL;
	return w->options.ack == ACK_RECEIVED ? OWED_RECEIVED : OWED_ORDER;
}

/* More disks than may be lost say what is not so, or have forgotten what they said: nobody can know
 * what they held. */
static bool doubtful(const struct world *w)
{
	bool doubt = false;
	for (unsigned i = 0; i < geometry_n(w->options.geometry); i++)
		doubt |= w->store_liar[i] && !w->store_gone[i];
	for (unsigned i = 0; i < w->wound_count; i++)
		doubt |= w->wound[i].kind == WOUND_SLOTS;
	return w->beyond && (doubt || w->doubted);
}

static void check_served(struct world *w)
{
	w->promoted++;
	client_check_all(w, doubtful(w) ? OWED_NOTHING : owed_now(w));
	site_status(w, SITE_VAULT, &w->status);
	w->decoded += w->status.group[0].decoded;
	w->folds += w->status.group[0].fold > 0;
}

static void failover(struct world *w)
{
	struct command result;
	if (w->site[SITE_VAULT].alive)
		site_status(w, SITE_VAULT, &w->status);
	/* What it sent last may be gone with it. */
	if (w->options.ack == ACK_RECEIVED && chance_permille(&w->chance, 500))
		world_clog(w, SITE_VAULT);
	/* The site is gone, with what it had: nothing is asked of its disks any more. */
	site_crash(w, SITE_PRIMARY, CRASH_PROCESS);
	if (w->options.vault_crash_at_end || w->options.lose_stores) {
		site_crash(w, SITE_VAULT, draw_crash(w));
		lose_stores(w);
		w->doubted = doubtful(w); /* whatever is rebuilt from them */
		site_start(w, SITE_VAULT);
	}
	/* The vault sees that the primary is gone, and the last late datagram has come. */
	world_run(w, w->now + 6 * NS_PER_S, NULL);
	stores_noted(w);
	if (w->failed)
		return;
	int outcome = site_promote(w, false, &result);
	if (w->failed)
		return;
	stores_noted(w);
	if (outcome == 0)
		check_served(w);
	else if (w->options.adopted && !w->copied && result.number[0] == 0)
		w->refused++; /* part of an initial copy is nothing to serve */
	else if (w->beyond)
		w->refused++; /* it says what is missing; to lie would be worse */
	else
		world_fail(w, "promotion refused (%d): %s", outcome, result.text);
}

/* ---- a branch: what if the primary were lost now? ---- */
static struct branch_figures {
	uint64_t promoted, refused, decoded, crashes, received;
} * shared;
static void (*branch_report)(const struct world *);

/* The primary comes back after a power cut, and the sites become equal before it is lost. */
static void heal(struct world *w)
{
	site_crash(w, SITE_PRIMARY, CRASH_POWER);
	site_start(w, SITE_PRIMARY);
	w->issued_target = w->op_count;
	become_equal(w);
}

static void branch_run(struct world *w)
{
	w->branched = true;
	w->chance.state = chance_mix(w->chance.state);
	w->options.lose_stores = chance_permille(&w->chance, 900);
	w->options.lose_more = w->options.lose_stores && chance_permille(&w->chance, 400);
	w->options.vault_crash_at_end = chance_permille(&w->chance, 500);
	/* What was received, and no more, is owed while the vault lives. */
	if (w->options.ack == ACK_RECEIVED && chance_permille(&w->chance, 500))
		w->options.lose_stores = w->options.lose_more = w->options.vault_crash_at_end =
			false;
	uint64_t crashes = w->crashes;
	if (chance_permille(&w->chance, w->rested ? 800 : 300))
		heal(w);
	w->promoted = w->refused = w->decoded = w->received = 0;
	if (!w->failed)
		failover(w);
	if (w->failed) {
		branch_report(w);
		_exit(1);
	}
	*shared = (struct branch_figures){w->promoted, w->refused, w->decoded, w->crashes - crashes,
					  w->received};
	_exit(0);
}

/* The failover is tried in a process of its own, so that the run goes on as if it had not been. */
void branch(struct world *w)
{
	int status;
	chance_next(&w->chance);
	fflush(stdout);
	pid_t child = fork();
	must(child >= 0, "a branch has a process");
	if (child == 0)
		branch_run(w);
	must(waitpid(child, &status, 0) == child, "a branch ends");
	w->branches++;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		world_fail(w, "the failover that was tried here failed: see above");
		return;
	}
	w->promoted += shared->promoted;
	w->refused += shared->refused;
	w->decoded += shared->decoded;
	w->crashes += shared->crashes;
	w->received += shared->received;
}

void run(struct world *w, const struct options *options, void (*report)(const struct world *))
{
	if (!shared)
		shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(shared != MAP_FAILED, "branches tell their figures");
	branch_report = report;
	world_init(w, options);
	w->hazard = hazard;
	w->rebuild_make = rebuild_make;
	w->ordered = ordered;
	world_event(w, w->now, EVENT_HAZARD, SITE_VAULT, NULL, 0);
	site_start(w, SITE_VAULT);
	site_start(w, SITE_PRIMARY);
	faults(w);
	w->issued_target = w->options.operations;
	if (!w->failed && chance_permille(&w->chance, 500)) {
		become_equal(w);
	} else if (!w->failed) {
		after_promise(w);
	}
	if (!w->failed)
		failover(w);
	check_canaries(w);
}
