/*
 * Starts another kernel in place of the one that runs, without firmware and without a reset of any device (kexec_file_load(2)). It gets
 * the same command line.
 *
 *   kexec KERNEL INITRD
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

static int failed(const char *what)
{
	printf("FAIL %s: %s\n", what, strerror(errno));
	return 1;
}

int main(int argc, char **argv)
{
	char command_line[2048] = "";
	int kernel, initrd, file;

	if (argc != 3) {
		printf("FAIL usage: kexec KERNEL INITRD\n");
		return 1;
	}
	kernel = open(argv[1], O_RDONLY);
	initrd = open(argv[2], O_RDONLY);
	file = open("/proc/cmdline", O_RDONLY);
	if (kernel < 0 || initrd < 0 || file < 0 || read(file, command_line, sizeof(command_line) - 1) < 0)
		return failed("cannot open the kernel, the initrd or the command line");
	command_line[strcspn(command_line, "\n")] = '\0';
	if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(command_line) + 1, command_line, 0UL))
		return failed("the kernel cannot be loaded");
	reboot(LINUX_REBOOT_CMD_KEXEC);
	return failed("the kernel cannot be started");
}
