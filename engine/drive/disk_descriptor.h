/* SPDX-License-Identifier: Apache-2.0 */
/* Opens one file or block device for a disk: direct where possible, locked, large enough. */
#ifndef CASEMATE_DRIVE_DISK_DESCRIPTOR_H
#define CASEMATE_DRIVE_DISK_DESCRIPTOR_H

#include "core/base.h"

/* gives a descriptor, or a negative errno: -EBUSY when another has the lock, -ENODATA when the file
 * is shorter than size. *buffered: no direct I/O here. */
int disk_descriptor_open(const char *path, uint64_t size, bool *buffered);
/* Whether one write with RWF_DSYNC is durable when it completes, also when it is direct and
 * asynchronous. Not every file system does what it was told: FUSE takes the flag and forgets it. */
bool disk_descriptor_has_dsync(int descriptor);
/* Whether an operation that would wait says so when it is asked not to. FUSE waits all the same:
 * whoever issues an operation there waits with it. */
bool disk_descriptor_has_nowait(int descriptor);
/* Whether a file has all its space now: whoever gave it that expects it to stay. Block devices have
 * no such thing to say. */
bool disk_descriptor_is_reserved(int descriptor);
/* The disk that the file lies on, as the kernel numbers them. */
uint64_t disk_descriptor_disk(int descriptor);
/* takes; the lock is free when it returns. */
void disk_descriptor_close(int descriptor);

#endif
