/* SPDX-License-Identifier: Apache-2.0 */
/* What `casemate status` is told: the core's figures as JSON, schema 1. Keys are only ever added.
 */
#ifndef CASEMATE_STATUS_H
#define CASEMATE_STATUS_H

#include "config.h"

/* gives: {"schema": 1, "node": ..., "linked": ..., "groups": [...], "paths": [...]}. The status is
 * of the site config->self. */
json_t *status_json(const struct core_status *, const struct config *);

#endif
