/* SPDX-License-Identifier: Apache-2.0 */
/* Starts DPDK's environment (EAL) once per process, and checks afterwards that it did: EAL reports
 * success without the devices it was asked for. */
#ifndef CASEMATE_DRIVE_EAL_H
#define CASEMATE_DRIVE_EAL_H

#include "core/base.h"

enum eal_hugepages { EAL_HUGEPAGES_AUTO, EAL_HUGEPAGES_ON, EAL_HUGEPAGES_OFF };
enum { EAL_CPU_ANY = -1, EAL_DEVICES_MAX = 16, EAL_EXTRA_MAX = 16 };

struct eal_config {
	uint8_t hugepages;	 /* enum; auto: when enough 2 MiB pages are free */
	uint32_t memory_mib;	 /* mbufs and packet memory; without hugepages it cannot grow */
	int cpu;		 /* of the calling thread, or EAL_CPU_ANY: those it may use now */
	const char *file_prefix; /* differs between the processes of a machine */
	const char *pci[EAL_DEVICES_MAX];  /* "0000:3b:00.0"; none: the PCI bus is left alone */
	const char *vdev[EAL_DEVICES_MAX]; /* "net_memif0,role=server,..." */
	const char *extra[EAL_EXTRA_MAX];  /* further EAL arguments, as they are */
};

/* 0, or a negative errno and why in words. The calling thread becomes the main lcore and stays on
 * its CPUs; threads made later inherit that, and set their own. */
int eal_start(const struct eal_config *, char *why, size_t why_bytes);
/* Lets the clients of our virtual devices in: after every port was started, and after all that
 * takes memory by the hundred MiB. A memif client that comes earlier finds no interface of its
 * number, or one that does not answer: DPDK's thread for it waits for the address space. */
int eal_ports_started(char *why, size_t why_bytes);
/* Shuts them out again, before the first port is closed: net_memif does not survive a client that
 * comes while its devices are taken away. */
void eal_ports_stopping(void);
/* Does this work on DPDK's thread of interrupts, and waits for it. What handlers of interrupts take
 * apart without a lock (net_memif, when its peer goes), only that thread may take apart too. 0, or
 * a negative errno: then the work is not done yet, and may be done at any time.
 *
 * There is no eal_stop: DPDK's thread of interrupts ends with the process only, and so must the
 * memory that it works in. Nothing of it outlives the process: no file is made for it. */
int eal_run_apart(void (*work)(void *context), void *context);
bool eal_has_hugepages(void);
/* Of engine.memory: what DPDK and the devices have taken; all of it where it is hugepages. */
uint64_t eal_memory_bytes(void);
/* A thread other than the one that started EAL, before it runs a lane: gives it caches of its own.
 */
int eal_thread_enter(void);

#endif
