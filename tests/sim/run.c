/* SPDX-License-Identifier: Apache-2.0 */
/* One seed from start to end: operations under faults, then perhaps a quiet time in which all must
 * meet, then a failover that is checked. */
#include "world.h"

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
	w->quiet = true;
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

static void floors_meet(struct world *w)
{
	lsn_t least = UINT64_MAX, most = 0;
	for (unsigned i = 0; i < 100 && !w->failed && !all_durable(w); i++)
		world_run(w, w->now + NS_PER_S, NULL);
	if (!w->failed && !all_durable(w))
		world_fail(w, "faults have ended, but durable stays at %llu of %llu (%s)",
			   (unsigned long long)w->status.group[0].durable,
			   (unsigned long long)w->status.group[0].lsn, w->status.group[0].state);
	world_run(w, w->now + 5 * NS_PER_S, NULL);
	if (w->failed)
		return;
	site_status(w, SITE_VAULT, &w->status);
	const struct group_status *group = &w->status.group[0];
	for (unsigned i = 0; i < geometry_n(w->options.geometry); i++)
		if (group->store[i].in_service) {
			least = min_u64(least, group->store[i].floor);
			most = max_u64(most, group->store[i].floor);
		}
	w->repaired += group->repaired;
	/* One that came back is as good as any other now. */
	if (w->wanderer < SHARDS_MAX && group->store[w->wanderer].in_service && least == most) {
		w->store_spent[w->wanderer] = false;
		w->stores_lost--;
		w->wanderer = SHARDS_MAX;
	}
	if (least != most)
		world_fail(w, "floors do not meet: %llu and %llu", (unsigned long long)least,
			   (unsigned long long)most);
}

/* From here on both sites hold the same bytes, whatever the mode promises. */
static void remember_device(struct world *w)
{
	const struct core_group *group = &w->start[SITE_PRIMARY].group[0];
	for (unsigned v = 0; v < w->options.volumes; v++) {
		const struct file *file = &w->site[SITE_PRIMARY].file[group->volume[v].device];
		w->device_copy[v] = malloc(file->size);
		memcpy(w->device_copy[v], file->cached, file->size);
	}
	w->converged = true;
}

static void become_equal(struct world *w)
{
	converge(w);
	if (!w->failed)
		floors_meet(w);
	if (!w->failed)
		remember_device(w);
}

static enum crash draw_crash(struct world *w)
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

static void lose_stores(struct world *w)
{
	bool worst = chance_permille(&w->chance, 750);
	unsigned n = geometry_n(w->options.geometry),
		 spare = w->options.quorum - w->options.geometry.k;
	while (w->options.lose_stores && w->stores_lost < spare) {
		unsigned index = worst ? store_richest(w) : (unsigned)chance_below(&w->chance, n);
		if (!w->store_gone[index] && !w->store_spent[index])
			site_lose_store(w, index);
		else
			worst = false;
	}
	unsigned more = w->options.lose_more ? 1 : 0;
	if (more && chance_permille(&w->chance, 300))
		more += (unsigned)chance_below(&w->chance, 3);
	for (unsigned i = 0; i < more; i++) {
		unsigned index = worst ? store_richest(w) : (unsigned)chance_below(&w->chance, n);
		if (index < n)
			site_lose_store(w, index);
	}
}

/* Whether all that was acknowledged must be there: docs/semantics.md "modes". */
static bool all_owed(const struct world *w)
{
	if (w->converged || w->options.ack == ACK_DURABLE)
		return true;
	return w->options.ack == ACK_RECEIVED && !w->vault_crashed;
}

