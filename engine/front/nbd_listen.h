/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets on which NBD clients come: made, bound, tuned. Nothing here waits for a client. */
#ifndef CASEMATE_FRONT_NBD_LISTEN_H
#define CASEMATE_FRONT_NBD_LISTEN_H

#include <stdint.h>

/* gives a listening descriptor, or a negative errno. A socket file that nobody serves any more is
 * replaced; -EADDRINUSE when somebody does, -EEXIST when the path is something else. */
int nbd_listen_unix(const char *path);
/* gives up to max listening descriptors, one per address of the host (NULL: all addresses): their
 * number, or a negative errno (-EADDRNOTAVAIL when the host has no address). */
int nbd_listen_tcp(const char *host, uint16_t port, int *descriptor, unsigned max);
/* Large buffers, no delay, keepalive: as far as the system lets us. */
void nbd_socket_tune(int descriptor);

#endif
