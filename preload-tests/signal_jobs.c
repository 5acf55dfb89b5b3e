/*
 * Job control on a terminal: a process of threads is stopped and continued as its shell wants, by the terminal's
 * characters, by what it reads and writes in the background, by SIGSTOP, and by its own handlers.
 */
#include "test.h"

#include <pty.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>

static volatile int stop, handled, continued;

static void *compute(void *arg)
{
	volatile unsigned long *n = arg;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		++*n;
	return arg;
}

static void *idle(void *arg)
{
	for (;;)
		sleep_ms(10);
	return arg;
}

/* --- the job, in a process group of its own on the terminal ------------------------------------------------------ */

enum { READY = 'r', DONE = 'd' };
static int tell = -1, master = -1, terminal = -1;

static void told(char c)
{
	REQUIRE(write(tell, &c, 1) == 1);
}

static void others(void)
{
	static unsigned long n[2];

	stop = 0;
	spawn(compute, (void *)&n[0]);
	spawn(idle, NULL);
	sleep_ms(5);
}

struct job {
	pid_t pid;
	int hear;
};

/* The shell: this process, whose terminal it is. */
static struct job start(int foreground, void (*run)(void))
{
	int fds[2];
	struct job j;

	REQUIRE(pipe(fds) == 0);
	j.pid = fork();
	REQUIRE(j.pid >= 0);
	if (j.pid == 0) {
		test_failures = 0;
		signal(SIGTTOU, SIG_IGN);
		setpgid(0, 0);
		if (foreground)
			REQUIRE(tcsetpgrp(terminal, getpid()) == 0);
		signal(SIGTTOU, SIG_DFL);
		tell = fds[1];
		close(fds[0]);
		run();
		told(DONE);
		_exit(test_failures ? 99 : 0);
	}
	setpgid(j.pid, j.pid);
	close(fds[1]);
	j.hear = fds[0];
	return j;
}

static void hear(struct job *j, char want)
{
	char c = 0;
	struct pollfd p = {j->hear, POLLIN, 0};

	if (poll(&p, 1, 20000) != 1 || read(j->hear, &c, 1) != 1 || c != want) {
		FAIL("heard %d, not %c", c, want);
		kill(-j->pid, SIGKILL);
	}
}

static void stopped_by(struct job *j, int sig)
{
	int status = 0;
	pid_t got = 0;

	for (int i = 0; i < 2000 && got == 0; i++) {
		got = waitpid(j->pid, &status, WUNTRACED | WNOHANG);
		if (got == 0)
			sleep_ms(10);
	}
	if (got != j->pid || !WIFSTOPPED(status) || WSTOPSIG(status) != sig) {
		FAIL("not stopped by %d: %d, status %#x", sig, got, status);
		kill(-j->pid, SIGKILL);
	}
}

static void foreground(pid_t group)
{
	CHECK_EQ(tcsetpgrp(terminal, group), 0);
}

static void go_on(struct job *j)
{
	CHECK_EQ(kill(-j->pid, SIGCONT), 0);
}

static void finish(struct job *j)
{
	int status;

	CHECK_EQ(waitpid(j->pid, &status, 0), j->pid);
	if (status != 0)
		FAIL("the job's status is %#x", status);
	close(j->hear);
	foreground(getpgrp());
}

static void type(const char *s)
{
	REQUIRE(write(master, s, strlen(s)) == (ssize_t)strlen(s));
}

static int runs(struct job *j)
{
	char path[64], state = 0;
	snprintf(path, sizeof path, "/proc/%d/stat", j->pid);
	FILE *f = fopen(path, "r");
	REQUIRE(f && fscanf(f, "%*d (%*[^)]) %c", &state) == 1);
	fclose(f);
	return state != 'T';
}

/* --- stopped by characters ------------------------------------------------------------------------------------------- */

static void *reads_a_line(void *arg)
{
	char line[100];
	ssize_t n = read(terminal, line, sizeof line);

	if (n != 6 || memcmp(line, "hello\n", 6))
		FAIL("read %ld, errno %d", (long)n, errno);
	return arg;
}

static void reads_in_main(void)
{
	others();
	told(READY);
	reads_a_line(NULL);
}

static void reads_in_thread(void)
{
	others();
	told(READY);
	join(spawn(reads_a_line, NULL));
}

static void by_characters(void)
{
	for (int i = 0; i < 2; i++) {
		struct job j = start(1, i ? reads_in_thread : reads_in_main);
		hear(&j, READY);
		for (int k = 0; k < 3; k++) {
			sleep_ms(5);
			type("\032");
			stopped_by(&j, SIGTSTP);
			foreground(getpgrp());
			foreground(j.pid);
			go_on(&j);
		}
		type("hello\n");
		hear(&j, DONE);
		finish(&j);
	}
}

/* --- in the background ------------------------------------------------------------------------------------------------ */

static void reads_at_once_in_main(void)
{
	others();
	reads_a_line(NULL);
}

