/*
 * Flags of sigaction that signal_kill, signal_mask and signal_context leave, as the kernel means them: what SIGCHLD tells of children, handlers
 * that interrupt themselves, and the order and the values in which queued signals come.
 */
#include "test.h"

enum { SA_RESTORER = 0x04000000 /* libc's */ };
static volatile int count, depth, deepest;
static volatile int order[64];
static siginfo_t infos[64];

static void note(int sig, siginfo_t *info, void *uc)
{
	(void)uc;
	int i = __atomic_fetch_add(&count, 1, __ATOMIC_ACQ_REL);

	if (i < (int)COUNT(order)) {
		order[i] = sig;
		infos[i] = *info;
	}
}

static void on(int sig, void (*fn)(int, siginfo_t *, void *), int flags)
{
	struct sigaction sa = {.sa_sigaction = fn, .sa_flags = SA_SIGINFO | flags};

	REQUIRE(sigaction(sig, &sa, NULL) == 0);
	count = 0;
}

static void *blocked_by_all(void *arg)
{
	while (!*(volatile int *)arg)
		sleep_ms(1);
	return NULL;
}

/* By a thread that has signals open while all others, main too, block them. */
static void by_the_only_one(void *(*fn)(void *))
{
	volatile int stop = 0;
	sigset_t set, old, none;
	pthread_attr_t attr;
	pthread_t q;

	sigfillset(&set);
	sigemptyset(&none);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	pthread_t t = spawn(blocked_by_all, (void *)&stop);
	pthread_attr_init(&attr);
	REQUIRE_OK(pthread_attr_setsigmask_np(&attr, &none));
	REQUIRE_OK(pthread_create(&q, &attr, fn, NULL));
	pthread_attr_destroy(&attr);
	join(q);
	stop = 1;
	join(t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void *nothing(void *arg)
{
	return arg;
}

/* --- SIGCHLD ----------------------------------------------------------------------------------------------------- */

static pid_t child(void)
{
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0)
		for (;;)
			pause();
	return pid;
}

static void expect_child(int code, int status, pid_t pid)
{
	CHECK(wait_for(&count, 1, 10000));
	CHECK_EQ(infos[0].si_code, code);
	CHECK_EQ(infos[0].si_status, status);
	CHECK_EQ(infos[0].si_pid, pid);
	CHECK_EQ(infos[0].si_uid, getuid());
	count = 0;
}

static void *children_told_of(void *arg)
{
	pid_t pid = child();
	int status;

	on(SIGCHLD, note, SA_RESTART);
	kill(pid, SIGSTOP);
	expect_child(CLD_STOPPED, SIGSTOP, pid);
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
	kill(pid, SIGCONT);
	expect_child(CLD_CONTINUED, SIGCONT, pid);
	CHECK_EQ(waitpid(pid, &status, WCONTINUED), pid);
	CHECK(WIFCONTINUED(status));
	kill(pid, SIGTERM);
	expect_child(CLD_KILLED, SIGTERM, pid);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	return arg;
}

static void *children_that_stop(void *arg)
{
	pid_t pid = child();
	int status;

	on(SIGCHLD, note, SA_RESTART | SA_NOCLDSTOP);
	kill(pid, SIGSTOP);
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	kill(pid, SIGCONT);
	CHECK_EQ(waitpid(pid, &status, WCONTINUED), pid);
	CHECK_EQ(count, 0);
	kill(pid, SIGKILL);
	expect_child(CLD_KILLED, SIGKILL, pid);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	return arg;
}

static void *children_not_waited_for(void *arg)
{
	on(SIGCHLD, note, SA_RESTART | SA_NOCLDWAIT);
	pid_t pid = child();
	kill(pid, SIGKILL);
	CHECK_ERRNO(waitpid(pid, NULL, 0), ECHILD);
	/* Linux tells of it all the same. */
	expect_child(CLD_KILLED, SIGKILL, pid);
	signal(SIGCHLD, SIG_IGN);
	pid = child();
	kill(pid, SIGKILL);
	CHECK_ERRNO(waitpid(pid, NULL, 0), ECHILD);
	signal(SIGCHLD, SIG_DFL);
	return arg;
}

static void children(void)
{
	children_told_of(NULL);
	join(spawn(children_told_of, NULL));
	children_that_stop(NULL);
	join(spawn(children_that_stop, NULL));
	children_not_waited_for(NULL);
	join(spawn(children_not_waited_for, NULL));
}

/* --- handlers that interrupt themselves ---------------------------------------------------------------------------- */

static void raise_again(int sig, siginfo_t *info, void *uc)
{
	(void)info, (void)uc;
	count++;
	depth++;
	if (depth > deepest)
		deepest = depth;
	if (count < 20)
		raise(sig);
	depth--;
}

static void *recursive(void *arg)
{
	depth = deepest = 0;
	on(SIGUSR1, raise_again, SA_NODEFER);
	raise(SIGUSR1);
	CHECK_EQ(count, 20);
	CHECK_EQ(deepest, 20);
	depth = deepest = 0;
	on(SIGUSR1, raise_again, 0);
	raise(SIGUSR1);
	CHECK_EQ(count, 20);
	CHECK_EQ(deepest, 1);
	/* sa_mask counts with SA_NODEFER too. */
	struct sigaction sa = {.sa_sigaction = raise_again, .sa_flags = SA_SIGINFO | SA_NODEFER};
	sigaddset(&sa.sa_mask, SIGUSR1);
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	count = depth = deepest = 0;
	raise(SIGUSR1);
	CHECK_EQ(count, 20);
	CHECK_EQ(deepest, 1);
	return arg;
}

static void raise_once(int sig, siginfo_t *info, void *uc)
{
	struct sigaction now;

	(void)info, (void)uc;
	count++;
	CHECK_EQ(sigaction(sig, NULL, &now), 0);
	CHECK(now.sa_handler == SIG_DFL);
	CHECK(now.sa_flags & (int)SA_RESETHAND);
	CHECK(now.sa_flags & SA_SIGINFO);
}

static void *reset_at_once(void *arg)
{
	for (int i = 0; i < 5; i++) {
		on(SIGCHLD, raise_once, SA_RESETHAND);
		raise(SIGCHLD);
		raise(SIGCHLD);
		CHECK_EQ(count, 1);
	}
	signal(SIGCHLD, SIG_DFL);
	return arg;
}

static void handlers_of_handlers(void)
{
	recursive(NULL);
	join(spawn(recursive, NULL));
	reset_at_once(NULL);
	join(spawn(reset_at_once, NULL));
}

/* What is given back is what was set. */
static void as_it_was_set(void)
{
	static const int flags[] = {0,
				    SA_SIGINFO,
				    SA_RESTART,
				    SA_NODEFER,
				    (int)SA_RESETHAND,
				    SA_ONSTACK,
				    SA_NOCLDSTOP | SA_NOCLDWAIT,
				    SA_SIGINFO | SA_RESTART | SA_ONSTACK};
	struct sigaction sa, got;

	for (int sig = 1; sig <= SIGRTMAX; sig++) {
		if (sig == SIGKILL || sig == SIGSTOP || sig == 32 || sig == 33)
			continue;
		for (unsigned i = 0; i < COUNT(flags); i++) {
			memset(&sa, 0, sizeof sa);
			memset(&got, 0xff, sizeof got);
			sa.sa_sigaction = note;
			sa.sa_flags = flags[i];
			sigaddset(&sa.sa_mask, SIGTERM);
			sigaddset(&sa.sa_mask, 1 + sig % 60);
			CHECK_EQ(sigaction(sig, &sa, NULL), 0);
			CHECK_EQ(sigaction(sig, NULL, &got), 0);
			CHECK(got.sa_sigaction == note);
			got.sa_flags &= ~SA_RESTORER;
			if (got.sa_flags != flags[i])
				FAIL("signal %d: flags %#x, not %#x", sig, got.sa_flags, flags[i]);
			for (int s = 1; s <= SIGRTMAX; s++)
				if (s != SIGKILL && s != SIGSTOP && s != 32 && s != 33 &&
				    sigismember(&sa.sa_mask, s) != sigismember(&got.sa_mask, s))
					FAIL("signal %d, flags %#x: %d in the mask", sig, flags[i],
					     s);
			CHECK(!sigismember(&got.sa_mask, SIGKILL));
		}
		signal(sig, SIG_DFL);
	}
	CHECK_ERRNO(sigaction(SIGKILL, &sa, NULL), EINVAL);
	CHECK_ERRNO(sigaction(SIGSTOP, &sa, NULL), EINVAL);
	CHECK_ERRNO(sigaction(0, &sa, NULL), EINVAL);
	CHECK_ERRNO(sigaction(65, &sa, NULL), EINVAL);
	CHECK_ERRNO(sigaction(-1, NULL, &got), EINVAL);
	CHECK_ERRNO(sigaction(32, &sa, NULL), EINVAL);
	CHECK_ERRNO(sigaction(33, NULL, &got), EINVAL);
	CHECK_EQ(sigaction(SIGKILL, NULL, &got), 0);
	CHECK(got.sa_handler == SIG_DFL);
}

/* A signal that becomes ignored is no longer pending, and one with the default action that does nothing neither. */
static void *no_longer_pending(void *arg)
{
	sigset_t set, old, now;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGRTMIN);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	for (int process = 0; process < 2; process++) {
		int all[] = {SIGUSR1, SIGCHLD, SIGRTMIN};
		for (unsigned i = 0; i < COUNT(all); i++) {
			on(all[i], note, 0);
			if (process) {
				kill(getpid(), all[i]);
				kill(getpid(), all[i]);
			} else {
				raise(all[i]);
				raise(all[i]);
			}
			sigpending(&now);
			CHECK(sigismember(&now, all[i]));
			signal(all[i], all[i] == SIGCHLD ? SIG_DFL : SIG_IGN);
			sigpending(&now);
			if (sigismember(&now, all[i]))
				FAIL("signal %d to the %s is pending, ignored", all[i],
				     process ? "process" : "thread");
			on(all[i], note, 0);
		}
	}
	count = 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	CHECK_EQ(count, 0);
	return arg;
}

