/*
 * libc's functions that wait inside, and threads' own objects: signals and cancellation. See calls.h.
 */
#include "calls.h"

#include <aio.h>
#include <semaphore.h>

/* --- libc's inside -------------------------------------------------------------------------------------------------- */

static void empty_pipe(struct ctx *c)
{
	int fds[2];

	REQUIRE(pipe(fds) == 0);
	c->fd = fds[0];
	c->other = fds[1];
}

static void fill(int fd)
{
	static const char zeros[4096];

	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (write(fd, zeros, sizeof zeros) > 0)
		;
	while (write(fd, zeros, 1) > 0)
		;
	fcntl(fd, F_SETFL, 0);
}

static void full_pipe(struct ctx *c)
{
	int fds[2];

	REQUIRE(pipe(fds) == 0);
	c->fd = fds[1];
	c->other = fds[0];
	fill(c->fd);
}

static void put_byte(struct ctx *c)
{
	CHECK_EQ(write(c->other, "x", 1), 1);
}

static void put_line(struct ctx *c)
{
	CHECK_EQ(write(c->other, "line\n", 5), 5);
}

static void drain(struct ctx *c)
{
	char buf[65536];

	fcntl(c->other, F_SETFL, O_NONBLOCK);
	while (read(c->other, buf, sizeof buf) > 0)
		;
}

static void a_fifo(struct ctx *c)
{
	new_path(c);
	REQUIRE(mkfifo(c->path, 0600) == 0);
}

static long call_fopen(struct ctx *c)
{
	FILE *f = fopen(c->path, "r");

	if (!f)
		return -1;
	c->object = f;
	return 1;
}

static void open_to_write(struct ctx *c)
{
	c->other = open(c->path, O_WRONLY);
	CHECK(c->other >= 0);
}

static void close_stream(struct ctx *c)
{
	if (c->object)
		fclose(c->object);
	c->fd = -1;
	close_both(c);
}

static void empty_stream(struct ctx *c)
{
	empty_pipe(c);
	c->object = fdopen(c->fd, "r");
}

static long call_fgets(struct ctx *c)
{
	char line[80];

	return fgets(line, sizeof line, c->object) ? 1 : -1;
}

static long call_getline(struct ctx *c)
{
	char *line = NULL;
	size_t n = 0;
	long r = getline(&line, &n, c->object);
	int err = errno;

	free(line);
	errno = err;
	return r;
}

static void full_stream(struct ctx *c)
{
	full_pipe(c);
	c->object = fdopen(c->fd, "w");
	REQUIRE(fputc('x', c->object) == 'x');
}

static long call_fflush(struct ctx *c)
{
	return fflush(c->object) == 0 ? 1 : -1;
}

/* Once there is room it is flushed. */
static void close_drained_stream(struct ctx *c)
{
	drain(c);
	close_stream(c);
}

static void pending_aio(struct ctx *c)
{
	struct aiocb *cb = calloc(1, sizeof *cb + 1);

	empty_pipe(c);
	cb->aio_fildes = c->fd;
	cb->aio_buf = cb + 1;
	cb->aio_nbytes = 1;
	c->object = cb;
	REQUIRE(aio_read(cb) == 0);
}

static long call_aio_suspend(struct ctx *c)
{
	const struct aiocb *list[] = {c->object};

	return aio_suspend(list, 1, NULL);
}

static void end_aio(struct ctx *c)
{
	fcntl(c->other, F_SETFL, O_NONBLOCK);
	put_byte(c);
	while (aio_error(c->object) == EINPROGRESS)
		sleep_ms(1);
	free(c->object);
	close_both(c);
}

static void a_command(struct ctx *c)
{
	c->object = popen("read line", "w");
	REQUIRE(c->object);
	c->fd = dup(fileno(c->object));
	fcntl(c->fd, F_SETFD, FD_CLOEXEC);
}

static long call_pclose(struct ctx *c)
{
	return pclose(c->object);
}

static void release_nothing(struct ctx *c)
{
	(void)c;
}

static void end_command(struct ctx *c)
{
	CHECK_EQ(write(c->fd, "\n", 1), 1);
	close(c->fd);
}

