/* SPDX-License-Identifier: Apache-2.0 */
/* What goes wrong in a run, what is ordered meanwhile, and when it is looked at. */
#ifndef CASEMATE_TESTS_SIM_FAULTS_H
#define CASEMATE_TESTS_SIM_FAULTS_H

#include "world.h"

static inline bool fault_on(const struct world *w, enum fault fault)
{
	return w->options.faults >> fault & 1;
}

/* faults.c: operations go on, and one fault comes after the other. */
void faults(struct world *);
/* Perhaps runs to the worst moment: right after a promise was made. */
void after_promise(struct world *);

/* damage.c: how much may be lost, and what is damaged already */
/* Whether the loss of this store is covered by the promise. */
bool store_may_go(const struct world *, unsigned index);
unsigned stores_good(const struct world *);
/* Counts a store among those that may be lost; false when no more may be. */
bool store_spend(struct world *, unsigned index);
/* A new disk is in service in its place. */
void store_renewed(struct world *, unsigned index);
/* Damages something of what this seed damages, if it may. */
void wound_draw(struct world *);
/* All stores are in service, all floors are equal, a scrub has found nothing bad. */
void wounds_heal(struct world *);
/* It may be out after a start: what it lacks may have been folded by the others. */
bool store_has_bad_headers(const struct world *, unsigned index);

/* operator.c */
/* The next hazard: now and then something is damaged, or ordered. */
void hazard(struct world *);
void rebuild_make(struct world *);
void ordered(struct world *, struct command *);
/* The files of a store are deleted while it is in use. */
void store_delete(struct world *, unsigned index);
/* Orders that a store which is out be rebuilt, if there is one and the vault takes orders. */
void rebuild_begin(struct world *);
/* Whether the store is in service, as the vault says. */
bool store_serves(struct world *, unsigned index);
/* Notes which stores a start has left out, and whether that was to be expected. */
void stores_noted(struct world *);
/* Tells the vault of stores that are gone. */
void removals_told(struct world *);
/* Brings every store back; then scrubs until nothing is bad. False when it cannot be done. */
bool stores_restored(struct world *);
bool scrubbed_clean(struct world *);

/* run.c */
/* Faults end, all that is out is brought back, all that is damaged is repaired; it is checked that
 * this is so. */
void become_whole(struct world *);
enum crash draw_crash(struct world *);
/* What if the primary were lost now? Tried in a process of its own. */
void branch(struct world *);

#endif