static void failover(struct world *w)
{
	if (w->site[SITE_VAULT].alive)
		site_status(w, SITE_VAULT, &w->status);
	/* The site is gone, with what it had: nothing is asked of its disks any more. */
	site_crash(w, SITE_PRIMARY, CRASH_PROCESS);
	if (w->options.vault_crash_at_end || w->options.lose_stores) {
		site_crash(w, SITE_VAULT, draw_crash(w));
		lose_stores(w);
		site_start(w, SITE_VAULT);
	}
	/* The vault sees that the primary is gone, and the last late datagram has come. */
	world_run(w, w->now + 6 * NS_PER_S, NULL);
	if (w->failed)
		return;
	struct command result;
	int outcome = site_promote(w, false, &result);
	if (w->failed)
		return;
	if (outcome < 0 && w->options.lose_more) {
		w->refused++; /* it says what is missing; to lie would be worse */
		return;
	}
	if (outcome < 0) {
		world_fail(w, "promotion refused (%d): %s", outcome, result.text);
		return;
	}
	w->promoted++;
	client_check_all(w, all_owed(w));
	site_status(w, SITE_VAULT, &w->status);
	w->decoded += w->status.group[0].decoded;
	w->folds += w->status.group[0].fold > 0;
}

/* ---- a branch: what if the primary were lost now? ---- */
static struct branch_figures {
	uint64_t promoted, refused, decoded, crashes;
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
	w->chance.state = chance_mix(w->chance.state);
	w->options.lose_stores = chance_permille(&w->chance, 900);
	w->options.lose_more = w->options.lose_stores && chance_permille(&w->chance, 400);
	w->options.vault_crash_at_end = chance_permille(&w->chance, 500);
	uint64_t crashes = w->crashes;
	if (chance_permille(&w->chance, w->rested ? 800 : 300))
		heal(w);
	w->promoted = w->refused = w->decoded = 0;
	if (!w->failed)
		failover(w);
	if (w->failed) {
		branch_report(w);
		_exit(1);
	}
	*shared =
		(struct branch_figures){w->promoted, w->refused, w->decoded, w->crashes - crashes};
	_exit(0);
}

/* The failover is tried in a process of its own, so that the run goes on as if it had not been. */
static void branch(struct world *w)
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
}

/* ---- faults during the run ---- */
/* The worst moment is right after a promise was made. */
static uint64_t promises;

static bool promised(struct world *w)
{
	return w->firm_acks > promises;
}

static void after_promise(struct world *w)
{
	promises = w->firm_acks;
	if (chance_permille(&w->chance, 600))
		world_run(w, w->now + 100 * NS_PER_MS, promised);
}

static void restart_all(struct world *w)
{
	if (w->wanderer < SHARDS_MAX && !w->site[SITE_VAULT].alive)
		w->store_gone[w->wanderer] = chance_permille(&w->chance, 400);
	for (unsigned i = 0; i < SITES; i++)
		if (!w->site[i].alive)
			site_start(w, i);
}

/* A process is killed, starts again from what its disks have cached, promises more on top of that,
 * and then the power goes. */
static void fault_kill_and_cut(struct world *w)
{
	unsigned site = (unsigned)chance_below(&w->chance, 2);
	after_promise(w);
	site_crash(w, site, CRASH_PROCESS);
	restart_all(w);
	promises = w->firm_acks;
	world_run(w, w->now + chance_between(&w->chance, 50 * NS_PER_MS, NS_PER_S), promised);
	if (!w->failed && chance_permille(&w->chance, 500))
		branch(w);
	site_crash(w, site, CRASH_POWER);
	restart_all(w);
}

/* Until the vault has opened another span; not for ever. */
static void next_span(struct world *w)
{
	struct uuid before = {0};
	for (unsigned i = 0; i < 200 && !w->failed; i++) {
		site_status(w, SITE_VAULT, &w->status);
		const struct uuid *now = &w->status.group[0].span.id;
		if (i && !uuid_equal(now, &before))
			return;
		before = *now;
		world_run(w, w->now + 2 * NS_PER_MS, NULL);
	}
}

