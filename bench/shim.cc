/* SPDX-License-Identifier: Apache-2.0 */
/* The only C++ of the project: bench.h on top of Google Benchmark. Bodies are registered by name,
 * and of several repetitions the best one counts, as all that disturbs a run makes it slower. */
#include "bench.h"
#include "cycles.h"

#include <benchmark/benchmark.h>
#include <cstdlib>
#include <deque>
#include <string>
#include <vector>

struct bench_state {
	benchmark::State &state;
	double bytes;
	double cycles_start;
	double cycles;
	bool running;
	double paused_at;
};

namespace
{

std::deque<bench_case> cases; /* elements stay where they are */
std::vector<bench_result> results;

void run_case(benchmark::State &state, size_t index)
{
	const bench_case &what = cases[index];
	bench_state bench = {state, double(what.shape->block_bytes), 0, 0, false, 0};

	cycles_calibrate();
	what.body(&bench, &what);
	double turns = double(state.iterations());
	state.SetBytesProcessed(int64_t(turns * bench.bytes));
	state.counters["case"] = double(index);
	state.counters["bytes"] = bench.bytes;
	state.counters["cycles"] = bench.cycles / turns;
}

class best_reporter : public benchmark::BenchmarkReporter
{
      public:
	bool ReportContext(const Context &) override { return true; }

	void ReportRuns(const std::vector<Run> &runs) override
	{
		for (const Run &run : runs) {
			if (run.run_type != Run::RT_Iteration || run.error_occurred)
				continue;
			bench_result &best = results[size_t(run.counters.at("case").value)];
			double ns = run.cpu_accumulated_time * 1e9 / double(run.iterations);
			if (best.ns_per_turn != 0 && best.ns_per_turn <= ns)
				continue;
			best.ns_per_turn = ns;
			best.bytes_per_turn = run.counters.at("bytes").value;
			best.cycles_per_turn = run.counters.at("cycles").value;
		}
	}
};

} // namespace

void bench_add(const bench_case *what)
{
	cases.push_back(*what);
}

bool bench_keep_running(bench_state *bench)
{
	if (!bench->running) {
		bench->running = true;
		bench->cycles_start = cycles_now();
	}
	if (bench->state.KeepRunning())
		return true;
	bench->cycles = cycles_now() - bench->cycles_start;
	return false;
}

void bench_pause(bench_state *bench)
{
	bench->paused_at = cycles_now();
	bench->state.PauseTiming();
}

void bench_resume(bench_state *bench)
{
	bench->state.ResumeTiming();
	bench->cycles_start += cycles_now() - bench->paused_at;
}

void bench_set_bytes(bench_state *bench, uint64_t bytes_per_turn)
{
	bench->bytes = double(bytes_per_turn);
}

void bench_set_counter(bench_state *bench, const char *name, double value)
{
	bench->state.counters[name] = value;
}

const bench_result *bench_run(int *argc, char **argv, unsigned *count)
{
	benchmark::Initialize(argc, argv);
	if (benchmark::ReportUnrecognizedArguments(*argc, argv))
		exit(EXIT_FAILURE);
	cycles_init();
	results.clear();
	for (size_t i = 0; i < cases.size(); i++) {
		std::string name = std::string(cases[i].row) + "/" + cases[i].variant + "/" +
				   cases[i].shape->name;
		results.push_back(bench_result{&cases[i], 0, 0, 0});
		benchmark::RegisterBenchmark(name.c_str(), run_case, i);
	}
	best_reporter reporter;
	benchmark::RunSpecifiedBenchmarks(&reporter);
	benchmark::Shutdown();
	*count = unsigned(results.size());
	return results.data();
}
