/* SPDX-License-Identifier: Apache-2.0 */
/* The operator of the vault: orders scrubs at any time, has stores rebuilt and bad disks replaced.
 * What is answered is judged by what the atlas allows. */
#include "faults.h"

#include <errno.h>
#include <string.h>

enum { REBUILDS_MAX = 30, SCRUBS_UNTIL_CLEAN = 4 };

static unsigned stores(const struct world *w)
{
	return geometry_n(w->options.geometry);
}

static void order_give(struct world *w, struct order *order, const struct command *what)
{
	struct site *site = &w->site[SITE_VAULT];
	must(!order->open, "an order is given once");
	order->command = *what;
	order->open = true;
	site->command[site->command_count++] = &order->command;
	site_step(w, SITE_VAULT);
}

/* A look at the vault that disturbs no other order. NULL while it opens, or is not there. */
static const struct group_status *look(struct world *w)
{
	const struct command what = {.kind = COMMAND_STATUS, .status = &w->looked};
	if (!w->site[SITE_VAULT].alive || w->failed)
		return NULL;
	order_give(w, &w->look, &what);
	const struct group_status *group = &w->looked.group[0];
	return strcmp(group->state, "opening") == 0 ? NULL : group;
}

/* ---- what is answered ---- */
static void scrub_answered(struct world *w, const struct command *command)
{
	w->scrubs++;
	w->scrubbed_bad += command->number[1];
	if (command->number[3] && !w->beyond)
		world_fail(w, "a scrub calls blocks lost of which enough is good: %s",
			   command->text);
}

static void rebuild_answered(struct world *w, const struct command *command)
{
	world_say(w, "rebuild of store %u: %d %s", command->store, command->result, command->text);
	if (command->result == 0) {
		w->rebuilt++;
		store_renewed(w, command->store);
	} else if (command->result == -ENODATA && !w->beyond) {
		world_fail(w, "a rebuild misses what the others have: %s", command->text);
	}
}

void ordered(struct world *w, struct command *command)
{
	struct order *order = container_of(command, struct order, command);
	must(order->open, "an order is answered once");
	if (command->kind == COMMAND_REBUILD_PREPARE && command->result == 0) {
		world_event(w, w->now, EVENT_REBUILD, SITE_VAULT, NULL, 0);
		return;
	}
	order->open = false;
	if (order == &w->scrub)
		scrub_answered(w, command);
	if (order == &w->rebuild)
		rebuild_answered(w, command);
	/* A store whose state is not known yet is told of again. */
	if (order == &w->removal && command->result != -EAGAIN)
		w->store_deleted[command->store] = false;
}

/* ---- orders ---- */
static void scrub_order(struct world *w)
{
	const struct command what = {.kind = COMMAND_SCRUB};
	if (!w->scrub.open)
		order_give(w, &w->scrub, &what);
}

static void rebuild_order(struct world *w, unsigned index)
{
	const struct command what = {.kind = COMMAND_REBUILD_PREPARE, .store = (uint8_t)index};
	if (w->rebuild.open)
		return;
	w->rebuilds++;
	order_give(w, &w->rebuild, &what);
}

/* The vault has given the old store up: a new disk comes in its place. */
void rebuild_make(struct world *w)
{
	struct command *command = &w->rebuild.command;
	unsigned index = command->store;
	struct site *site = &w->site[SITE_VAULT];
	if (!w->rebuild.open || command->kind != COMMAND_REBUILD_PREPARE || command->result)
		return;
	w->store_deleted[index] = false;
	w->old_disk[index] = w->start[SITE_VAULT].group[0].store[index].files;
	w->has_old_disk[index] = true;
	site_renew_store(w, index, &command->set, command->incarnation);
	world_say(w, "rebuild of store %u, incarnation %u", index, command->incarnation);
	command->kind = COMMAND_REBUILD;
	command->files = w->start[SITE_VAULT].group[0].store[index].files;
	site->command[site->command_count++] = command;
	site_step(w, SITE_VAULT);
}

/* Its files are deleted. The daemon sees that within a second. */
void store_delete(struct world *w, unsigned index)
{
	world_say(w, "store %u: its files are deleted", index);
	w->store_gone[index] = w->store_deleted[index] = true;
}

static void removal_order(struct world *w, unsigned index)
{
	const struct command what = {.kind = COMMAND_STORE_LOST, .store = (uint8_t)index};
	if (!w->removal.open)
		order_give(w, &w->removal, &what);
}

static void outs_noted(struct world *w, const struct group_status *group)
{
	for (unsigned i = 0; group && i < stores(w) && !w->beyond; i++) {
		if (group->store[i].in_service || w->store_spent[i] || w->away >> i & 1)
			continue;
		if (!store_has_bad_headers(w, i))
			world_fail(w, "store %u is out of service, and nothing is wrong with it",
				   i);
		w->store_spent[i] = true;
		world_say(w, "store %u is out for its journal", i);
	}
}

