/* SPDX-License-Identifier: Apache-2.0 */
/* What goes wrong during a run, between operations: crashes at bad moments, catch-ups that are
 * disturbed, stores that fail, lie or go, paths that are cut. */
#include "faults.h"

#include <string.h>

/* The worst moment is right after a promise was made. */
static uint64_t promises;

static bool promised(struct world *w)
{
	return w->firm_acks > promises;
}

void after_promise(struct world *w)
{
	promises = w->firm_acks;
	if (chance_permille(&w->chance, 600))
		world_run(w, w->now + 100 * NS_PER_MS, promised);
}

/* Who was away may be back, and others may be away instead, as far as stores may be lost. */
static void stores_wander(struct world *w)
{
	unsigned n = geometry_n(w->options.geometry), first = (unsigned)chance_below(&w->chance, n);
	for (unsigned i = 0; i < n; i++)
		if (w->wanders[i] == WANDER_AWAY) {
			w->wanders[i] = WANDER_BACK;
			w->store_gone[i] = false;
		}
	for (unsigned i = 0; i < n && !w->beyond; i++) {
		unsigned index = (first + i) % n;
		if (w->store_gone[index] || !chance_permille(&w->chance, 300) ||
		    (w->wanders[index] != WANDER_BACK && !store_spend(w, index)))
			continue;
		w->wanders[index] = WANDER_AWAY;
		w->store_gone[index] = true;
		world_say(w, "store %u is away", index);
	}
}

