/*
 * TLS for the load generator. OpenSSL's library is loaded when --tls asks for it, and declared here as far as it is
 * used, so that nothing is needed to build.
 */
#include "load.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>

enum {
	SSL_ERROR_WANT_READ = 2,
	SSL_ERROR_WANT_WRITE = 3,
	SSL_ERROR_ZERO_RETURN = 6,
	SSL_VERIFY_PEER = 1
};

static void *context;
static void *(*ssl_new)(void *);
static int (*ssl_set_fd)(void *, int);
static int (*ssl_connect)(void *);
static int (*ssl_read)(void *, void *, int);
static int (*ssl_write)(void *, const void *, int);
static int (*ssl_get_error)(const void *, int);
static void (*ssl_free)(void *);

static void *find(void *library, const char *name)
{
	void *f = dlsym(library, name);
	if (!f)
		die(1, "--tls: %s", dlerror());
	return f;
}

void tls_init(const char *authority)
{
	void *library = dlopen("libssl.so.3", RTLD_NOW);
	if (!library)
		die(1, "--tls: %s", dlerror());
	const void *(*client)(void) = find(library, "TLS_client_method");
	void *(*new)(const void *) = find(library, "SSL_CTX_new");
	int (*load)(void *, const char *, const char *) =
	    find(library, "SSL_CTX_load_verify_locations");
	void (*verify)(void *, int, void *) = find(library, "SSL_CTX_set_verify");
	ssl_new = find(library, "SSL_new");
	ssl_set_fd = find(library, "SSL_set_fd");
	ssl_connect = find(library, "SSL_connect");
	ssl_read = find(library, "SSL_read");
	ssl_write = find(library, "SSL_write");
	ssl_get_error = find(library, "SSL_get_error");
	ssl_free = find(library, "SSL_free");
	context = new (client());
	if (!context || load(context, authority, NULL) != 1)
		die(1, "--tls %s: no certificate", authority);
	verify(context, SSL_VERIFY_PEER, NULL);
}

/* Shakes hands; the descriptor doesn't block afterwards. NULL if it came to nothing. */
void *tls_connect(int fd)
{
	void *tls = ssl_new(context);
	if (!tls || ssl_set_fd(tls, fd) != 1 || ssl_connect(tls) != 1)
		return NULL;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return tls;
}

void tls_close(void *tls)
{
	ssl_free(tls);
}

/* As send and recv; 0 at the end. */
static ssize_t result(void *tls, int n)
{
	if (n > 0)
		return n;
	int e = ssl_get_error(tls, n);
	if (e == SSL_ERROR_ZERO_RETURN)
		return 0;
	errno = e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
	return -1;
}

ssize_t tls_send(void *tls, const void *buf, size_t n)
{
	return result(tls, ssl_write(tls, buf, (int)n));
}

ssize_t tls_recv(void *tls, void *buf, size_t n)
{
	return result(tls, ssl_read(tls, buf, (int)n));
}
