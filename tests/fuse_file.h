/* SPDX-License-Identifier: Apache-2.0 */
/* One file on a file system of our own, whose disk can be made to hang: from then on nothing that
 * is asked of it is answered until it is let go. Through /dev/fuse, in a mount namespace of this
 * process, so that nothing stays behind. */
#ifndef CASEMATE_TESTS_FUSE_FILE_H
#define CASEMATE_TESTS_FUSE_FILE_H

#include <stdint.h>

struct fuse_file;
/* Mounts at the directory; the file is DIRECTORY/file, reads as zeros and forgets what is written.
 * NULL: the machine does not allow it. Once per process, before other threads. */
struct fuse_file *fuse_file_new(const char *directory, uint64_t bytes);
void fuse_file_hang(struct fuse_file *);
/* How many requests wait now. */
unsigned fuse_file_hung(const struct fuse_file *);
/* Answers what waits; nothing hangs any more. */
void fuse_file_go_on(struct fuse_file *);
/* Nothing has the file open any more. */
void fuse_file_free(struct fuse_file *);

#endif
