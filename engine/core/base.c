/* SPDX-License-Identifier: Apache-2.0 */
/* What happens when we broke our own rule: one line that names it, and a stop. */
#include "base.h"

#include <stdio.h>
#include <stdlib.h>

void must_fail(const char *file, int line, const char *condition, const char *reason)
{
	fprintf(stderr, "casemate: broken rule at %s:%d: %s (%s)\n", file, line, reason, condition);
	abort();
}