static void reads_at_once_in_thread(void)
{
	others();
	join(spawn(reads_a_line, NULL));
}

static void reads_in_background(void)
{
	for (int i = 0; i < 2; i++) {
		struct job j = start(0, i ? reads_at_once_in_thread : reads_at_once_in_main);
		stopped_by(&j, SIGTTIN);
		go_on(&j); /* still in the background */
		stopped_by(&j, SIGTTIN);
		foreground(j.pid);
		go_on(&j);
		type("hello\n");
		hear(&j, DONE);
		finish(&j);
	}
}

/* Blocked or ignored: EIO instead. */
static void *read_refused(void *arg)
{
	sigset_t set, old;
	char c;

	sigemptyset(&set);
	sigaddset(&set, SIGTTIN);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	CHECK_ERRNO(read(terminal, &c, 1), EIO);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	signal(SIGTTIN, SIG_IGN);
	CHECK_ERRNO(read(terminal, &c, 1), EIO);
	signal(SIGTTIN, SIG_DFL);
	return arg;
}

static void reads_refused(void)
{
	others();
	read_refused(NULL);
	join(spawn(read_refused, NULL));
}

static void background_reads_refused(void)
{
	struct job j = start(0, reads_refused);

	hear(&j, DONE);
	finish(&j);
}

/* With TOSTOP a write stops it, and a change of the terminal always does, unless SIGTTOU is blocked. */
static void *writes(void *arg)
{
	CHECK_EQ(write(terminal, "x", 1), 1);
	return arg;
}

static void writes_in_main(void)
{
	others();
	writes(NULL);
}

static void writes_in_thread(void)
{
	others();
	join(spawn(writes, NULL));
}

static void *changes(void *arg)
{
	struct termios t;

	CHECK_EQ(tcgetattr(terminal, &t), 0);
	CHECK_EQ(tcsetattr(terminal, TCSANOW, &t), 0);
	return arg;
}

static void changes_in_main(void)
{
	others();
	changes(NULL);
}

static void changes_in_thread(void)
{
	others();
	join(spawn(changes, NULL));
}

static void *writes_anyhow(void *arg)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	writes(NULL);
	changes(NULL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	signal(SIGTTOU, SIG_IGN);
	writes(NULL);
	changes(NULL);
	signal(SIGTTOU, SIG_DFL);
	return arg;
}

static void writes_allowed(void)
{
	others();
	writes_anyhow(NULL);
	join(spawn(writes_anyhow, NULL));
}

static void writes_in_background(void)
{
	static void (*const all[])(void) = {writes_in_main, writes_in_thread, changes_in_main,
					    changes_in_thread};
	struct termios t;

	CHECK_EQ(tcgetattr(terminal, &t), 0);
	t.c_lflag |= TOSTOP;
	CHECK_EQ(tcsetattr(terminal, TCSANOW, &t), 0);
	for (unsigned i = 0; i < COUNT(all); i++) {
		struct job j = start(0, all[i]);
		stopped_by(&j, SIGTTOU);
		foreground(j.pid);
		go_on(&j);
		hear(&j, DONE);
		finish(&j);
	}
	struct job j = start(0, writes_allowed);
	hear(&j, DONE);
	finish(&j);
	t.c_lflag &= ~TOSTOP;
	CHECK_EQ(tcsetattr(terminal, TCSANOW, &t), 0);
}

/* --- handlers --------------------------------------------------------------------------------------------------------- */

static void on_cont(int sig)
{
	(void)sig;
	continued++;
}

/* As editors do: put the terminal in order, stop, and take it up again. */
static void on_tstp(int sig)
{
	struct sigaction sa = {.sa_handler = on_tstp};
	sigset_t set, old;

	handled++;
	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	raise(sig);
	pthread_sigmask(SIG_UNBLOCK, &set, &old);
	/* Stopped here, until SIGCONT. */
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	sigaction(sig, &sa, NULL);
}

static void handles_stops(void)
{
	char c;
	struct sigaction sa = {.sa_handler = on_tstp};

	others();
	sigaction(SIGTSTP, &sa, NULL);
	sa.sa_handler = on_cont;
	sigaction(SIGCONT, &sa, NULL);
	told(READY);
	for (int i = 1; i <= 3; i++) {
		CHECK_ERRNO(read(terminal, &c, 1), EINTR);
		while (handled != i || continued != i)
			sleep_ms(1);
		told(READY);
	}
	reads_a_line(NULL);
}

static void by_handlers(void)
{
	struct job j = start(1, handles_stops);

	hear(&j, READY);
	for (int k = 0; k < 3; k++) {
		sleep_ms(10);
		type("\032");
		stopped_by(&j, SIGTSTP);
		foreground(j.pid);
		go_on(&j);
		hear(&j, READY);
	}
	type("hello\n");
	hear(&j, DONE);
	finish(&j);
}

/* ^C and ^\ end it; a window's size is told to all of the foreground. */
static void on_winch(int sig)
{
	(void)sig;
	handled++;
}

