/*
 * OpenMP (libgomp): loops of each schedule, tasks, locks, ordered and nested regions. Prints what it has counted.
 */
#include <omp.h>
#include <stdio.h>

static long fib(int n)
{
	long a, b;

	if (n < 2)
		return n;
#pragma omp task shared(a)
	a = fib(n - 1);
#pragma omp task shared(b)
	b = fib(n - 2);
#pragma omp taskwait
	return a + b;
}

static void loops(void)
{
	long sum = 0;

	for (int r = 0; r < 100; r++) {
#pragma omp parallel for reduction(+ : sum) schedule(static, 3)
		for (int i = 0; i < 5000; i++)
			sum += i;
#pragma omp parallel for reduction(+ : sum) schedule(dynamic, 7)
		for (int i = 0; i < 5000; i++)
			sum += i;
#pragma omp parallel for reduction(+ : sum) schedule(guided)
		for (int i = 0; i < 5000; i++)
			sum += i;
	}
	printf("loops %ld\n", sum);
}

static void locks(void)
{
	long plain = 0, nested = 0, critical = 0, atomic = 0;
	omp_lock_t lock;
	omp_nest_lock_t nest;

	omp_init_lock(&lock);
	omp_init_nest_lock(&nest);
#pragma omp parallel
	for (int i = 0; i < 500; i++) {
		omp_set_lock(&lock);
		plain++;
		omp_unset_lock(&lock);
		omp_set_nest_lock(&nest);
		omp_set_nest_lock(&nest);
		nested++;
		omp_unset_nest_lock(&nest);
		omp_unset_nest_lock(&nest);
#pragma omp critical
		critical++;
#pragma omp atomic
		atomic++;
	}
	printf("locks %ld %ld %ld %ld\n", plain, nested, critical, atomic);
}

static void regions(void)
{
	int inner = 0, order = 0, wrong = 0;
	static int own;
#pragma omp threadprivate(own)

#pragma omp parallel num_threads(3)
#pragma omp parallel num_threads(3)
#pragma omp parallel num_threads(2)
#pragma omp atomic
	inner++;
#pragma omp parallel
	own = omp_get_thread_num();
#pragma omp parallel reduction(+ : wrong)
	wrong += own != omp_get_thread_num();
#pragma omp parallel for ordered
	for (int i = 0; i < 200; i++) {
#pragma omp ordered
		wrong += order++ != i;
	}
	printf("regions %d, wrong %d\n", inner, wrong);
}

int main(void)
{
	long f = 0;

	omp_set_dynamic(0);
	omp_set_num_threads(8);
	omp_set_max_active_levels(3);
	loops();
#pragma omp parallel
#pragma omp single
	f = fib(17);
	printf("tasks %ld\n", f);
	locks();
	regions();
	return 0;
}
