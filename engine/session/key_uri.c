/* SPDX-License-Identifier: Apache-2.0 */
/* Finds, judges and reads key files, and makes new ones. A file is judged by the descriptor that is
 * read, so that nobody can put another in its place between the two. */
#include "key_uri.h"

#include "secret.h"

#include "core/keys.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/store.h>
#include <openssl/ui.h>
#include <openssl/x509.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEY_FILE_BYTES_MAX = 2 * PAGE_BYTES };

/* Where the sentence goes. */
struct why {
	char *text;
	size_t bytes;
};

__attribute__((format(printf, 3, 4))) static int refuse(struct why why, int result,
							const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	if (why.bytes)
		vsnprintf(why.text, why.bytes, format, arguments);
	va_end(arguments);
	return result;
}

/* ---- which file ---- */

struct key_file {
	char path[PATH_MAX];
	/* systemd gives a credential to its unit by an ACL, which shows as the group's bits and
	 * leaves the file with root; only the mode for all others tells something. */
	bool credential;
};

static int file_resolve(struct key_file *file, const char *path, struct why why)
{
	/* RFC 8089: an empty authority is this machine. */
	if (strncmp(path, "///", 3) == 0)
		path += 2;
	if (path[0] != '/' || path[1] == '/')
		return refuse(why, -EINVAL, "file:%s: needs an absolute path, as in file:/path",
			      path);
	if ((size_t)snprintf(file->path, sizeof file->path, "%s", path) >= sizeof file->path)
		return refuse(why, -ENAMETOOLONG, "file: the path is too long");
	return 0;
}

static int credential_resolve(struct key_file *file, const char *name, struct why why)
{
	const char *directory = getenv("CREDENTIALS_DIRECTORY");
	if (!name[0] || strchr(name, '/') || name[0] == '.')
		return refuse(why, -EINVAL, "credential:%s: a credential is a plain name", name);
	if (!directory)
		return refuse(why, -ENOENT,
			      "credential:%s: $CREDENTIALS_DIRECTORY is not set: add "
			      "LoadCredential=%s:PATH to the unit",
			      name, name);
	file->credential = true;
	if ((size_t)snprintf(file->path, sizeof file->path, "%s/%s", directory, name) >=
	    sizeof file->path)
		return refuse(why, -ENAMETOOLONG, "credential:%s: the path is too long", name);
	return 0;
}

static int uri_resolve(struct key_file *file, const char *uri, struct why why)
{
	static const struct {
		const char *scheme;
		int (*resolve)(struct key_file *, const char *, struct why);
	} schemes[] = {{"file:", file_resolve}, {"credential:", credential_resolve}};
	memset(file, 0, sizeof *file);
	for (unsigned i = 0; i < ARRAY_COUNT(schemes); i++) {
		size_t length = strlen(schemes[i].scheme);
		if (strncmp(uri, schemes[i].scheme, length) == 0)
			return schemes[i].resolve(file, uri + length, why);
	}
	return refuse(why, -EPROTONOSUPPORT, "%s: not a key URI: use file:/path or credential:NAME",
		      uri);
}

/* ---- is it private, and what is in it ---- */

static int file_judge(const struct key_file *file, int descriptor, struct why why)
{
	const char *path = file->path;
	struct stat status;
	if (fstat(descriptor, &status))
		return refuse(why, -errno, "key file %s: %s", path, strerror(errno));
	if (!S_ISREG(status.st_mode))
		return refuse(why, -EINVAL, "key file %s is not a regular file", path);
	unsigned mode = status.st_mode & 07777;
	if (mode & (file->credential ? 0007 : 0077))
		return refuse(why, -EACCES,
			      "key file %s is readable by others (mode %04o): chmod 0400 %s", path,
			      mode, path);
	bool ours = status.st_uid == geteuid() || (file->credential && status.st_uid == 0);
	if (!ours)
		return refuse(why, -EACCES,
			      "key file %s belongs to user %u and we run as user %u: chown %u %s",
			      path, (unsigned)status.st_uid, (unsigned)geteuid(),
			      (unsigned)geteuid(), path);
	if (status.st_size > KEY_FILE_BYTES_MAX)
		return refuse(why, -EBADMSG, "key file %s is too large to be a key", path);
	return 0;
}

