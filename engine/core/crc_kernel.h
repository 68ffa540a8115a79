/* SPDX-License-Identifier: Apache-2.0 */
/* What only the files of crc share: the kernel for long runs of bytes. */
#ifndef CASEMATE_CORE_CRC_KERNEL_H
#define CASEMATE_CORE_CRC_KERNEL_H

#include "base.h"

/* Shorter runs are not worth it. */
enum { CRC_FOLD_BYTES_MIN = 2000 };

bool crc_fold_available(void);
/* Takes as many bytes as its blocks fill, at least when there are CRC_FOLD_BYTES_MIN; the state of
 * the sum (not inverted) goes in and comes out. Returns how many bytes it took. */
size_t crc_fold(uint32_t *state, const uint8_t *bytes, size_t length);

#endif
