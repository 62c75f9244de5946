/*
 * LD_PRELOAD: a disk that is full for data files, as long as the file named in
 * KDA_DISK_FULL exists.  WAL is left alone: PostgreSQL panics without it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int
full(int fd, off_t end)
{
	const char *flag = getenv("KDA_DISK_FULL");
	char		link[64],
				path[4096];
	struct stat st;
	ssize_t		n;

	if (flag == NULL || access(flag, F_OK) != 0)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0)
		return 0;
	path[n] = '\0';
	/* only files that grow need room */
	return strstr(path, "/base/") && fstat(fd, &st) == 0 && end > st.st_size;
}

ssize_t
pwrite(int fd, const void *buf, size_t count, off_t offset)
{
	static ssize_t (*real) (int, const void *, size_t, off_t);

	if (!real)
		real = dlsym(RTLD_NEXT, "pwrite");
	if (full(fd, offset + count))
	{
		errno = ENOSPC;
		return -1;
	}
	return real(fd, buf, count, offset);
}

ssize_t
pwrite64(int fd, const void *buf, size_t count, off64_t offset)
{
	static ssize_t (*real) (int, const void *, size_t, off64_t);

	if (!real)
		real = dlsym(RTLD_NEXT, "pwrite64");
	if (full(fd, offset + count))
	{
		errno = ENOSPC;
		return -1;
	}
	return real(fd, buf, count, offset);
}

int
posix_fallocate(int fd, off_t offset, off_t len)
{
	static int	(*real) (int, off_t, off_t);

	if (!real)
		real = dlsym(RTLD_NEXT, "posix_fallocate");
	return full(fd, offset + len) ? ENOSPC : real(fd, offset, len);
}
