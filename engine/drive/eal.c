/* SPDX-License-Identifier: Apache-2.0 */
/* DPDK's environment: its arguments, what must be cleared away before, and what must be there
 * after. */
#include "eal.h"

#include "device_argument.h"

#include <rte_alarm.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	ARGUMENTS_MAX = 16 + 2 * EAL_DEVICES_MAX + EAL_EXTRA_MAX,
	ARGUMENT_BYTES = 512,
	HUGEPAGE_MIB = 2,
	APART_WITHIN_S = 5,
};

/* EAL keeps pointers to what it was given. */
static struct {
	char text[ARGUMENTS_MAX][ARGUMENT_BYTES];
	char *pointer[ARGUMENTS_MAX + 1];
	int count;
	bool too_long;
	bool started;
	/* sockets of our memif servers: made under another name, shown under this one */
	char socket[EAL_DEVICES_MAX][ARGUMENT_BYTES];
	unsigned socket_count;
} eal;
#define SOCKET_HIDDEN ".new"

static int fail(char *why, size_t why_bytes, int error, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
static int fail(char *why, size_t why_bytes, int error, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(why, why_bytes, format, arguments);
	va_end(arguments);
	return error;
}

static void argument(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void argument(const char *format, ...)
{
	va_list arguments;
	must(eal.count < ARGUMENTS_MAX, "the bounds of the configuration bound the arguments");
	va_start(arguments, format);
	int length = vsnprintf(eal.text[eal.count], ARGUMENT_BYTES, format, arguments);
	va_end(arguments);
	eal.too_long |= length < 0 || length >= ARGUMENT_BYTES;
	eal.pointer[eal.count] = eal.text[eal.count];
	eal.count++;
}

/* ---- hugepages and CPUs ---- */

#define HUGEPAGES_FREE "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"

/* Daemons that start at once on one machine would count the same pages: from the count until EAL
 * has taken its own, one of them at a time. The file is only something that all can open; close
 * unlocks. Where it is not there nothing is counted either. */
static int hugepages_lock(void)
{
	int descriptor = open(HUGEPAGES_FREE, O_RDONLY | O_CLOEXEC);
	if (descriptor >= 0)
		(void)flock(descriptor, LOCK_EX);
	return descriptor;
}

static void hugepages_unlock(int descriptor)
{
	if (descriptor >= 0)
		close(descriptor);
}

static uint64_t hugepages_free_mib(void)
{
	unsigned long long pages = 0;
	FILE *file = fopen(HUGEPAGES_FREE, "re");
	if (!file)
		return 0;
	if (fscanf(file, "%llu", &pages) != 1)
		pages = 0;
	fclose(file);
	return pages * HUGEPAGE_MIB;
}

static bool wants_hugepages(const struct eal_config *config)
{
	if (config->hugepages == EAL_HUGEPAGES_AUTO)
		return hugepages_free_mib() >= config->memory_mib;
	return config->hugepages == EAL_HUGEPAGES_ON;
}

static bool cpu_usable(int cpu)
{
	cpu_set_t set;
	if (cpu == EAL_CPU_ANY || sched_getaffinity(0, sizeof set, &set) < 0)
		return true;
	return cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET(cpu, &set);
}

/* One lcore, floating over the CPUs that the thread has now. "-l" or nothing would pin it to the
 * first of them, where the next daemon would sit too. */
static void argument_lcores(int cpu)
{
	char list[ARGUMENT_BYTES - 32] = "";
	size_t at = 0;
	cpu_set_t set;
	if (cpu != EAL_CPU_ANY || sched_getaffinity(0, sizeof set, &set) < 0) {
		argument("--lcores=0@%d", cpu == EAL_CPU_ANY ? 0 : cpu);
		return;
	}
	for (int first = 0; first < CPU_SETSIZE; first++) {
		if (!CPU_ISSET(first, &set))
			continue;
		int last = first;
		while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set))
			last++;
		if (at + 16 < sizeof list)
			at += (size_t)snprintf(list + at, sizeof list - at, "%s%d-%d",
					       at ? "," : "", first, last);
		first = last;
	}
	argument("--lcores=0@(%s)", list);
}

/* ---- sockets of memif ---- */

static bool server_socket(const char *vdev, char *path, size_t path_bytes)
{
	char role[16];
	return !strncmp(vdev, "net_memif", 9) && device_argument(vdev, "role", role, sizeof role) &&
	       (!strcmp(role, "server") || !strcmp(role, "master")) &&
	       device_argument(vdev, "socket", path, path_bytes);
}

/* A client may try again ten times a second. One that comes while our devices are still being made
 * is turned away in a way that net_memif does not survive for sure (a source of interrupts whose
 * descriptor is closed: EAL panics), or it waits for good. So the socket is made under another name
 * and gets its own once every port was started. */
