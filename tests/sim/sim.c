/* SPDX-License-Identifier: Apache-2.0 */
/* The swarm: each seed draws its own world and faults, runs, ends in a failover, and is checked.
 * `sim SEED` replays one; `sim --seeds N [--first S] [--step D]` runs many. A failure prints the
 * seed, the commit, its options, the first violated rule, the last events, and the command that
 * replays it. Of every hundred seeds one is run twice: it must take the same course. */
#include "world.h"

#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { TWICE_EVERY = 100 };

static struct world world;
static const char *program;

static void report(const struct world *w)
{
	printf("\n");
	for (unsigned i = w->log_next > LOG_LINES ? w->log_next - LOG_LINES : 0; i < w->log_next;
	     i++)
		printf("  %s\n", w->log[i % LOG_LINES]);
	printf("commit %s\n", sim_commit);
	options_print(&w->options, stdout);
	printf("FAILED: %s\nreplay: %s %llu\n", w->failure, program,
	       (unsigned long long)w->options.seed);
	fflush(stdout);
}

/* A broken must() is a failure like any other: it has a seed too. */
static void aborted(int number)
{
	signal(number, SIG_DFL);
	world_fail(&world,
		   "the product stopped at a rule of its own (signal %d): see the line above",
		   number);
	report(&world);
	_exit(1);
}

/* ---- what a swarm has seen, by name ---- */
static const struct {
	const char *name;
	size_t at;
} figures[] = {
	{"crashes", offsetof(struct world, crashes)},
	{"of them killed processes", offsetof(struct world, kills)},
	{"acknowledgements", offsetof(struct world, acks)},
	{"reads", offsetof(struct world, reads)},
	{"steps", offsetof(struct world, steps)},
	{"datagrams", offsetof(struct world, datagrams)},
	{"lost", offsetof(struct world, lost)},
	{"altered", offsetof(struct world, corrupted)},
	{"late", offsetof(struct world, late)},
	{"stores lost", offsetof(struct world, stores_lost)},
	{"branches that failed over", offsetof(struct world, branches)},
	{"promotions", offsetof(struct world, promoted)},
	{"of them owed as received", offsetof(struct world, received)},
	{"refused for too many losses", offsetof(struct world, refused)},
	{"blocks decoded", offsetof(struct world, decoded)},
	{"records repaired", offsetof(struct world, repaired)},
	{"runs folded", offsetof(struct world, folds)},
	{"places damaged", offsetof(struct world, wounds)},
	{"reads that failed or lied", offsetof(struct world, unread)},
	{"writes that strayed", offsetof(struct world, strayed)},
	{"disks put in a wrong place", offsetof(struct world, swaps)},
	{"scrubs", offsetof(struct world, scrubs)},
	{"bad shards found by them", offsetof(struct world, scrubbed_bad)},
	{"stores rebuilt", offsetof(struct world, rebuilt)},
	{"times all was whole", offsetof(struct world, clean)},
};
static uint64_t sum[ARRAY_COUNT(figures)];

static void figures_add(const struct world *w)
{
	for (unsigned i = 0; i < ARRAY_COUNT(figures); i++)
		sum[i] += *(const uint64_t *)(const void *)((const char *)w + figures[i].at);
}

static void figures_print(uint64_t seeds, uint64_t first)
{
	printf("%llu seeds from %llu", (unsigned long long)seeds, (unsigned long long)first);
	for (unsigned i = 0; i < ARRAY_COUNT(figures); i++)
		printf(", %llu %s", (unsigned long long)sum[i], figures[i].name);
	printf(": no violation\n");
}

/* ---- seeds ---- */
static bool seed_run(uint64_t seed, bool verbose, uint64_t *trace)
{
	struct options options;
	options_draw(&options, seed);
	options.verbose = verbose;
	run(&world, &options, report);
	*trace = world.trace;
	return !world.failed;
}

static bool seed_passes(uint64_t seed, bool verbose)
{
	uint64_t trace, again;
	bool good = seed_run(seed, verbose, &trace);
	figures_add(&world);
	if (good && seed % TWICE_EVERY == 0) {
		world_fini(&world);
		good = seed_run(seed, verbose, &again);
		if (good && again != trace)
			world_fail(&world,
				   "the same seed took another course: %016llx, then %016llx",
				   (unsigned long long)trace, (unsigned long long)again);
	}
	good = !world.failed;
	if (!good)
		report(&world);
	if (verbose)
		printf("trace %016llx\n", (unsigned long long)trace);
	world_fini(&world);
	return good;
}

int main(int argc, char **argv)
{
	static const struct option table[] = {{"seeds", required_argument, NULL, 'n'},
					      {"first", required_argument, NULL, 'f'},
					      {"step", required_argument, NULL, 's'},
					      {"verbose", no_argument, NULL, 'v'},
					      {0}};
	uint64_t seeds = 1, first = 1, step = 1;
	bool verbose = false;
	for (int c; (c = getopt_long(argc, argv, "n:f:s:v", table, NULL)) != -1;) {
		if (c == 'n')
			seeds = strtoull(optarg, NULL, 0);
		else if (c == 'f')
			first = strtoull(optarg, NULL, 0);
		else if (c == 's')
			step = strtoull(optarg, NULL, 0);
		else if (c == 'v')
			verbose = true;
		else
			return 2;
	}
	program = argv[0];
	/* Cores come and go: their memory is kept, which spares more page faults than all the rest.
	 */
	mallopt(M_MMAP_THRESHOLD, 32 << 20);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	signal(SIGABRT, aborted);
	signal(SIGSEGV, aborted);
	if (optind < argc)
		first = strtoull(argv[optind], NULL, 0);
	for (uint64_t i = 0; i < seeds; i++)
		if (!seed_passes(first + i * step, verbose))
			return 1;
	figures_print(seeds, first);
	return 0;
}