static void fault_crash(struct world *w, bool rested)
{
	unsigned site = (unsigned)chance_below(&w->chance, 2);
	if (!rested)
		after_promise(w);
	if (!w->failed && (rested || chance_permille(&w->chance, 500)))
		branch(w);
	enum crash kind = draw_crash(w);
	site_crash(w, site, kind);
	/* What the primary sent last may come when it speaks in another span already. */
	bool clogged = site == SITE_PRIMARY && chance_permille(&w->chance, 400);
	if (clogged)
		world_clog(w, SITE_VAULT);
	/* Sometimes both: the lights go out. */
	if (chance_permille(&w->chance, 150))
		site_crash(w, !site, draw_crash(w));
	world_run(w, w->now + chance_below(&w->chance, 200 * NS_PER_MS), NULL);
	restart_all(w);
	if (clogged) {
		next_span(w);
		world_release(w);
	}
	/* Again, while it still recovers, or what it recovered was never on the disk. */
	if (!chance_permille(&w->chance, kind == CRASH_PROCESS ? 500 : 200) || w->failed)
		return;
	world_run(w, w->now + chance_below(&w->chance, NS_PER_MS << chance_below(&w->chance, 10)),
		  NULL);
	if (!w->failed && chance_permille(&w->chance, 400))
		branch(w);
	site_crash(w, site, CRASH_POWER);
	restart_all(w);
}

/* The end of a catch-up is durable, the span in order is not. */
static bool between_spans(struct world *w)
{
	const struct group_status *group = &w->status.group[0];
	if (!w->site[SITE_PRIMARY].alive)
		return true;
	bool caught_up = strcmp(group->state ? group->state : "", "catching-up") == 0;
	site_status(w, SITE_PRIMARY, &w->status);
	return caught_up && strcmp(group->state, "waiting") == 0 &&
	       group->span.kind == SPAN_IN_ORDER;
}

/* The vault goes in the worst moment of a catch-up, and stays away for a while. */
static void fault_catch_up(struct world *w)
{
	site_crash(w, SITE_PRIMARY, draw_crash(w));
	site_start(w, SITE_PRIMARY);
	if (chance_permille(&w->chance, 500))
		world_run(w, w->now + chance_below(&w->chance, 60 * NS_PER_MS), NULL);
	else
		world_run(w, w->now + 2 * NS_PER_S, between_spans);
	site_crash(w, SITE_VAULT, draw_crash(w));
	world_run(w, w->now + chance_below(&w->chance, 4 * NS_PER_S), NULL);
	if (chance_permille(&w->chance, 300))
		site_crash(w, SITE_PRIMARY, draw_crash(w));
	restart_all(w);
}

static void fault_partition(struct world *w)
{
	w->partitioned = true;
	world_say(w, "partition");
	world_run(w, w->now + chance_below(&w->chance, 4 * NS_PER_S), NULL);
	w->partitioned = false;
	world_say(w, "healed");
}

static void fault_path(struct world *w)
{
	unsigned path = (unsigned)chance_below(&w->chance, w->options.paths);
	w->path_cut[path] = true;
	world_run(w, w->now + chance_below(&w->chance, 3 * NS_PER_S), NULL);
	w->path_cut[path] = false;
}

/* Writes need w stores, and a failover survives the loss of w - k. */
static bool store_spend(struct world *w, unsigned index)
{
	unsigned n = geometry_n(w->options.geometry), k = w->options.geometry.k;
	if (w->stores_lost + 1 + w->options.quorum > n ||
	    w->stores_lost + 1 + k > w->options.quorum || w->store_spent[index])
		return false;
	w->store_spent[index] = true;
	w->stores_lost++;
	return true;
}

/* A disk does not answer, for so long that its store goes out, and may answer after that. */
static bool fault_hang(struct world *w)
{
	unsigned index = (unsigned)chance_below(&w->chance, geometry_n(w->options.geometry));
	struct site *site = &w->site[SITE_VAULT];
	const struct store_files *files = &w->start[SITE_VAULT].group[0].store[index].files;
	if (!store_spend(w, index))
		return false;
	world_say(w, "store %u hangs", index);
	ns_t until = w->now + chance_between(&w->chance, 2 * NS_PER_S, 40 * NS_PER_S);
	for (unsigned i = files->superblock; i <= files->slots[w->options.volumes - 1]; i++) {
		site->file[i].hung = true;
		site->file[i].stalled = until;
	}
	world_run(w, w->now + chance_below(&w->chance, 16 * NS_PER_S), NULL);
	return true;
}

