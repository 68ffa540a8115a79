/* SPDX-License-Identifier: Apache-2.0 */
/* Between the two files of a rebuild: its course (rebuild.c) and the image (rebuild_copy.c). */
#ifndef CASEMATE_CORE_REBUILD_H
#define CASEMATE_CORE_REBUILD_H

#include "vault.h"

/* Ends it: the order is answered when nobody works for the new store any more. */
void rebuild_give_up(struct vault *, int err, const char *why, struct effects *);

/* True when each block of each volume is in the image, or in the journal. */
bool copy_turn(struct vault *, struct effects *);
/* Ends what waits for a fold. */
void copy_drop(struct vault *, struct effects *);

#endif