/* --- threads' own objects ------------------------------------------------------------------------------------------- */

struct object {
	sem_t sem;
	pthread_mutex_t m;
	pthread_cond_t cond;
	pthread_rwlock_t rw;
	pthread_barrier_t barrier;
	pthread_t t;
	int ready;
};

static long answer(int rc)
{
	errno = rc;
	return rc ? -1 : 1;
}

static void a_semaphore(struct ctx *c)
{
	struct object *o = c->object = calloc(1, sizeof *o);

	REQUIRE(sem_init(&o->sem, 0, 0) == 0);
}

static void a_shared_semaphore(struct ctx *c)
{
	struct object *o = c->object = calloc(1, sizeof *o);

	REQUIRE(sem_init(&o->sem, 1, 0) == 0);
}

static long call_sem_wait(struct ctx *c)
{
	struct object *o = c->object;

	return sem_wait(&o->sem);
}

static long call_sem_timedwait(struct ctx *c)
{
	struct object *o = c->object;
	struct timespec end = after_ms(CLOCK_REALTIME, 3600000);

	return sem_timedwait(&o->sem, &end);
}

static long call_sem_clockwait(struct ctx *c)
{
	struct object *o = c->object;
	struct timespec end = after_ms(CLOCK_MONOTONIC, 3600000);

	return sem_clockwait(&o->sem, CLOCK_MONOTONIC, &end);
}

static void post(struct ctx *c)
{
	struct object *o = c->object;

	CHECK_EQ(sem_post(&o->sem), 0);
}

static void release(struct ctx *c)
{
	free(c->object);
}

/* Held by whom disturbs. */
static void a_locked_mutex(struct ctx *c)
{
	struct object *o = c->object = calloc(1, sizeof *o);

	pthread_mutex_init(&o->m, NULL);
	pthread_rwlock_init(&o->rw, NULL);
	REQUIRE_OK(pthread_mutex_lock(&o->m));
	REQUIRE_OK(pthread_rwlock_wrlock(&o->rw));
}

static long call_mutex_lock(struct ctx *c)
{
	struct object *o = c->object;

	return answer(pthread_mutex_lock(&o->m) || pthread_mutex_unlock(&o->m));
}

static long call_mutex_timedlock(struct ctx *c)
{
	struct object *o = c->object;
	struct timespec end = after_ms(CLOCK_REALTIME, 3600000);

	return answer(pthread_mutex_timedlock(&o->m, &end) || pthread_mutex_unlock(&o->m));
}

static long call_rdlock(struct ctx *c)
{
	struct object *o = c->object;

	return answer(pthread_rwlock_rdlock(&o->rw) || pthread_rwlock_unlock(&o->rw));
}

static long call_wrlock(struct ctx *c)
{
	struct object *o = c->object;

	return answer(pthread_rwlock_wrlock(&o->rw) || pthread_rwlock_unlock(&o->rw));
}

static void unlock(struct ctx *c)
{
	struct object *o = c->object;

	CHECK_EQ(pthread_mutex_unlock(&o->m), 0);
	CHECK_EQ(pthread_rwlock_unlock(&o->rw), 0);
}

static void a_condition(struct ctx *c)
{
	struct object *o = c->object = calloc(1, sizeof *o);

	pthread_mutex_init(&o->m, NULL);
	pthread_cond_init(&o->cond, NULL);
}

static void unlock_again(void *m)
{
	pthread_mutex_unlock(m);
}

/* A handler may wake it for nothing, never make it fail. */
static long call_cond_wait(struct ctx *c)
{
	struct object *o = c->object;
	volatile int rc = 0;

	pthread_mutex_lock(&o->m);
	pthread_cleanup_push(unlock_again, &o->m);
	while (!o->ready && rc == 0)
		rc = pthread_cond_wait(&o->cond, &o->m);
	pthread_cleanup_pop(1);
	return answer(rc);
}