static void socket_remember(const char *path)
{
	for (unsigned i = 0; i < eal.socket_count; i++)
		if (!strcmp(eal.socket[i], path))
			return;
	snprintf(eal.socket[eal.socket_count++], ARGUMENT_BYTES, "%s", path);
}

static void argument_vdev(const char *vdev)
{
	char path[ARGUMENT_BYTES];
	const char *at = server_socket(vdev, path, sizeof path) ? strstr(vdev, ",socket=") : NULL;
	if (!at) {
		argument("--vdev=%s", vdev);
		return;
	}
	at += strlen(",socket=") + strlen(path);
	argument("--vdev=%.*s" SOCKET_HIDDEN "%s", (int)(at - vdev), vdev, at);
	socket_remember(path);
}

static void arguments_build(const struct eal_config *config, bool hugepages)
{
	argument("casemate");
	argument("--no-telemetry");
	argument("--log-level=error");
	argument("-m");
	argument("%u", config->memory_mib);
	argument("--file-prefix=%s", config->file_prefix);
	/* No other process shares our memory, so no file is left behind that only the next start
	 * under the same prefix would clear. The first two exclude each other. */
	if (hugepages) {
		argument("--in-memory");
	} else {
		argument("--no-huge");
		argument("--no-shconf");
	}
	argument_lcores(config->cpu);
	if (config->pci[0])
		for (unsigned i = 0; i < EAL_DEVICES_MAX && config->pci[i]; i++)
			argument("--allow=%s", config->pci[i]);
	else
		argument("--no-pci");
	/* A device behind no IOMMU needs physical addresses: then EAL decides. */
	if (!config->pci[0])
		argument("--iova-mode=va");
	for (unsigned i = 0; i < EAL_DEVICES_MAX && config->vdev[i]; i++)
		argument_vdev(config->vdev[i]);
	for (unsigned i = 0; i < EAL_EXTRA_MAX && config->extra[i]; i++)
		argument("%s", config->extra[i]);
}

/* ---- what a killed server left behind ---- */

/* Asked of the kernel: to connect and go away is what a server of memif may not survive. */
static bool somebody_listens(const char *path)
{
	char line[ARGUMENT_BYTES];
	bool listens = false;
	size_t length = strlen(path);
	FILE *file = fopen("/proc/net/unix", "re");
	while (file && !listens && fgets(line, sizeof line, file)) {
		const char *name = strchr(line, '/');
		if (!name || strncmp(name, path, length))
			continue;
		name += length;
		if (!strncmp(name, SOCKET_HIDDEN, strlen(SOCKET_HIDDEN)))
			name += strlen(SOCKET_HIDDEN);
		listens = *name == '\n';
	}
	if (file)
		fclose(file);
	return listens;
}

static int clear_one(const char *path, char *why, size_t why_bytes)
{
	struct stat status;
	if (lstat(path, &status) < 0)
		return 0;
	if (!S_ISSOCK(status.st_mode))
		return fail(why, why_bytes, -EEXIST, "%s is there and is no socket", path);
	if (unlink(path) < 0)
		return fail(why, why_bytes, -errno, "%s cannot be removed: %s", path,
			    strerror(errno));
	return 0;
}

static int clear_socket(const char *path, char *why, size_t why_bytes)
{
	char hidden[ARGUMENT_BYTES + sizeof SOCKET_HIDDEN];
	snprintf(hidden, sizeof hidden, "%s" SOCKET_HIDDEN, path);
	if (somebody_listens(path))
		return fail(why, why_bytes, -EADDRINUSE, "%s is in use by another process", path);
	int result = clear_one(path, why, why_bytes);
	return result ? result : clear_one(hidden, why, why_bytes);
}

/* ---- start and stop ---- */

static int check_device(const char *device, char *why, size_t why_bytes)
{
	char name[RTE_ETH_NAME_MAX_LEN];
	uint16_t ethdev;
	if (device_name(device, name, sizeof name) &&
	    rte_eth_dev_get_port_by_name(name, &ethdev) == 0)
		return 0;
	return fail(why, why_bytes, -ENODEV,
		    "DPDK has no device %s after its start: see its lines above", device);
}

static int check_devices(const struct eal_config *config, char *why, size_t why_bytes)
{
	int result = 0;
	for (unsigned i = 0; !result && i < EAL_DEVICES_MAX && config->pci[i]; i++)
		result = check_device(config->pci[i], why, why_bytes);
	for (unsigned i = 0; !result && i < EAL_DEVICES_MAX && config->vdev[i]; i++)
		result = check_device(config->vdev[i], why, why_bytes);
	return result;
}