static int file_read_all(int descriptor, uint8_t *text, size_t room, size_t *length)
{
	*length = 0;
	while (*length < room) {
		ssize_t got = read(descriptor, text + *length, room - *length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		*length += (size_t)got;
	}
	return 0;
}

/* Opens, judges and reads what the URI names into text, KEY_FILE_BYTES_MAX of secret memory. */
static int uri_read(const char *uri, struct key_file *file, uint8_t *text, size_t *length,
		    struct why why)
{
	int result = uri_resolve(file, uri, why);
	if (result)
		return result;
	/* A fifo must not hold us up before we have looked at what it is. */
	int descriptor = open(file->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (descriptor < 0)
		return refuse(why, -errno, "key file %s: %s", file->path, strerror(errno));
	result = file_judge(file, descriptor, why);
	if (!result) {
		result = file_read_all(descriptor, text, KEY_FILE_BYTES_MAX, length);
		if (result)
			refuse(why, result, "key file %s: %s", file->path, strerror(-result));
	}
	close(descriptor);
	return result;
}

/* ---- key-encryption keys ---- */

/* takes nothing, gives: the first private key in the text, or NULL. UI_null: an encrypted key is
 * refused, and never asks a terminal for its password. */
static EVP_PKEY *private_key_find(const uint8_t *text, size_t length)
{
	EVP_PKEY *key = NULL;
	BIO *bio = BIO_new_mem_buf(text, (int)length);
	OSSL_STORE_CTX *store =
		bio ? OSSL_STORE_attach(bio, "file", NULL, NULL, UI_null(), NULL, NULL, NULL, NULL)
		    : NULL;
	if (store)
		OSSL_STORE_expect(store, OSSL_STORE_INFO_PKEY);
	while (store && !key && !OSSL_STORE_eof(store) && !OSSL_STORE_error(store)) {
		OSSL_STORE_INFO *info = OSSL_STORE_load(store);
		if (info && OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PKEY)
			key = OSSL_STORE_INFO_get1_PKEY(info);
		OSSL_STORE_INFO_free(info);
	}
	OSSL_STORE_close(store);
	BIO_free(bio);
	ERR_clear_error();
	return key;
}

static int kek_derive(const EVP_PKEY *key, uint8_t kek[KEY_BYTES])
{
	static const char label[] = "casemate kek v1";
	uint8_t raw[KEY_BYTES];
	size_t length = sizeof raw;
	int result = -EBADMSG;
	if (EVP_PKEY_is_a(key, "X25519") && EVP_PKEY_get_raw_private_key(key, raw, &length) == 1 &&
	    length == sizeof raw) {
		keys_derive(NULL, 0, raw, sizeof raw, label, sizeof label - 1, kek, KEY_BYTES);
		result = 0;
	}
	keys_wipe(raw, sizeof raw);
	ERR_clear_error();
	return result;
}

static int kek_load(const char *uri, uint8_t *text, uint8_t kek[KEY_BYTES], struct why why)
{
	struct key_file file;
	size_t length;
	int result = uri_read(uri, &file, text, &length, why);
	if (result)
		return result;
	EVP_PKEY *key = private_key_find(text, length);
	if (!key)
		return refuse(why, -EBADMSG,
			      "key file %s holds no private key in plain PEM (an encrypted one is "
			      "not taken)",
			      file.path);
	result = kek_derive(key, kek);
	if (result)
		refuse(why, result, "key file %s holds a key that is not X25519", file.path);
	EVP_PKEY_free(key);
	return result;
}

int key_uri_load_private(const char *uri, EVP_PKEY **key, char *why_text, size_t why_bytes)
{
	struct why why = {why_text, why_bytes};
	struct key_file file;
	size_t length;
	uint8_t *text = secret_take(KEY_FILE_BYTES_MAX);
	int result = text ? uri_read(uri, &file, text, &length, why)
			  : refuse(why, -errno, "no memory for a key: %s", secret_why(errno));
	*key = result ? NULL : private_key_find(text, length);
	secret_give(text, KEY_FILE_BYTES_MAX);
	if (!result && !*key)
		return refuse(why, -EBADMSG,
			      "key file %s holds no private key in plain PEM (an encrypted one is "
			      "not taken)",
			      file.path);
	return result;
}

/* Runs a loader with secret memory for the file's text, and wipes what it leaves. */
static int load_with(int (*load)(const char *, uint8_t *, uint8_t *, struct why), const char *uri,
		     uint8_t out[KEY_BYTES], struct why why)
{
	uint8_t *text = secret_take(KEY_FILE_BYTES_MAX);
	int result = text ? load(uri, text, out, why)
			  : refuse(why, -errno, "no memory for a key: %s", secret_why(errno));
	secret_give(text, KEY_FILE_BYTES_MAX);
	if (result)
		keys_wipe(out, KEY_BYTES);
	return result;
}

int key_uri_load(const char *uri, uint8_t kek[KEY_BYTES], char *why, size_t why_bytes)
{
	return load_with(kek_load, uri, kek, (struct why){why, why_bytes});
}

/* ---- pre-shared keys ---- */

static int digit_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_space(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool hex_decode(const uint8_t *text, size_t length, uint8_t psk[PSK_BYTES])
{
	while (length && is_space(text[length - 1]))
		length--;
	while (length && is_space(*text))
		text++, length--;
	if (length != 2 * PSK_BYTES)
		return false;
	for (size_t i = 0; i < PSK_BYTES; i++) {
		int high = digit_value(text[2 * i]), low = digit_value(text[2 * i + 1]);
		if (high < 0 || low < 0)
			return false;
		psk[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

_Static_assert((int)PSK_BYTES == (int)KEY_BYTES, "both loaders fill as many bytes");

static int psk_load(const char *uri, uint8_t *text, uint8_t psk[PSK_BYTES], struct why why)
{
	struct key_file file;
	size_t length;
	int result = uri_read(uri, &file, text, &length, why);
	if (result)
		return result;
	if (!hex_decode(text, length, psk))
		return refuse(why, -EBADMSG,
			      "key file %s does not hold 64 hex digits: openssl rand -hex 32 makes "
			      "them",
			      file.path);
	return 0;
}

int key_uri_load_psk(const char *uri, uint8_t psk[PSK_BYTES], char *why, size_t why_bytes)
{
	return load_with(psk_load, uri, psk, (struct why){why, why_bytes});
}

/* ---- new keys ---- */

static bool fingerprint_make(EVP_PKEY *key, char fingerprint[KEY_FINGERPRINT_BYTES])
{
	uint8_t *spki = NULL;
	uint8_t digest[32];
	int length = i2d_PUBKEY(key, &spki);
	bool made =
		length > 0 && EVP_Digest(spki, (size_t)length, digest, NULL, EVP_sha256(), NULL);
	OPENSSL_free(spki);
	return made && EVP_EncodeBlock((uint8_t *)fingerprint, digest, sizeof digest) ==
			       KEY_FINGERPRINT_BYTES - 1;
}

static int file_write_all(int descriptor, const char *text, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t put = write(descriptor, text + done, length - done);
		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return put < 0 ? -errno : -EIO;
		done += (size_t)put;
	}
	return fsync(descriptor) ? -errno : 0;
}

/* A new name is durable once its directory is. */
static int directory_sync(const char *path)
{
	char directory[PATH_MAX];
	const char *slash = strrchr(path, '/');
	int length = slash == path ? 1 : slash ? (int)(slash - path) : 1;
	if (length >= PATH_MAX)
		return -ENAMETOOLONG;
	snprintf(directory, sizeof directory, "%.*s", length, slash ? path : ".");
	int descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (descriptor < 0)
		return -errno;
	int result = fsync(descriptor) ? -errno : 0;
	close(descriptor);
	return result;
}

static int file_create(const char *path, const char *text, size_t length, struct why why)
{
	int descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
	if (descriptor < 0 && errno == EEXIST)
		return refuse(why, -EEXIST, "key file %s is there already: it is not overwritten",
			      path);
	if (descriptor < 0)
		return refuse(why, -errno, "key file %s: %s", path, strerror(errno));
	int result = file_write_all(descriptor, text, length);
	if (close(descriptor) && !result)
		result = -errno;
	if (!result)
		result = directory_sync(path);
	if (result) {
		unlink(path);
		return refuse(why, result, "key file %s: %s", path, strerror(-result));
	}
	return 0;
}

int key_generate(const char *path, char fingerprint[KEY_FINGERPRINT_BYTES], char *why_text,
		 size_t why_bytes)
{
	struct why why = {why_text, why_bytes};
	int result = -ENOMEM;
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
	BIO *pem = BIO_new(BIO_s_secmem());
	char *text = NULL;
	if (key && pem && fingerprint_make(key, fingerprint) &&
	    PEM_write_bio_PKCS8PrivateKey(pem, key, NULL, NULL, 0, NULL, NULL) == 1) {
		long length = BIO_get_mem_data(pem, &text);
		result = file_create(path, text, (size_t)length, why);
	} else {
		refuse(why, result, "libcrypto could not make a key");
	}
	/* The text is wiped with its BIO, the key with its last reference. */
	BIO_free(pem);
	EVP_PKEY_free(key);
	ERR_clear_error();
	return result;
}
