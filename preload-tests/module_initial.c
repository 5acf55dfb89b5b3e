/*
 * A module loaded by dlopen whose thread-local variable uses the initial-exec model: ld.so places
 * it in the surplus of the static TLS block, for threads that exist already too. See tls_dlopen.c.
 */
static __thread int value __attribute__((tls_model("initial-exec"))) = 22;
static __thread int zero __attribute__((tls_model("initial-exec")));

int *module_value(void)
{
	return &value;
}

char *module_room(void)
{
	return (char *)&zero;
}
