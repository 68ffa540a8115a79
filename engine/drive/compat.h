/* SPDX-License-Identifier: Apache-2.0 */
/* What differs between the releases of DPDK and liburing that we build with: DPDK from 21.11 (22.11
 * is what we run on), liburing from 2.3. Nothing else in the tree asks for a release. */
#ifndef CASEMATE_DRIVE_COMPAT_H
#define CASEMATE_DRIVE_COMPAT_H

#include <liburing.h>
#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_version.h>

/* The arguments that a device was made with, or NULL. Since 22.11 a device is opaque. */
static inline const char *compat_device_arguments(const struct rte_device *device)
{
#if RTE_VERSION >= RTE_VERSION_NUM(22, 11, 0, 0)
	const struct rte_devargs *devargs = rte_dev_devargs(device);
#else
	const struct rte_devargs *devargs = device->devargs;
#endif
	return devargs ? devargs->args : NULL;
}

/* Enables a ring that was made disabled: 0 or a negative errno. liburing 2.3 declares a function
 * for it but does not export it; 2.4 does, and is the first that tells its version. */
static inline int compat_ring_enable(struct io_uring *ring)
{
#ifdef IO_URING_VERSION_MAJOR
	return io_uring_enable_rings(ring);
#else
	return io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
#endif
}

#endif