static void restart_all(struct world *w)
{
	if (fault_on(w, FAULT_WANDER) && !w->site[SITE_VAULT].alive)
		stores_wander(w);
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

/* A span is being recorded: some superblocks may have it, others not. */
static bool recording(struct world *w)
{
	const struct site *site = &w->site[SITE_VAULT];
	const struct core_group *group = &w->start[SITE_VAULT].group[0];
	for (unsigned i = site->pending_oldest; i != site->pending_next; i++) {
		const struct pending *pending = &site->pending[i % PENDING_MAX];
		for (unsigned s = 0; pending->open && s < geometry_n(w->options.geometry); s++)
			if (pending->file == group->store[s].files.superblock &&
			    pending->kind == IO_WRITE_DURABLE)
				return true;
	}
	return false;
}

/* The vault loses power while it records, and its primary is gone too. Other stores go on in
 * another span, and promise more; then who has recorded the first one alone may be back. */
static void fault_record(struct world *w)
{
	if (chance_permille(&w->chance, 300)) {
		rebuild_begin(w);
	} else {
		site_crash(w, SITE_PRIMARY, draw_crash(w));
		site_start(w, SITE_PRIMARY);
	}
	world_run(w, w->now + 2 * NS_PER_S, recording);
	world_run(w, w->now + chance_below(&w->chance, w->options.disk_most), NULL);
	site_crash(w, SITE_VAULT, CRASH_POWER);
	if (chance_permille(&w->chance, 700))
		site_crash(w, SITE_PRIMARY, draw_crash(w));
	restart_all(w);
	promises = w->firm_acks;
	world_run(w, w->now + chance_between(&w->chance, 50 * NS_PER_MS, 4 * NS_PER_S), promised);
	site_crash(w, SITE_VAULT, draw_crash(w));
	restart_all(w);
	if (!w->failed && chance_permille(&w->chance, 500))
		branch(w);
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

/* A disk does not answer, for so long that its store goes out, and may answer after that. */
static bool fault_hang(struct world *w)
{
	unsigned index = (unsigned)chance_below(&w->chance, geometry_n(w->options.geometry));
	struct site *site = &w->site[SITE_VAULT];
	const struct store_files *files = &w->start[SITE_VAULT].group[0].store[index].files;
	if (w->store_gone[index] || !store_spend(w, index))
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
	if (!w->beyond && chance_permille(&w->chance, 300) && fault_hang(w))
		return;
	ns_t until = w->now + chance_below(&w->chance, 3 * NS_PER_S);
	for (unsigned i = 0; i < count; i++)
		w->site[SITE_VAULT].file[group->store[(first + i) % n].files.journal].stalled =
			until;
	world_run(w, w->now + chance_below(&w->chance, 2 * (until - w->now)), NULL);
	if (!w->failed && chance_permille(&w->chance, 500))
		branch(w);
}

/* ---- stores ---- */
/* All files of a store, whose disk goes bad in one of these ways. */
static void disk_turns(struct world *w, unsigned index, enum fault how)
{
	const struct store_files *files = &w->start[SITE_VAULT].group[0].store[index].files;
	struct site *site = &w->site[SITE_VAULT];
	w->store_liar[index] = true;
	for (unsigned i = files->superblock; i <= files->slots[w->options.volumes - 1]; i++) {
		struct file *file = &site->file[i];
		file->lies |= how == FAULT_LIE;
		if (how == FAULT_LOST_WRITES)
			file->lost_writes = w->options.lost_writes;
		if (how == FAULT_MISDIRECTED)
			file->misdirected = w->options.misdirected;
		if (how == FAULT_MISREAD)
			file->misread = w->options.misread;
	}
	if (how == FAULT_FAIL || how == FAULT_FORGET)
		site->file[files->journal].fail_after = 1 + chance_below(&w->chance, 20);
	site->file[files->journal].forgets = how == FAULT_FORGET;
	w->store_gone[index] = how == FAULT_FAIL; /* from the next start on */
}

static void fault_disk(struct world *w, enum fault how)
{
	static const char *const words[FAULTS] = {[FAULT_FAIL] = "begins to fail",
						  [FAULT_FORGET] = "will fail once, and forget",
						  [FAULT_LIE] = "lies from now on",
						  [FAULT_LOST_WRITES] = "loses writes",
						  [FAULT_MISDIRECTED] = "misdirects writes",
						  [FAULT_MISREAD] = "misreads"};
	unsigned index = (unsigned)chance_below(&w->chance, geometry_n(w->options.geometry));
	if (w->store_gone[index] || !store_spend(w, index))
		return;
	world_say(w, "store %u %s", index, words[how]);
	disk_turns(w, index, how);
}

static void fault_gone(struct world *w)
{
	unsigned index = (unsigned)chance_below(&w->chance, geometry_n(w->options.geometry));
	if (!w->store_gone[index] && store_spend(w, index))
		store_delete(w, index);
}

/* Whoever is in the wrong place, or was replaced, must not be taken for what is missing there. */
static void wrong_disks(struct world *w, uint32_t wrong)
{
	w->away = wrong;
	site_start(w, SITE_VAULT);
	world_run(w, w->now + chance_between(&w->chance, 100 * NS_PER_MS, 2 * NS_PER_S), NULL);
	for (unsigned i = 0; i < SHARDS_MAX && !w->failed; i++)
		if (wrong >> i & 1 && store_serves(w, i))
			world_fail(w, "store %u serves from a disk that is not its own", i);
	w->swaps++;
	site_crash(w, SITE_VAULT, draw_crash(w));
	w->away = 0;
}

static void files_swap(struct world *w, struct store_files *a, struct store_files *b)
{
	struct store_files other = *a;
	*a = *b;
	*b = other;
	world_say(w, "disks change places");
}

/* Two that are not in their place are two that are lost, for the time. Where that is more than may
 * be, the vault must refuse to open: then nothing happens that they could miss. */
static bool may_swap(struct world *w, unsigned one, unsigned other)
{
	unsigned n = geometry_n(w->options.geometry), k = w->options.geometry.k;
	if (w->store_gone[one] || w->store_gone[other] || w->rebuild.open)
		return false;
	if (n - 2 < max_u64(k, n - w->options.quorum + 1u))
		return true;
	if (!store_spend(w, one))
		return false;
	if (store_spend(w, other))
		return true;
	w->store_spent[one] = false;
	w->stores_lost--;
	return false;
}

static void fault_swap(struct world *w)
{
	struct core_group *group = &w->start[SITE_VAULT].group[0];
	unsigned n = geometry_n(w->options.geometry);
	unsigned one = (unsigned)chance_below(&w->chance, n);
	unsigned other = (one + 1 + (unsigned)chance_below(&w->chance, n - 1)) % n;
	if (!may_swap(w, one, other))
		return;
	site_crash(w, SITE_VAULT, draw_crash(w));
	files_swap(w, &group->store[one].files, &group->store[other].files);
	wrong_disks(w, 1u << one | 1u << other);
	files_swap(w, &group->store[one].files, &group->store[other].files);
	restart_all(w);
}

static void fault_old_disk(struct world *w)
{
	unsigned index = (unsigned)chance_below(&w->chance, geometry_n(w->options.geometry));
	struct store_files *files = &w->start[SITE_VAULT].group[0].store[index].files;
	if (!w->has_old_disk[index] || w->rebuild.open || w->store_gone[index] ||
	    !store_spend(w, index))
		return;
	site_crash(w, SITE_VAULT, draw_crash(w));
	files_swap(w, files, &w->old_disk[index]);
	wrong_disks(w, 1u << index);
	files_swap(w, files, &w->old_disk[index]);
	restart_all(w);
}

static void fault_store(struct world *w)
{
	enum fault kind = FAULTS;
	unsigned seen = 0;
	for (unsigned i = 0; i <= FAULT_OLD_DISK; i++)
		if (fault_on(w, i) && chance_below(&w->chance, ++seen) == 0)
			kind = (enum fault)i;
	if (w->beyond)
		return;
	if (kind == FAULT_WANDER)
		fault_record(w);
	else if (kind == FAULT_GONE)
		fault_gone(w);
	else if (kind == FAULT_SWAP)
		fault_swap(w);
	else if (kind == FAULT_OLD_DISK)
		fault_old_disk(w);
	else if (kind <= FAULT_OLD_DISK)
		fault_disk(w, kind);
}

/* And then all begins anew. */
static void whole_again(struct world *w)
{
	restart_all(w);
	become_whole(w);
	w->quiet = false;
}

void faults(struct world *w)
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
		if (rested || dice < 34)
			fault_crash(w, rested);
		else if (dice < 45)
			fault_kill_and_cut(w);
		else if (dice < 54)
			fault_catch_up(w);
		else if (dice < 60)
			fault_stall(w);
		else if (dice < 64)
			fault_partition(w);
		else if (dice < 68)
			fault_path(w);
		else if (dice < 73)
			whole_again(w);
		else if (dice < 79)
			fault_record(w);
		else
			fault_store(w);
	}
}