static void waits_for_winch(void)
{
	struct sigaction sa = {.sa_handler = on_winch};

	others();
	sigaction(SIGWINCH, &sa, NULL);
	told(READY);
	while (!handled)
		sleep_ms(1);
	told(READY);
	for (;;)
		pause();
}

static void interrupted(void)
{
	static const struct {
		const char *key;
		int sig;
	} keys[] = {{"\003", SIGINT}, {"\034", SIGQUIT}};

	for (unsigned i = 0; i < COUNT(keys); i++) {
		struct job j = start(1, waits_for_winch);
		struct winsize w = {.ws_row = (unsigned short)(20 + i), .ws_col = 70};
		int status;

		hear(&j, READY);
		CHECK_EQ(ioctl(master, TIOCSWINSZ, &w), 0);
		hear(&j, READY);
		type(keys[i].key);
		CHECK_EQ(waitpid(j.pid, &status, 0), j.pid);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == keys[i].sig);
		close(j.hear);
		foreground(getpgrp());
	}
}

/* --- SIGSTOP of a busy process ------------------------------------------------------------------------------------------ */

static volatile int ticks;

static void on_alarm(int sig)
{
	(void)sig;
	ticks++;
}

static void *ping(void *arg)
{
	int *fds = arg;
	char c = 1;

	for (;;)
		if (read(fds[0], &c, 1) != 1 || write(fds[3], &c, 1) != 1)
			return NULL;
}

/* How often the shell has continued the job, which ends after as many rounds begun since. */
enum { STOPS = 5 };
static volatile int *continues;

static void busy(void)
{
	struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	static unsigned long n[4];
	int fds[4];
	char c = 0;
	timer_t t;
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
	struct itimerspec its = {{0, 2000000}, {0, 2000000}};

	sigaction(SIGALRM, &sa, NULL);
	stop = 0;
	for (int i = 0; i < 4; i++)
		spawn(compute, &n[i]);
	REQUIRE(pipe(fds) == 0 && pipe(fds + 2) == 0);
	spawn(ping, fds);
	timer_create(CLOCK_MONOTONIC, &ev, &t);
	timer_settime(t, 0, &its, NULL);
	told(READY);
	for (int answered = 0; answered < STOPS;) {
		/* Everything goes on: computations share, messages pass, time passes, signals come. */
		int to_answer = __atomic_load_n(continues, __ATOMIC_ACQUIRE);
		unsigned long before[4];
		int was = ticks;
		for (int i = 0; i < 4; i++)
			before[i] = __atomic_load_n(&n[i], __ATOMIC_RELAXED);
		for (int i = 0; i < 5; i++) {
			REQUIRE(write(fds[1], &c, 1) == 1);
			REQUIRE(read(fds[2], &c, 1) == 1);
			sleep_ms(1);
		}
		for (int i = 0; i < 4; i++)
			while (__atomic_load_n(&n[i], __ATOMIC_RELAXED) == before[i])
				sleep_ms(1);
		while (ticks - was < 3)
			sleep_ms(1);
		if (to_answer != answered)
			told(READY);
		answered = to_answer;
	}
}

static void busy_process_stopped(void)
{
	continues = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(continues != MAP_FAILED);
	struct job j = start(0, busy);

	hear(&j, READY);
	for (int i = 1; i <= STOPS; i++) {
		CHECK_EQ(kill(j.pid, SIGSTOP), 0);
		stopped_by(&j, SIGSTOP);
		sleep_ms(20);
		CHECK(!runs(&j));
		__atomic_store_n(continues, i, __ATOMIC_RELEASE);
		go_on(&j);
		hear(&j, READY);
	}
	hear(&j, DONE);
	finish(&j);
}

/* --------------------------------------------------------------------------------------------------------------------- */

static const struct test_case cases[] = {
    {"by_characters", by_characters},
    {"reads_in_background", reads_in_background},
    {"background_reads_refused", background_reads_refused},
    {"writes_in_background", writes_in_background},
    {"by_handlers", by_handlers},
    {"interrupted", interrupted},
    {"busy_process_stopped", busy_process_stopped},
};

int main(int argc, char **argv)
{
	struct rlimit none = {0, 0};
	struct termios t;

	/* The shell of a session whose terminal is ours. */
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (pid) {
		int status;
		REQUIRE(waitpid(pid, &status, 0) == pid);
		return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	}
	setrlimit(RLIMIT_CORE, &none);
	REQUIRE(openpty(&master, &terminal, NULL, NULL, NULL) == 0);
	REQUIRE(setsid() > 0);
	REQUIRE(ioctl(terminal, TIOCSCTTY, 0) == 0);
	REQUIRE(tcgetattr(terminal, &t) == 0);
	t.c_lflag &= ~ECHO;
	REQUIRE(tcsetattr(terminal, TCSANOW, &t) == 0);
	fcntl(master, F_SETFD, FD_CLOEXEC);
	signal(SIGTTOU, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	int status = test_run(argc, argv, cases, COUNT(cases));
	_exit(status);
}
