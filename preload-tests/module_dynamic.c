/*
 * A module loaded by dlopen whose thread-local variables are found by way of the DTV: see
 * tls_dlopen.c.
 */
static __thread int value = 11;
static __thread char room[3000];

int *module_value(void)
{
	return &value;
}

char *module_room(void)
{
	return room;
}
