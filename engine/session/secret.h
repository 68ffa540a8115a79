/* SPDX-License-Identifier: Apache-2.0 */
/* Where long-lived secrets live: pages of their own that are never swapped, never in a core dump
 * and never in a child. And what the process does once so that none of its memory leaks. */
#ifndef CASEMATE_SESSION_SECRET_H
#define CASEMATE_SESSION_SECRET_H

#include "core/base.h"

/* gives: zeroed pages, locked in memory, or NULL with errno (EPERM: they cannot be locked, and a
 * key that could be swapped out is not taken; ENOMEM). For start-up, not for the data path. */
void *secret_take(size_t bytes);
/* takes back what secret_take gave, with the same size, wiped. NULL is nothing. */
void secret_give(void *secret, size_t bytes);

/* No core dumps, no debugger of the same user, for this process from now on. 0 or negative errno.
 * Once, before any secret is read. */
int secret_process_harden(void);

/* From now on all memory of libcrypto, where it keeps key schedules, private keys and the secrets
 * of TLS, is such memory too; what is freed is wiped. 0; -EPERM: it cannot be locked; -EBUSY:
 * libcrypto was used before. Before anything else. */
int secret_libcrypto_harden(void);

/* What an errno of these means to whoever can do something about it. */
const char *secret_why(int err);

#endif
