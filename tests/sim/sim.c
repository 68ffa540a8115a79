/* SPDX-License-Identifier: Apache-2.0 */
/* The swarm: each seed draws its own world and faults, runs, ends in a failover, and is checked.
 * `sim SEED` replays one; `sim --seeds N [--first S]` runs many. A failure prints the seed, its
 * options, the first violated rule, the last events, and the command that replays it. */
#include "world.h"

#include <getopt.h>
#include <stdlib.h>

static struct world world;

/* ---- faults during the run ---- */
static void fault_crash(struct world *w)
{
	unsigned site = (unsigned)chance_below(&w->chance, 2);
	site_crash(w, site);
	/* Sometimes both: the lights go out. */
	if (chance_permille(&w->chance, 150))
		site_crash(w, !site);
	world_run(w, w->now + chance_below(&w->chance, 200 * NS_PER_MS), NULL);
	for (unsigned i = 0; i < SITES; i++)
		if (!w->site[i].alive)
			site_start(w, i);
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
	site_crash(w, SITE_PRIMARY);
	site_start(w, SITE_PRIMARY);
	if (chance_permille(&w->chance, 500))
		world_run(w, w->now + chance_below(&w->chance, 60 * NS_PER_MS), NULL);
	else
		world_run(w, w->now + 2 * NS_PER_S, between_spans);
	site_crash(w, SITE_VAULT);
	world_run(w, w->now + chance_below(&w->chance, 4 * NS_PER_S), NULL);
	if (chance_permille(&w->chance, 300))
		site_crash(w, SITE_PRIMARY);
	for (unsigned i = 0; i < SITES; i++)
		if (!w->site[i].alive)
			site_start(w, i);
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

/* A store's disk begins to fail while the group has one to spare. */
static void fault_store(struct world *w)
{
	unsigned n = geometry_n(w->options.geometry), index = (unsigned)chance_below(&w->chance, n);
	unsigned k = w->options.geometry.k;
	/* Writes need w stores, and a failover survives the loss of w - k. */
	if (w->stores_lost + 1 + w->options.quorum > n ||
	    w->stores_lost + 1 + k > w->options.quorum || w->store_gone[index])
		return;
	struct site *site = &w->site[SITE_VAULT];
	const struct store_files *files = &w->start[SITE_VAULT].group[0].store[index].files;
	site->file[files->journal].fail_after = 1 + chance_below(&w->chance, 20);
	world_say(w, "store %u begins to fail", index);
	w->store_gone[index] = true;
	w->stores_lost++;
}

static void faults(struct world *w)
{
	for (unsigned i = 0; i < w->options.crashes && !w->failed; i++) {
		world_run(w, w->now + chance_below(&w->chance, 400 * NS_PER_MS), NULL);
		uint64_t dice = chance_below(&w->chance, 100);
		if (dice < 60)
			fault_crash(w);
		else if (dice < 75)
			fault_catch_up(w);
		else if (dice < 85)
			fault_partition(w);
		else if (dice < 95)
			fault_path(w);
		else
			fault_store(w);
	}
}

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

static void floors_meet(struct world *w)
{
	lsn_t least = UINT64_MAX, most = 0;
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
	if (least != most)
		world_fail(w, "floors do not meet: %llu and %llu", (unsigned long long)least,
			   (unsigned long long)most);
	w->converged = !w->failed;
}

/* ---- the end: the primary is gone, stores are lost, the vault is promoted and read ---- */
static void lose_stores(struct world *w)
{
	unsigned n = geometry_n(w->options.geometry),
		 spare = w->options.quorum - w->options.geometry.k;
	while (w->options.lose_stores && w->stores_lost < spare) {
		unsigned index = (unsigned)chance_below(&w->chance, n);
		if (!w->store_gone[index])
			site_lose_store(w, index);
	}
}

static void failover(struct world *w)
{
	bool reliable = w->options.ack == ACK_DURABLE;
	site_crash(w, SITE_PRIMARY);
	bool restart = w->options.vault_crash_at_end || w->options.lose_stores;
	if (restart) {
		site_crash(w, SITE_VAULT);
		lose_stores(w);
		site_start(w, SITE_VAULT);
	}
	world_run(w, w->now + 5 * NS_PER_S, NULL); /* the vault sees that the primary is gone */
	if (w->failed)
		return;
	struct command result;
	int outcome = site_promote(w, false, &result);
	if (outcome < 0 && !w->failed) {
		world_fail(w, "promotion refused (%d): %s", outcome, result.text);
		return;
	}
	w->promoted++;
	if (reliable || w->converged)
		client_check_all(w);
	site_status(w, SITE_VAULT, &w->status);
	w->decoded += w->status.group[0].decoded;
	w->folds += w->status.group[0].fold > 0;
}

static void run(struct world *w, const struct options *options)
{
	world_init(w, options);
	site_start(w, SITE_VAULT);
	site_start(w, SITE_PRIMARY);
	faults(w);
	if (!w->failed && chance_permille(&w->chance, 700)) {
		converge(w);
		if (!w->failed)
			floors_meet(w);
	}
	if (!w->failed)
		failover(w);
	check_canaries(w);
}

static void report(struct world *w, const char *program)
{
	printf("\n");
	for (unsigned i = w->log_next > LOG_LINES ? w->log_next - LOG_LINES : 0; i < w->log_next;
	     i++)
		printf("  %s\n", w->log[i % LOG_LINES]);
	options_print(&w->options, stdout);
	printf("FAILED: %s\nreplay: %s %llu\n", w->failure, program,
	       (unsigned long long)w->options.seed);
}

int main(int argc, char **argv)
{
	static const struct option table[] = {{"seeds", required_argument, NULL, 'n'},
					      {"first", required_argument, NULL, 'f'},
					      {"verbose", no_argument, NULL, 'v'},
					      {0}};
	uint64_t seeds = 1, first = 1;
	bool verbose = false;
	for (int c; (c = getopt_long(argc, argv, "n:f:v", table, NULL)) != -1;) {
		if (c == 'n')
			seeds = strtoull(optarg, NULL, 0);
		else if (c == 'f')
			first = strtoull(optarg, NULL, 0);
		else if (c == 'v')
			verbose = true;
		else
			return 2;
	}
	if (optind < argc)
		first = strtoull(argv[optind], NULL, 0);
	uint64_t crashes = 0, acks = 0, steps = 0, lost = 0, promoted = 0, decoded = 0,
		 repaired = 0, folds = 0;
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		struct options options;
		options_draw(&options, seed);
		options.verbose = verbose;
		run(&world, &options);
		crashes += world.crashes;
		acks += world.acks;
		steps += world.steps;
		lost += world.stores_lost;
		promoted += world.promoted;
		decoded += world.decoded;
		repaired += world.repaired;
		folds += world.folds;
		bool failed = world.failed;
		if (failed)
			report(&world, argv[0]);
		world_fini(&world);
		if (failed)
			return 1;
	}
	printf("%llu seeds, %llu crashes, %llu acknowledgements, %llu steps, %llu stores lost, "
	       "%llu promotions, "
	       "%llu blocks decoded, %llu records repaired, %llu runs folded: no violation\n",
	       (unsigned long long)seeds, (unsigned long long)crashes, (unsigned long long)acks,
	       (unsigned long long)steps, (unsigned long long)lost, (unsigned long long)promoted,
	       (unsigned long long)decoded, (unsigned long long)repaired,
	       (unsigned long long)folds);
	return 0;
}
