/* SPDX-License-Identifier: Apache-2.0 */
/* The table of the meter: what each stage costs per byte of user data, and how that compares with
 * the bare primitives of the same shape and variant in the same run. */
#include "bench_rows.h"
#include "cycles.h"

#include <stdio.h>
#include <stdlib.h>

static const struct bench_result *roofline_of(const struct bench_result *result,
					      const struct bench_result *all, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		const struct bench_case *what = all[i].what;
		if (!strcmp(what->row, "roofline") && what->shape == result->what->shape &&
		    !strcmp(what->variant, result->what->variant) && all[i].ns_per_turn > 0)
			return &all[i];
	}
	return NULL;
}

static void print_head(void)
{
	char line[256], model[128] = "unknown";
	FILE *info = fopen("/proc/cpuinfo", "r");

	while (info && fgets(line, sizeof line, info))
		if (sscanf(line, "model name : %127[^\n]", model) == 1)
			break;
	if (info)
		fclose(info);
	printf("# CPU: %s, %.2f GHz measured\n", model, cycles_ghz());
	printf("# cycles: %s\n", cycles_source());
	printf("# bytes are user data; time is CPU time of the thread; best repetition of each "
	       "row\n");
	printf("# seal, open, steps and roofline walk %d MiB of blocks and %d packets; encode, "
	       "decode, authenticate and crc work in cache\n",
	       BENCH_SOURCE_BYTES >> 20, BENCH_PACKET_COUNT);
	printf("# roofline: aead_seal of the block + stripe_encode + aead_seal per packet\n");
	printf("%-14s %-9s %-11s %9s %10s %10s %12s\n", "row", "variant", "shape", "us/block",
	       "GB/s", "cycles/B", "of roofline");
}

static void print_result(const struct bench_result *result, const struct bench_result *roofline)
{
	double bytes = result->bytes_per_turn;

	double blocks = bytes / result->what->shape->block_bytes;

	printf("%-14s %-9s %-11s %9.3f %10.2f ", result->what->row, result->what->variant,
	       result->what->shape->name, result->ns_per_turn / blocks / 1e3,
	       bytes / result->ns_per_turn);
	if (result->cycles_per_turn > 0)
		printf("%10.3f ", result->cycles_per_turn / bytes);
	else
		printf("%10s ", "-");
	if (roofline)
		printf("%12.2f\n", roofline->ns_per_turn / roofline->bytes_per_turn /
					   (result->ns_per_turn / bytes));
	else
		printf("%12s\n", "-");
}

int main(int argc, char **argv)
{
	unsigned count;

	bench_seal_add();
	bench_stripe_add();
	bench_crc_add();
	bench_frame_add();
	bench_steps_add();
	const struct bench_result *results = bench_run(&argc, argv, &count);
	print_head();
	for (unsigned i = 0; i < count; i++)
		if (results[i].ns_per_turn > 0)
			print_result(&results[i], roofline_of(&results[i], results, count));
	return EXIT_SUCCESS;
}
