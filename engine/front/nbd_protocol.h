/* SPDX-License-Identifier: Apache-2.0 */
/* Every number of the NBD protocol that we speak (NetworkBlockDevice/nbd, doc/proto.md): magics,
 * options, replies, flags, errors and lengths. All integers on the stream are big endian. */
#ifndef CASEMATE_FRONT_NBD_PROTOCOL_H
#define CASEMATE_FRONT_NBD_PROTOCOL_H

#include "core/base.h"

#define NBD_GREETING_MAGIC	   0x4e42444d41474943ull /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC	   0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC	   0x0003e889045565a9ull
#define NBD_REQUEST_MAGIC	   0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC	   0x67446698u
#define NBD_STRUCTURED_REPLY_MAGIC 0x668e33efu

enum { /* lengths on the stream, in bytes */
       NBD_GREETING_BYTES = 18,
       NBD_CLIENT_FLAGS_BYTES = 4,
       NBD_OPTION_HEADER_BYTES = 16,
       NBD_OPTION_REPLY_BYTES = 20,
       NBD_EXPORT_NAME_REPLY_BYTES = 10, /* and the zeroes, unless agreed away */
       NBD_EXPORT_NAME_ZEROES_BYTES = 124,
       NBD_REQUEST_BYTES = 28,
       NBD_SIMPLE_REPLY_BYTES = 16,
       NBD_CHUNK_HEADER_BYTES = 20,
       NBD_CHUNK_OFFSET_BYTES = 8,
       NBD_CHUNK_ERROR_BYTES = 6,
       NBD_CHUNK_CONTEXT_BYTES = 4,
       NBD_DESCRIPTOR_BYTES = 8,
};

enum { /* handshake flags, the same bits on both sides */
       NBD_HANDSHAKE_FIXED_NEWSTYLE = 1,
       NBD_HANDSHAKE_NO_ZEROES = 2,
};

enum nbd_option {
	NBD_OPTION_EXPORT_NAME = 1,
	NBD_OPTION_ABORT = 2,
	NBD_OPTION_LIST = 3,
	NBD_OPTION_STARTTLS = 5,
	NBD_OPTION_INFO = 6,
	NBD_OPTION_GO = 7,
	NBD_OPTION_STRUCTURED_REPLY = 8,
	NBD_OPTION_LIST_META_CONTEXT = 9,
	NBD_OPTION_SET_META_CONTEXT = 10,
};

#define NBD_REPLY_ACK		    1u
#define NBD_REPLY_SERVER	    2u
#define NBD_REPLY_INFO		    3u
#define NBD_REPLY_META_CONTEXT	    4u
#define NBD_REPLY_ERROR_UNSUPPORTED 0x80000001u
#define NBD_REPLY_ERROR_INVALID	    0x80000003u
#define NBD_REPLY_ERROR_UNKNOWN	    0x80000006u
#define NBD_REPLY_ERROR_SHUTDOWN    0x80000007u
#define NBD_REPLY_ERROR_TOO_BIG	    0x80000009u

enum nbd_info { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_BLOCK_SIZE = 3 };

enum { /* transmission flags */
       NBD_HAS_FLAGS = 1 << 0,
       NBD_READ_ONLY = 1 << 1,
       NBD_SEND_FLUSH = 1 << 2,
       NBD_SEND_FUA = 1 << 3,
       NBD_SEND_TRIM = 1 << 5,
       NBD_SEND_WRITE_ZEROES = 1 << 6,
       NBD_SEND_DF = 1 << 7,
       NBD_CAN_MULTI_CONN = 1 << 8,
       NBD_SEND_CACHE = 1 << 10,
       NBD_SEND_FAST_ZERO = 1 << 11,
};

enum nbd_command {
	NBD_COMMAND_READ,
	NBD_COMMAND_WRITE,
	NBD_COMMAND_DISCONNECT,
	NBD_COMMAND_FLUSH,
	NBD_COMMAND_TRIM,
	NBD_COMMAND_CACHE,
	NBD_COMMAND_WRITE_ZEROES,
	NBD_COMMAND_BLOCK_STATUS,
	NBD_COMMAND_COUNT
};

enum { /* command flags */
       NBD_FLAG_FUA = 1 << 0,
       NBD_FLAG_NO_HOLE = 1 << 1,
       NBD_FLAG_DF = 1 << 2,
       NBD_FLAG_REQ_ONE = 1 << 3,
       NBD_FLAG_FAST_ZERO = 1 << 4,
};

enum { NBD_CHUNK_DONE = 1 };
enum nbd_chunk {
	NBD_CHUNK_NONE = 0,
	NBD_CHUNK_OFFSET_DATA = 1,
	NBD_CHUNK_BLOCK_STATUS = 5,
	NBD_CHUNK_ERROR = 0x8001,
};

enum nbd_error {
	NBD_SUCCESS = 0,
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

enum { /* what we promise and bound */
       NBD_BLOCK_BYTES_MIN = 1,
       NBD_BLOCK_BYTES_PREFERRED = 4096,
       NBD_PAYLOAD_BYTES_MAX = 32 << 20,
       NBD_NAME_BYTES_MAX = 4096,	    /* of a string, by the protocol */
       NBD_OPTION_BYTES_MAX = 8192,	    /* of an option's data: longer is answered TOO_BIG */
       NBD_OPTION_SKIP_BYTES_MAX = 1 << 20, /* longer still is no option: the connection ends */
       NBD_CONTEXT_ID = 1,		    /* of base:allocation, on every connection */
};

static inline uint16_t get_be16(const uint8_t *p)
{
	return __builtin_bswap16(get_u16(p));
}
static inline uint32_t get_be32(const uint8_t *p)
{
	return __builtin_bswap32(get_u32(p));
}
static inline uint64_t get_be64(const uint8_t *p)
{
	return __builtin_bswap64(get_u64(p));
}
static inline void put_be16(uint8_t *p, uint16_t v)
{
	put_u16(p, __builtin_bswap16(v));
}
static inline void put_be32(uint8_t *p, uint32_t v)
{
	put_u32(p, __builtin_bswap32(v));
}
static inline void put_be64(uint8_t *p, uint64_t v)
{
	put_u64(p, __builtin_bswap64(v));
}

#endif