/* Some stores do not answer for a while, and catch up later; k of them go on. */
static void fault_stall(struct world *w)
{
	const struct core_group *group = &w->start[SITE_VAULT].group[0];
	unsigned n = geometry_n(w->options.geometry), m = w->options.geometry.m;
	unsigned count = m ? 1 + (unsigned)chance_below(&w->chance, m) : 0;
	unsigned first = (unsigned)chance_below(&w->chance, n);
	if (chance_permille(&w->chance, 600) && fault_hang(w))
		return;
	ns_t until = w->now + chance_below(&w->chance, 3 * NS_PER_S);
	for (unsigned i = 0; i < count; i++)
		w->site[SITE_VAULT].file[group->store[(first + i) % n].files.journal].stalled =
			until;
	world_run(w, w->now + chance_below(&w->chance, 2 * (until - w->now)), NULL);
	if (!w->failed && chance_permille(&w->chance, 500))
		branch(w);
}

/* A store's disk begins to fail, or to lie, or the store comes and goes. */
static void fault_store(struct world *w)
{
	unsigned index = (unsigned)chance_below(&w->chance, geometry_n(w->options.geometry));
	if (!store_spend(w, index))
		return;
	struct site *site = &w->site[SITE_VAULT];
	const struct store_files *files = &w->start[SITE_VAULT].group[0].store[index].files;
	struct file *journal = &site->file[files->journal];
	switch (chance_below(&w->chance, 4)) {
	case 0:
		world_say(w, "store %u begins to fail", index);
		journal->fail_after = 1 + chance_below(&w->chance, 20);
		w->store_gone[index] = true; /* from the next start on */
		break;
	case 1:
		world_say(w, "store %u will fail once, and forget", index);
		journal->fail_after = 1 + chance_below(&w->chance, 20);
		journal->forgets = true;
		break;
	case 2:
		world_say(w, "store %u lies from now on", index);
		for (unsigned i = 0; i < site->file_count; i++)
			if (i >= files->superblock && i <= files->slots[w->options.volumes - 1])
				site->file[i].lies = true;
		break;
	default:
		world_say(w, "store %u comes and goes from now on", index);
		if (w->wanderer == SHARDS_MAX)
			w->wanderer = index;
	}
}

static void faults(struct world *w)
{
	for (unsigned i = 0; i < w->options.crashes && !w->failed; i++) {
		/* Now and then a rest, so long that regions are no longer intended. */
		bool rested = w->rested = chance_permille(&w->chance, 200);
		if (rested)
			world_run(w, w->now + 4 * NS_PER_S, NULL);
		/* Something is asked for between any two faults. */
		w->issued_target = w->options.operations * (i + 1) / (w->options.crashes + 1);
		world_run(w, w->now + chance_below(&w->chance, (rested ? 20 : 400) * NS_PER_MS),
			  NULL);
		uint64_t dice = chance_below(&w->chance, 100);
		if (rested || dice < 45)
			fault_crash(w, rested);
		else if (dice < 58)
			fault_kill_and_cut(w);
		else if (dice < 68)
			fault_catch_up(w);
		else if (dice < 76)
			fault_stall(w);
		else if (dice < 82)
			fault_partition(w);
		else if (dice < 88)
			fault_path(w);
		else
			fault_store(w);
	}
}

void run(struct world *w, const struct options *options, void (*report)(const struct world *))
{
	if (!shared)
		shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(shared != MAP_FAILED, "branches tell their figures");
	branch_report = report;
	world_init(w, options);
	site_start(w, SITE_VAULT);
	site_start(w, SITE_PRIMARY);
	unsigned wanderer = (unsigned)chance_below(&w->chance, geometry_n(w->options.geometry));
	if (chance_permille(&w->chance, 400) && store_spend(w, wanderer))
		w->wanderer = wanderer;
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