static void ignored_while_pending(void)
{
	no_longer_pending(NULL);
	by_the_only_one(no_longer_pending);
}

/* SIGCONT takes the signals that stop from those that are pending, and the other way round. */
static void *stop_and_continue(void *arg)
{
	sigset_t set, old, now;

	sigemptyset(&set);
	sigaddset(&set, SIGCONT);
	sigaddset(&set, SIGTSTP);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	on(SIGCONT, note, 0);
	on(SIGTSTP, note, 0);
	for (int process = 0; process < 2; process++) {
		for (int i = 0; i < 4; i++) {
			int sig = i % 2 ? SIGCONT : SIGTSTP, other = i % 2 ? SIGTSTP : SIGCONT;
			if (process)
				kill(getpid(), sig);
			else
				raise(sig);
			sigpending(&now);
			CHECK(sigismember(&now, sig));
			if (sigismember(&now, other))
				FAIL("%d pending beside %d, to the %s", other, sig,
				     process ? "process" : "thread");
		}
	}
	count = 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	CHECK(count >= 1 && order[0] == SIGCONT);
	signal(SIGCONT, SIG_DFL);
	signal(SIGTSTP, SIG_DFL);
	return arg;
}

static void stops_and_continuations(void)
{
	stop_and_continue(NULL);
	by_the_only_one(stop_and_continue);
}

