/* SPDX-License-Identifier: Apache-2.0 */
/* Cycles, counted or reckoned. The TSC is of no use by itself: it ticks at the base clock while the
 * core runs faster, and goes on while others run. */
#include "cycles.h"

#include <linux/perf_event.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
	CHAIN_ROUNDS = 20000,
	CHAIN_LINKS = 16,    /* multiplications per round */
	MULTIPLY_CYCLES = 3, /* latency of imul r32, r32 on every x86-64 core since 2008 */
	CALIBRATIONS = 12,
};

static int counter = -1;
static double ghz;

static double cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

#if defined(__x86_64__)
/* Each multiplication waits for the one before. */
static void chain_run(void)
{
	uint32_t x = 3;

	for (unsigned round = 0; round < CHAIN_ROUNDS; round++)
		for (unsigned link = 0; link < CHAIN_LINKS / 4; link++)
			__asm__ volatile("imul %0, %0\n\timul %0, %0\n\timul %0, %0\n\timul %0, %0"
					 : "+r"(x));
}

void cycles_calibrate(void)
{
	double best_ns = 1e18;

	for (unsigned i = 0; i < CALIBRATIONS; i++) {
		double start = cpu_ns();
		chain_run();
		double spent = cpu_ns() - start;
		best_ns = spent < best_ns ? spent : best_ns;
	}
	ghz = (double)CHAIN_ROUNDS * CHAIN_LINKS * MULTIPLY_CYCLES / best_ns;
}
#else
void cycles_calibrate(void)
{
	ghz = 0;
}
#endif

void cycles_init(void)
{
	struct perf_event_attr what;

	memset(&what, 0, sizeof what);
	what.size = sizeof what;
	what.type = PERF_TYPE_HARDWARE;
	what.config = PERF_COUNT_HW_CPU_CYCLES;
	what.exclude_kernel = 1;
	what.exclude_hv = 1;
	counter = (int)syscall(SYS_perf_event_open, &what, 0, -1, -1, 0);
	cycles_calibrate();
}

const char *cycles_source(void)
{
	if (counter >= 0)
		return "counted by the CPU (perf_event, user mode)";
	return ghz > 0 ? "CPU time x clock rate (timed chain of multiplications)" : "unknown";
}

double cycles_ghz(void)
{
	return ghz;
}

double cycles_now(void)
{
	uint64_t count;

	if (counter < 0)
		return cpu_ns() * ghz;
	if (read(counter, &count, sizeof count) != sizeof count)
		return 0;
	return (double)count;
}
