/* SPDX-License-Identifier: Apache-2.0 */
/* What goes wrong in a run, and when it is looked at. */
#ifndef CASEMATE_TESTS_SIM_FAULTS_H
#define CASEMATE_TESTS_SIM_FAULTS_H

#include "world.h"

/* faults.c: operations go on, and one fault comes after the other. */
void faults(struct world *);
/* Perhaps runs to the worst moment: right after a promise was made. */
void after_promise(struct world *);
/* Counts a store among those that may be lost; false when no more may be. */
bool store_spend(struct world *, unsigned index);

/* run.c */
enum crash draw_crash(struct world *);
/* What if the primary were lost now? Tried in a process of its own. */
void branch(struct world *);

#endif
