/*
 * Drives the educational device (1234:11e8, QEMU's docs/specs/edu.rst) from a Linux guest's user space, through
 * sysfs and an mmap of its BAR 0, with no driver.
 *
 *   edu_user [check]        identity, liveness, factorials
 *   edu_user find           what sysfs and configuration space say; no access to the BAR
 *   edu_user read OFF       one 32-bit read
 *   edu_user posted N       N writes of 1 to N to the liveness register, then one read of it
 *   edu_user outage SECONDS reads the identification until it is all-ones
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "edu.h"

#define CLASS 0x00ff00u /* unclassified, other */
#define ALL_ONES 0xffffffffu

#define POLLS_MAX 100000

static const char devices[] = "/sys/bus/pci/devices";

/* The number in a sysfs file such as "vendor". */
static uint32_t number_in(const char *function, const char *file)
{
	char text[64] = "";
	int fd = open_in(function, file, O_RDONLY);

	if (read(fd, text, sizeof(text) - 1) < 0)
		fail("cannot read %s: %s", file, strerror(errno));
	close(fd);
	return (uint32_t)strtoul(text, NULL, 0);
}

/* Copies the name of the one function with our ids. */
static void find_function(char *name, size_t size)
{
	DIR *folder = opendir(devices);
	struct dirent *entry;
	int found = 0;

	if (!folder)
		fail("cannot open %s: %s", devices, strerror(errno));
	while ((entry = readdir(folder)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		if (number_in(entry->d_name, "vendor") != VENDOR || number_in(entry->d_name, "device") != DEVICE)
			continue;
		snprintf(name, size, "%s", entry->d_name);
		found++;
	}
	closedir(folder);
	if (found != 1)
		fail("%d functions %04x:%04x", found, VENDOR, DEVICE);
}

static void check_identity(const char *function)
{
	uint32_t vendor = number_in(function, "vendor");
	uint32_t device = number_in(function, "device");
	uint32_t class = number_in(function, "class");
	uint32_t dword;
	int fd = open_in(function, "config", O_RDONLY);

	printf("RESULT function %s\n", function);
	printf("RESULT vendor 0x%04x\n", vendor);
	printf("RESULT device 0x%04x\n", device);
	printf("RESULT class 0x%06x\n", class);
	if (class != CLASS)
		fail("class 0x%06x, not 0x%06x", class, CLASS);
	if (pread(fd, &dword, sizeof(dword), 0) != sizeof(dword))
		fail("cannot read configuration space: %s", strerror(errno));
	close(fd);
	printf("RESULT config0 0x%08x\n", dword);
	if (dword != (DEVICE << 16 | VENDOR))
		fail("configuration space begins with 0x%08x", dword);
}

static void check_bar(const char *function)
{
	char text[128] = "";
	uint64_t first, last;
	int fd = open_in(function, "resource", O_RDONLY);

	if (read(fd, text, sizeof(text) - 1) < 0)
		fail("cannot read the resources: %s", strerror(errno));
	close(fd);
	if (sscanf(text, "%" SCNx64 " %" SCNx64, &first, &last) != 2)
		fail("resources begin with %s", text);
	printf("RESULT bar0_size 0x%" PRIx64 "\n", last - first + 1);
	if (last - first + 1 != BAR0_SIZE)
		fail("BAR 0 is not %u bytes", BAR0_SIZE);
}

static volatile uint8_t *map_bar(const char *function)
{
	void *map;
	int fd = open_in(function, "enable", O_WRONLY);

	if (write(fd, "1", 1) != 1)
		fail("cannot enable the function: %s", strerror(errno));
	close(fd);
	fd = open_in(function, "resource0", O_RDWR | O_SYNC);
	map = mmap(NULL, BAR0_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		fail("cannot map BAR 0: %s", strerror(errno));
	close(fd);
	return map;
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void check_liveness(volatile uint8_t *bar)
{
	static const uint32_t values[] = { 0x00000000, 0xffffffff, 0x12345678, 0xdeadbeef };
	size_t i;

	for (i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		uint32_t answer;

		write32(bar, REG_LIVENESS, values[i]);
		answer = read32(bar, REG_LIVENESS);
		printf("RESULT liveness_%08x 0x%08x\n", values[i], answer);
		if (answer != ~values[i])
			fail("liveness of 0x%08x is 0x%08x", values[i], answer);
	}
}

static void check_factorial(volatile uint8_t *bar, uint32_t n)
{
	uint32_t expected = 1, answer, i;
	int polls = 0;

	/* The device computes modulo 2^32. */
	for (i = 2; i <= n; i++)
		expected *= i;
	write32(bar, REG_FACTORIAL, n);
	while (read32(bar, REG_STATUS) & STATUS_COMPUTING) {
		if (++polls == POLLS_MAX)
			fail("the factorial of %u is still being computed after %d polls", n, polls);
	}
	answer = read32(bar, REG_FACTORIAL);
	printf("RESULT factorial_%u %u\n", n, answer);
	printf("RESULT factorial_%u_polls %d\n", n, polls);
	if (answer != expected)
		fail("the factorial of %u is %u, not %u", n, answer, expected);
}

static void check(volatile uint8_t *bar)
{
	check_identification(bar);
	check_liveness(bar);
	check_factorial(bar, 0);
	check_factorial(bar, 5);
	check_factorial(bar, 12);
	check_factorial(bar, 13);
}

static void posted(volatile uint8_t *bar, uint32_t count)
{
	uint64_t start = now_us();
	uint32_t i, answer;

	for (i = 1; i <= count; i++)
		write32(bar, REG_LIVENESS, i);
	answer = read32(bar, REG_LIVENESS);
	printf("RESULT posted_us %" PRIu64 "\n", now_us() - start);
	printf("RESULT posted_answer 0x%08x\n", answer);
	if (answer != ~count)
		fail("after %u writes the liveness register is 0x%08x", count, answer);
}

/* Until the device is gone: how long the read took that first found it so, and the one after it. */
static void outage(volatile uint8_t *bar, uint32_t seconds)
{
	uint64_t begin = now_us(), reads = 0, last;

	printf("WATCHING\n");
	for (;;) {
		uint64_t start = now_us();
		uint32_t id = read32(bar, REG_ID);

		last = now_us() - start;
		if (id == ALL_ONES)
			break;
		if (id != ID)
			fail("identification 0x%08x after %" PRIu64 " reads", id, reads);
		reads++;
		if (start - begin > (uint64_t)seconds * 1000000)
			fail("still there after %" PRIu64 " reads", reads);
	}
	printf("RESULT outage_reads_before %" PRIu64 "\n", reads);
	printf("RESULT outage_read_us %" PRIu64 "\n", last);
	begin = now_us();
	if (read32(bar, REG_ID) != ALL_ONES)
		fail("the device came back");
	printf("RESULT outage_next_read_us %" PRIu64 "\n", now_us() - begin);
}

static uint32_t number(int argc, char **argv)
{
	if (argc != 3)
		fail("%s needs a number", argv[1]);
	return (uint32_t)strtoul(argv[2], NULL, 0);
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "check";
	char function[256] = "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	find_function(function, sizeof(function));
	check_identity(function);
	check_bar(function);
	if (!strcmp(command, "find")) {
		/* All of it is said above. */
	} else if (!strcmp(command, "check")) {
		check(map_bar(function));
	} else if (!strcmp(command, "read")) {
		uint32_t offset = number(argc, argv);

		if (offset > BAR0_SIZE - 4)
			fail("BAR 0 has no offset 0x%x", offset);
		printf("RESULT read 0x%08x\n", read32(map_bar(function), offset));
	} else if (!strcmp(command, "posted")) {
		posted(map_bar(function), number(argc, argv));
	} else if (!strcmp(command, "outage")) {
		outage(map_bar(function), number(argc, argv));
	} else {
		fail("unknown command %s", command);
	}
	printf("PASS\n");
	return 0;
}
