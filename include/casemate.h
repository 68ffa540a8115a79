/* SPDX-License-Identifier: Apache-2.0 */
/* casemate: keeps block volumes in a vault, sealed and erasure-coded, and brings them back. One
 * engine per process: it owns the process's DPDK environment, a lane and the control socket. */
#ifndef CASEMATE_H
#define CASEMATE_H

#ifdef __cplusplus
extern "C" {
#endif

struct casemate_engine;

/* gives: an engine of the site `node` (NULL: the one that the file names), with everything opened
 * and checked, and nothing served yet. 0 or a negative errno; what is wrong stands on stderr.
 * -EINVAL: the configuration is wrong. It is given before all is opened, so that it can be stopped
 * meanwhile: -ECANCELED. Taken back, as NULL, when the start fails. */
int casemate_engine_new(struct casemate_engine **, const char *config_path, const char *node);
/* Serves until casemate_engine_stop; then drains, for a bounded time. 0 or a negative errno. */
int casemate_engine_run(struct casemate_engine *);
/* From any thread or signal handler. */
void casemate_engine_stop(struct casemate_engine *);
void casemate_engine_free(struct casemate_engine *); /* wipes */

const char *casemate_version(void);

#ifdef __cplusplus
}
#endif
#endif