/* One that has all that counts is as good as any other. */
static void wanderers_noted(struct world *w, const struct group_status *group)
{
	for (unsigned i = 0; group && i < stores(w); i++)
		if (w->wanders[i] == WANDER_BACK && group->store[i].in_service &&
		    group->store[i].floor >= group->durable) {
			w->wanders[i] = WANDER_HOME;
			w->store_spent[i] = false;
			world_say(w, "store %u is back, and has all", i);
		}
}

void stores_noted(struct world *w)
{
	outs_noted(w, look(w));
}

bool store_serves(struct world *w, unsigned index)
{
	const struct group_status *group = look(w);
	return group && group->store[index].in_service;
}

/* ---- now and then ---- */
static bool takes_orders(const struct group_status *group)
{
	return strcmp(group->state, "vault") == 0 || strcmp(group->state, "serving") == 0;
}

static void rebuild_some(struct world *w, const struct group_status *group)
{
	unsigned n = stores(w), index = (unsigned)chance_below(&w->chance, n), tries = 0;
	while (tries < n && (!w->store_spent[index] || w->away >> index & 1)) {
		index = (index + 1) % n;
		tries++;
	}
	if (tries == n || w->rebuild.open || w->rebuilds >= REBUILDS_MAX)
		return;
	if (!group->store[index].in_service)
		rebuild_order(w, index);
	else if (w->store_liar[index] && !w->store_gone[index])
		store_delete(w, index);
}

void rebuild_begin(struct world *w)
{
	const struct group_status *group = look(w);
	if (fault_on(w, FAULT_REBUILD) && group && takes_orders(group))
		rebuild_some(w, group);
}

void hazard(struct world *w)
{
	world_event(w, w->now + chance_between(&w->chance, NS_PER_MS, w->options.hazard_pause),
		    EVENT_HAZARD, SITE_VAULT, NULL, 0);
	if (w->quiet)
		return;
	if (chance_permille(&w->chance, w->options.wounds))
		wound_draw(w);
	/* The daemon looks at its files from the start on. */
	for (unsigned i = 0; i < stores(w) && w->site[SITE_VAULT].alive; i++)
		if (w->store_deleted[i] && chance_permille(&w->chance, 500))
			removal_order(w, i);
	const struct group_status *group = look(w);
	outs_noted(w, group);
	wanderers_noted(w, group);
	if (!group || w->failed)
		return;
	w->promised = max_u64(w->promised, group->durable);
	if (!takes_orders(group) || !chance_permille(&w->chance, w->options.orders))
		return;
	if (fault_on(w, FAULT_SCRUB) && chance_permille(&w->chance, 200))
		scrub_order(w);
	if (fault_on(w, FAULT_REBUILD))
		rebuild_some(w, group);
}

/* ---- until all is well ---- */
static bool rebuild_over(struct world *w)
{
	return !w->rebuild.open;
}

static bool scrub_over(struct world *w)
{
	return !w->scrub.open;
}

static bool opened(struct world *w)
{
	return look(w) != NULL;
}

/* One step towards all in service; false when there was nothing to do. */
static bool store_restore(struct world *w)
{
	const struct group_status *group = look(w);
	for (unsigned i = 0; group && i < stores(w); i++) {
		if (group->store[i].in_service && w->store_liar[i]) {
			store_delete(w, i);
			removals_told(w);
			return true;
		}
		if (group->store[i].in_service)
			continue;
		rebuild_order(w, i);
		world_run(w, w->now + 120 * NS_PER_S, rebuild_over);
		return true;
	}
	return false;
}

static bool removal_over(struct world *w)
{
	return !w->removal.open;
}

void removals_told(struct world *w)
{
	for (unsigned i = 0; i < stores(w) && w->site[SITE_VAULT].alive; i++)
		for (unsigned tries = 0; tries < 100 && w->store_deleted[i] && !w->failed;
		     tries++) {
			removal_order(w, i);
			world_run(w, w->now + NS_PER_S, removal_over);
			world_run(w, w->now + 100 * NS_PER_MS, NULL);
		}
}

bool stores_restored(struct world *w)
{
	world_run(w, w->now + 60 * NS_PER_S, opened);
	world_run(w, w->now + 120 * NS_PER_S, rebuild_over);
	for (unsigned i = 0; i < 2 * stores(w) + 2 && !w->failed; i++)
		if (!store_restore(w))
			return opened(w);
	return false;
}

bool scrubbed_clean(struct world *w)
{
	world_run(w, w->now + 120 * NS_PER_S, scrub_over);
	for (unsigned i = 0; i < SCRUBS_UNTIL_CLEAN && !w->failed; i++) {
		scrub_order(w);
		world_run(w, w->now + 120 * NS_PER_S, scrub_over);
		if (w->scrub.open)
			break;
		if (w->scrub.command.result == 0 && !w->scrub.command.number[1])
			return true;
	}
	if (!w->failed && !w->beyond)
		world_fail(w, "scrub after scrub finds something bad: %llu shards now",
			   w->scrub.command.number[1]);
	return false;
}