static long call_cond_timedwait(struct ctx *c)
{
	struct object *o = c->object;
	struct timespec end = after_ms(CLOCK_REALTIME, 3600000);
	volatile int rc = 0;

	pthread_mutex_lock(&o->m);
	pthread_cleanup_push(unlock_again, &o->m);
	while (!o->ready && rc == 0)
		rc = pthread_cond_timedwait(&o->cond, &o->m, &end);
	pthread_cleanup_pop(1);
	return answer(rc);
}

static void announce(struct ctx *c)
{
	struct object *o = c->object;

	pthread_mutex_lock(&o->m);
	o->ready = 1;
	pthread_mutex_unlock(&o->m);
	CHECK_EQ(pthread_cond_signal(&o->cond), 0);
}

static void a_barrier(struct ctx *c)
{
	struct object *o = c->object = calloc(1, sizeof *o);

	REQUIRE_OK(pthread_barrier_init(&o->barrier, NULL, 2));
}

static long call_barrier_wait(struct ctx *c)
{
	struct object *o = c->object;
	int rc = pthread_barrier_wait(&o->barrier);

	return answer(rc == PTHREAD_BARRIER_SERIAL_THREAD ? 0 : rc);
}

static void come_too(struct ctx *c)
{
	struct object *o = c->object;

	pthread_barrier_wait(&o->barrier);
}

static void *until_ready(void *arg)
{
	struct object *o = arg;

	while (sem_wait(&o->sem) != 0)
		;
	return NULL;
}

static void a_thread(struct ctx *c)
{
	a_semaphore(c);
	struct object *o = c->object;

	o->t = spawn(until_ready, o);
}

static long call_join(struct ctx *c)
{
	struct object *o = c->object;
	int rc = pthread_join(o->t, NULL);

	o->ready = 1;
	return answer(rc);
}

static void end_thread(struct ctx *c)
{
	struct object *o = c->object;

	sem_post(&o->sem);
	if (!o->ready)
		pthread_join(o->t, NULL);
	free(o);
}

/* The table: signal(7), and which are cancellation points of glibc. */
static const struct row rows[] = {
    {"fopen of a FIFO", a_fifo, call_fopen, open_to_write, close_stream, RESTARTS | CANCELS},
    {"fgets", empty_stream, call_fgets, put_line, close_stream, RESTARTS | CANCELS},
    {"getline", empty_stream, call_getline, put_line, close_stream, RESTARTS | CANCELS},
    {"fflush", full_stream, call_fflush, drain, close_drained_stream, RESTARTS | CANCELS},
    {"aio_suspend", pending_aio, call_aio_suspend, put_byte, end_aio, RESTARTS | CANCELS},
    {"pclose", a_command, call_pclose, end_command, release_nothing, NEVER_EINTR},
    {"sem_wait", a_semaphore, call_sem_wait, post, release, RESTARTS | CANCELS},
    {"sem_timedwait", a_semaphore, call_sem_timedwait, post, release, CANCELS},
    {"sem_clockwait", a_semaphore, call_sem_clockwait, post, release, CANCELS},
    {"sem_wait, shared", a_shared_semaphore, call_sem_wait, post, release, RESTARTS | CANCELS},
    {"sem_timedwait, shared", a_shared_semaphore, call_sem_timedwait, post, release, CANCELS},
    {"pthread_mutex_lock", a_locked_mutex, call_mutex_lock, unlock, release, NEVER_EINTR},
    {"pthread_mutex_timedlock", a_locked_mutex, call_mutex_timedlock, unlock, release, NEVER_EINTR},
    {"pthread_rwlock_rdlock", a_locked_mutex, call_rdlock, unlock, release, NEVER_EINTR},
    {"pthread_rwlock_wrlock", a_locked_mutex, call_wrlock, unlock, release, NEVER_EINTR},
    {"pthread_cond_wait", a_condition, call_cond_wait, announce, release, NEVER_EINTR | CANCELS},
    {"pthread_cond_timedwait", a_condition, call_cond_timedwait, announce, release,
     NEVER_EINTR | CANCELS},
    {"pthread_barrier_wait", a_barrier, call_barrier_wait, come_too, release, NEVER_EINTR},
    {"pthread_join", a_thread, call_join, post, end_thread, NEVER_EINTR | CANCELS},
};
CALLS_MAIN
