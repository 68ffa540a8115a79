/* SPDX-License-Identifier: Apache-2.0 */
/* Core cycles spent by this thread: counted by the CPU where the kernel lets us (perf_event), else
 * CPU time multiplied by the clock rate, which is found by timing instructions of known latency. */
#ifndef CASEMATE_BENCH_CYCLES_H
#define CASEMATE_BENCH_CYCLES_H

#ifdef __cplusplus
extern "C" {
#endif

void cycles_init(void);
/* How cycles are known, as a phrase for the head of the table. */
const char *cycles_source(void);
/* Measures the clock rate anew, which takes about 3 ms; before each case, as the rate drifts. */
void cycles_calibrate(void);
double cycles_ghz(void); /* as last measured; 0 when unknown */
/* A running count; only differences mean something. Always 0 when unknown. */
double cycles_now(void);

#ifdef __cplusplus
}
#endif
#endif
