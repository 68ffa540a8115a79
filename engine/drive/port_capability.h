/* SPDX-License-Identifier: Apache-2.0 */
/* What a driver can really do, which is not always what it says. The table was filled by trying
 * (docs/operations.md "devices"); devices that it does not name are believed.
 *
 * A frame of ours is one segment, as the link headers lie in front of the datagram, and needs no
 * checksum but one over 20 bytes: so neither segments nor checksum offload are asked for. */
#ifndef CASEMATE_DRIVE_PORT_CAPABILITY_H
#define CASEMATE_DRIVE_PORT_CAPABILITY_H

#include "core/base.h"

struct port_capability {
	char driver[32];
	uint32_t frame_bytes_max;   /* that it carries, link header included */
	uint32_t receive_bytes_max; /* that it may put into one mbuf */
	bool external_buffer;	    /* sends from memory outside its pool; else frames are copied */
	uint32_t buffers_kept;	    /* that it may keep beside one for each descriptor */
	bool buffers_are_pages;	    /* needs them without gaps: each fills a page */
	bool sets_mtu;	       /* else the MTU is left alone, and frames up to the maximum pass */
	bool reads_by_address; /* a device that needs I/O addresses, and may keep a frame for long
				*/
	bool reconnects_by_restart; /* memif client: restarted while its link is down */
};

/* 0, or a negative errno and *why, a static line. mtu: IP bytes that the port shall carry. */
int port_capability(uint16_t ethdev, uint32_t mtu, struct port_capability *, const char **why);

#endif
