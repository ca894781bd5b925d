/*
 * What the programs that drive a PCI function have in common. Each program's finding is a line "RESULT name value"; its last line is PASS,
 * or FAIL with the reason (exit code 1).
 */
#ifndef FUNCTION_H
#define FUNCTION_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Configuration space. */
#define COMMAND 4
#define COMMAND_MEMORY 2u
#define COMMAND_BUS_MASTER 4u
#define COMMAND_INTX_DISABLE (1u << 10)

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void fail(const char *format, ...)
{
	va_list arguments;

	printf("FAIL ");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	exit(1);
}

/* A file of the function's folder in sysfs. */
static inline int open_in(const char *function, const char *file, int flags)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", function, file);
	fd = open(path, flags);
	if (fd < 0)
		fail("cannot open %s: %s", path, strerror(errno));
	return fd;
}

static inline uint32_t read32(volatile uint8_t *bar, uint32_t offset)
{
	return *(volatile uint32_t *)(bar + offset);
}

static inline void write32(volatile uint8_t *bar, uint32_t offset, uint32_t value)
{
	*(volatile uint32_t *)(bar + offset) = value;
}

static inline void write64(volatile uint8_t *bar, uint32_t offset, uint64_t value)
{
	*(volatile uint64_t *)(bar + offset) = value;
}

static inline uint64_t read64(volatile uint8_t *bar, uint32_t offset)
{
	return *(volatile uint64_t *)(bar + offset);
}

#endif
