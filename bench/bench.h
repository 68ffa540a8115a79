/* SPDX-License-Identifier: Apache-2.0 */
/* The meter: a body in C measures one row of the table on one variant (kernel or AEAD back end) and
 * one shape. Google Benchmark stands behind shim.cc and nowhere else, so this header is C and C++
 * and includes nothing of the project. A new row is a body, a bench_add for each of its cases, and
 * a line in bench_main.c and meson.build. */
#ifndef CASEMATE_BENCH_BENCH_H
#define CASEMATE_BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bench_shape {
	const char *name;
	uint32_t block_bytes;
	uint8_t k;
	uint8_t m;
};

enum { BENCH_SHAPE_COUNT = 5 };
extern const struct bench_shape bench_shapes[BENCH_SHAPE_COUNT];

struct bench_state;

struct bench_case {
	const char *row;     /* "seal", "encode", "primary step"; the bare primitives: "roofline" */
	const char *variant; /* as the table shows it */
	int choice;	     /* the variant as the body takes it: a kernel or back end */
	const struct bench_shape *shape;
	/* Sets up, then `while (bench_keep_running(state))` does one block per turn, tears down. */
	void (*body)(struct bench_state *, const struct bench_case *);
};

/* Takes a copy; the strings and the shape stay the caller's for life. */
void bench_add(const struct bench_case *);

/* The clock runs between the first call and the one that answers false. */
bool bench_keep_running(struct bench_state *);
/* Between the two the clock stands still: for what a row needs and is not about. */
void bench_pause(struct bench_state *);
void bench_resume(struct bench_state *);
/* Bytes of user data per turn; the block's size unless said. */
void bench_set_bytes(struct bench_state *, uint64_t bytes_per_turn);
/* Any other figure of the case; shown by --benchmark_out=FILE. */
void bench_set_counter(struct bench_state *, const char *name, double value);

/* The best repetition of a case. */
struct bench_result {
	const struct bench_case *what;
	double ns_per_turn; /* of this thread's CPU time; 0 when filtered out */
	double bytes_per_turn;
	double cycles_per_turn; /* 0 when unknown */
};

/* Runs all cases, and gives a result for each in the order of bench_add, good for life. argv may
 * hold --benchmark_* options. Ends the program on wrong ones. */
const struct bench_result *bench_run(int *argc, char **argv, unsigned *count);

#ifdef __cplusplus
}
#endif
#endif