/* --- order and values -------------------------------------------------------------------------------------------------- */

static int mixed_sigs[] = {4, 1, 4, 2, 1, 4, 3, 1};

static void send(int process, int i, pthread_t self)
{
	union sigval v = {.sival_int = 100 + i};
	int sig = SIGRTMIN + mixed_sigs[i];

	CHECK_EQ(process ? sigqueue(getpid(), sig, v) : pthread_sigqueue(self, sig, v), 0);
}

/* Lowest number first, equal ones in the order of sending; those for the thread before those for the process. */
static void *queued(void *arg)
{
	sigset_t set, old, now;
	siginfo_t info;
	struct timespec none = {0, 0};

	sigemptyset(&set);
	for (int i = 0; i < 6; i++) {
		sigaddset(&set, SIGRTMIN + i);
		on(SIGRTMIN + i, note, 0);
	}
	sigaddset(&set, SIGUSR1);
	on(SIGUSR1, note, 0);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	for (int process = 0; process < 2; process++) {
		count = 0;
		for (int i = 0; i < 8; i++)
			send(process, i, pthread_self());
		process ? kill(getpid(), SIGUSR1) : raise(SIGUSR1);
		sigpending(&now);
		for (int i = 0; i < 6; i++)
			CHECK_EQ(sigismember(&now, SIGRTMIN + i), i >= 1 && i <= 4);
		static const int want[] = {1, 4, 7, 3, 6, 0, 2, 5};
		CHECK_EQ(sigtimedwait(&set, &info, &none), SIGUSR1);
		for (int i = 0; i < 8; i++) {
			CHECK_EQ(sigtimedwait(&set, &info, &none), SIGRTMIN + mixed_sigs[want[i]]);
			CHECK_EQ(info.si_code, SI_QUEUE);
			CHECK_EQ(info.si_value.sival_int, 100 + want[i]);
			CHECK_EQ(info.si_pid, getpid());
		}
		CHECK_ERRNO(sigtimedwait(&set, &info, &none), EAGAIN);
		/* And by handlers: each interrupts the one before it, so the last to begin is the lowest... unless
		 * they block one another. */
		struct sigaction sa = {.sa_sigaction = note,
				       .sa_flags = SA_SIGINFO,
				       .sa_mask = set};
		for (int i = 0; i < 6; i++)
			sigaction(SIGRTMIN + i, &sa, NULL);
		count = 0;
		for (int i = 0; i < 8; i++)
			send(process, i, pthread_self());
		pthread_sigmask(SIG_SETMASK, &old, NULL);
		CHECK_EQ(count, 8);
		for (int i = 0; i < 8; i++) {
			CHECK_EQ(order[i], SIGRTMIN + mixed_sigs[want[i]]);
			CHECK_EQ(infos[i].si_value.sival_int, 100 + want[i]);
		}
		pthread_sigmask(SIG_BLOCK, &set, NULL);
	}
	/* The thread's own first. */
	send(1, 0, pthread_self());
	send(0, 2, pthread_self());
	CHECK_EQ(sigtimedwait(&set, &info, &none), SIGRTMIN + 4);
	CHECK_EQ(info.si_value.sival_int, 102);
	CHECK_EQ(sigtimedwait(&set, &info, &none), SIGRTMIN + 4);
	CHECK_EQ(info.si_value.sival_int, 100);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return arg;
}

