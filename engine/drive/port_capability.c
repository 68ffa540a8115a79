/* SPDX-License-Identifier: Apache-2.0 */
/* Drivers of DPDK 22.11, one row each for those that need one. */
#include "port_capability.h"

#include "compat.h"
#include "core/frame.h"
#include "device_argument.h"

#include <rte_ethdev.h>

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	/* TPACKET header and alignment, in each frame of an af_packet ring. */
	AF_PACKET_OVERHEAD_BYTES = 80,
	AF_PACKET_FRAME_BYTES = 2048, /* framesz when not given */
	MEMIF_BUFFER_BYTES = 2048,    /* bsize when not given */
	/* A page without what DPDK (64 + 128 + 128) and the kernel (256) put before the frame. */
	AF_XDP_FRAME_BYTES = PAGE_BYTES - 320 - 256,
	AF_XDP_FREE_BUFFERS = 2048, /* in its ring, however few descriptors are asked for */
	AF_XDP_SENT_BUFFERS = 2048, /* not yet told */
	RING_FRAME_BYTES = 9600,
};

static const struct row {
	const char *driver;
	const char *size_argument; /* tells the frame size */
	uint32_t size;		   /* when it is not given, or there is no such argument */
	uint32_t overhead;
	bool external_buffer;
	bool buffers_are_pages;
	uint32_t buffers_kept;
} table[] = {
	/* Copies, so any memory will do. Never a frame above bsize: the chain of descriptors that
	 * it makes then is unsafe. */
	{.driver = "net_memif",
	 .size_argument = "bsize",
	 .size = MEMIF_BUFFER_BYTES,
	 .external_buffer = true},
	/* Copies. Says "link up" whoever listens. */
	{.driver = "net_af_packet",
	 .size_argument = "framesz",
	 .size = AF_PACKET_FRAME_BYTES,
	 .overhead = AF_PACKET_OVERHEAD_BYTES,
	 .external_buffer = true},
	/* Sends the first segment's address of its own pool only. */
	{.driver = "net_af_xdp",
	 .size = AF_XDP_FRAME_BYTES,
	 .buffers_are_pages = true,
	 .buffers_kept = AF_XDP_FREE_BUFFERS + AF_XDP_SENT_BUFFERS},
	/* Hands over the pointer: the receiver would write into our only copy. */
	{.driver = "net_ring", .size = RING_FRAME_BYTES},
};

static const struct row *row_find(const char *driver)
{
	for (unsigned i = 0; i < ARRAY_COUNT(table); i++)
		if (!strcmp(table[i].driver, driver))
			return &table[i];
	return NULL;
}

/* What the kernel's interface carries; 0 when it cannot be told. */
static uint32_t interface_mtu(const char *arguments)
{
	struct ifreq request = {0};
	if (!device_argument(arguments, "iface", request.ifr_name, sizeof request.ifr_name))
		return 0;
	int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (descriptor < 0)
		return 0;
	uint32_t mtu = 0;
	if (ioctl(descriptor, SIOCGIFMTU, &request) == 0)
		mtu = (uint32_t)request.ifr_mtu;
	close(descriptor);
	return mtu;
}

static void fill_from_row(struct port_capability *capability, const struct row *row,
			  const char *arguments)
{
	char role[16] = "client"; /* memif's own default */
	uint32_t size = row->size;
	if (row->size_argument)
		size = device_argument_number(arguments, row->size_argument, size);
	capability->frame_bytes_max = size > row->overhead ? size - row->overhead : 0;
	capability->receive_bytes_max = size;
	capability->external_buffer = row->external_buffer;
	capability->buffers_are_pages = row->buffers_are_pages;
	capability->buffers_kept = row->buffers_kept;
	if (!strcmp(row->driver, "net_memif")) {
		device_argument(arguments, "role", role, sizeof role);
		capability->reconnects_by_restart =
			strcmp(role, "server") && strcmp(role, "master");
	}
}

static void fill_from_device(struct port_capability *capability,
			     const struct rte_eth_dev_info *info, uint32_t mtu)
{
	uint32_t most = info->max_mtu ? info->max_mtu : RTE_ETHER_MTU;
	capability->frame_bytes_max = (uint32_t)min_u64(most, mtu) + FRAME_LINK_BYTES_MAX;
	capability->receive_bytes_max = capability->frame_bytes_max;
	capability->external_buffer = true;
	capability->sets_mtu = true;
	capability->reads_by_address = true;
}

int port_capability(uint16_t ethdev, uint32_t mtu, struct port_capability *capability,
		    const char **why)
{
	struct rte_eth_dev_info info;
	int result = rte_eth_dev_info_get(ethdev, &info);
	if (result < 0) {
		*why = "the device tells nothing about itself";
		return result;
	}
	const char *arguments = compat_device_arguments(info.device);
	const struct row *row = row_find(info.driver_name);

	*capability = (struct port_capability){0};
	snprintf(capability->driver, sizeof capability->driver, "%s", info.driver_name);
	if (row)
		fill_from_row(capability, row, arguments);
	else
		fill_from_device(capability, &info, mtu);
	if (mtu + FRAME_LINK_BYTES_MAX > capability->frame_bytes_max) {
		*why = "the device's buffers (memif bsize, af_packet framesz, or its largest MTU) "
		       "are "
		       "smaller than the mtu with its link header";
		return -EMSGSIZE;
	}
	uint32_t kernel_mtu = interface_mtu(arguments);
	if (kernel_mtu && kernel_mtu < mtu) {
		*why = "the kernel's interface has a smaller MTU";
		return -EMSGSIZE;
	}
	/* af_packet copies what it receives without looking at the room. */
	if (kernel_mtu && kernel_mtu + FRAME_LINK_BYTES_MAX > capability->receive_bytes_max) {
		*why = "the kernel's interface has an MTU larger than the device's buffers";
		return -EMSGSIZE;
	}
	return 0;
}