static int start_alone(const struct eal_config *config, char *why, size_t why_bytes)
{
	int result = 0;
	/* A real device reads from no other memory. */
	bool hugepages = config->pci[0] || wants_hugepages(config);
	uint64_t free_mib = hugepages_free_mib();
	if (hugepages && free_mib < config->memory_mib)
		return fail(why, why_bytes, -ENOMEM,
			    "%s: %u MiB of hugepages of 2 MiB are needed, %llu MiB are free",
			    config->pci[0] ? config->pci[0] : "hugepages: on", config->memory_mib,
			    (unsigned long long)free_mib);
	if (!cpu_usable(config->cpu))
		return fail(why, why_bytes, -EINVAL, "CPU %d is not among those we may use",
			    config->cpu);
	arguments_build(config, hugepages);
	if (eal.too_long)
		return fail(why, why_bytes, -ENAMETOOLONG, "an argument for DPDK is too long");
	for (unsigned i = 0; !result && i < eal.socket_count; i++)
		result = clear_socket(eal.socket[i], why, why_bytes);
	if (result < 0)
		return result;

	eal.started = true;
	bool starts = rte_eal_init(eal.count, eal.pointer) >= 0;
	int error = rte_errno ? rte_errno : EIO;
	/* Made in any case, and empty: nobody else would take it away. */
	(void)rmdir(rte_eal_get_runtime_dir());
	if (!starts)
		return fail(why, why_bytes, -error, "DPDK does not start: %s", rte_strerror(error));
	result = check_devices(config, why, why_bytes);
	/* A client that waits for its server would say so ten times a second. */
	rte_log_set_level_pattern("pmd.net.memif*", RTE_LOG_CRIT);
	rte_log_set_level_pattern("lib.eal*", RTE_LOG_CRIT);
	return result;
}

int eal_start(const struct eal_config *config, char *why, size_t why_bytes)
{
	if (eal.started)
		return fail(why, why_bytes, -EALREADY, "DPDK starts once in a process");
	int lock = hugepages_lock();
	int result = start_alone(config, why, why_bytes);
	hugepages_unlock(lock);
	return result;
}

int eal_ports_started(char *why, size_t why_bytes)
{
	char hidden[ARGUMENT_BYTES + sizeof SOCKET_HIDDEN];
	for (unsigned i = 0; i < eal.socket_count; i++) {
		snprintf(hidden, sizeof hidden, "%s" SOCKET_HIDDEN, eal.socket[i]);
		if (rename(hidden, eal.socket[i]) < 0)
			return fail(why, why_bytes, -errno, "%s cannot be made: %s", eal.socket[i],
				    strerror(errno));
	}
	return 0;
}

void eal_ports_stopping(void)
{
	for (unsigned i = 0; i < eal.socket_count; i++)
		unlink(eal.socket[i]);
	eal.socket_count = 0;
}

/* ---- the thread of interrupts ---- */

/* Static: whoever gave up waiting leaves it to a thread that may still come to it. */
static struct {
	void (*work)(void *context);
	void *context;
	sem_t done;
	bool given_up;
} apart;

static void apart_run(void *unused)
{
	(void)unused;
	apart.work(apart.context);
	sem_post(&apart.done);
}

int eal_run_apart(void (*work)(void *context), void *context)
{
	struct timespec until;
	int result;
	if (apart.given_up)
		return -ETIMEDOUT;
	apart.work = work;
	apart.context = context;
	sem_init(&apart.done, 0, 0);
	result = rte_eal_alarm_set(1, apart_run, NULL);
	if (result < 0)
		return result;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += APART_WITHIN_S;
	do
		result = sem_clockwait(&apart.done, CLOCK_MONOTONIC, &until);
	while (result && errno == EINTR);
	apart.given_up = result != 0;
	return result ? -ETIMEDOUT : 0;
}

bool eal_has_hugepages(void)
{
	return eal.started && rte_eal_has_hugepages();
}

uint64_t eal_memory_bytes(void)
{
	uint64_t bytes = 0;
	for (unsigned i = 0; eal.started && i < rte_socket_count(); i++) {
		struct rte_malloc_socket_stats heap;
		if (rte_malloc_get_socket_stats(rte_socket_id_by_idx(i), &heap) == 0)
			bytes += rte_eal_has_hugepages() ? heap.heap_totalsz_bytes
							 : heap.heap_allocsz_bytes;
	}
	return bytes;
}

int eal_thread_enter(void)
{
	if (rte_lcore_id() != LCORE_ID_ANY)
		return 0;
	return rte_thread_register() < 0 ? -rte_errno : 0;
}