static void order_and_values(void)
{
	queued(NULL);
	by_the_only_one(queued);
	for (int i = 0; i < 6; i++)
		signal(SIGRTMIN + i, SIG_DFL);
}

/* In signal handlers of lower numbers come first, when several open at once: the kernel begins with the lowest, and each
 * that is delivered next interrupts it before its first instruction. */
static void *several_at_once(void *arg)
{
	sigset_t set, old;
	static const int sigs[] = {SIGUSR2, SIGHUP, SIGTERM, SIGUSR1, SIGCHLD};

	sigemptyset(&set);
	for (unsigned i = 0; i < COUNT(sigs); i++) {
		sigaddset(&set, sigs[i]);
		on(sigs[i], note, 0);
	}
	pthread_sigmask(SIG_BLOCK, &set, &old);
	for (int process = 0; process < 2; process++) {
		count = 0;
		for (unsigned i = 0; i < COUNT(sigs); i++)
			process ? kill(getpid(), sigs[i]) : raise(sigs[i]);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
		CHECK_EQ(count, 5);
		static const int want[] = {SIGCHLD, SIGTERM, SIGUSR2, SIGUSR1, SIGHUP};
		for (int i = 0; i < 5; i++)
			if (order[i] != want[i])
				FAIL("%s: place %d has %d, not %d", process ? "process" : "thread",
				     i, order[i], want[i]);
		pthread_sigmask(SIG_BLOCK, &set, NULL);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	for (unsigned i = 0; i < COUNT(sigs); i++)
		signal(sigs[i], SIG_DFL);
	return arg;
}

static void open_at_once(void)
{
	several_at_once(NULL);
	by_the_only_one(several_at_once);
}

/* sigaction tells what the kernel has kept: flags that it does not know are gone, and libc's own is there. */
static void flags_that_are_told(void)
{
	struct sigaction sa = {.sa_handler = SIG_IGN,
			       .sa_flags = SA_RESTART | SA_NODEFER | 0x40 | 0x400},
			 told;

	memset(&sa.sa_restorer, 0x55, sizeof sa.sa_restorer);
	CHECK_EQ(sigaction(SIGUSR1, &sa, NULL), 0);
	CHECK_EQ(sigaction(SIGUSR1, NULL, &told), 0);
	CHECK_EQ(told.sa_flags, SA_RESTART | SA_NODEFER | 0x04000000);
	CHECK(told.sa_restorer && told.sa_restorer != sa.sa_restorer);
	signal(SIGUSR1, SIG_DFL);
}

static void started(void)
{
	join(spawn(nothing, NULL));
}

static const struct test_case cases[] = {
    {"started", started},
    {"children", children},
    {"handlers_of_handlers", handlers_of_handlers},
    {"as_it_was_set", as_it_was_set},
    {"ignored_while_pending", ignored_while_pending},
    {"stops_and_continuations", stops_and_continuations},
    {"order_and_values", order_and_values},
    {"open_at_once", open_at_once},
    {"flags_that_are_told", flags_that_are_told},
};

TEST_MAIN(cases)
