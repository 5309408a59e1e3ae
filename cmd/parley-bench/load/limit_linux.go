package load

import "golang.org/x/sys/unix"

// maxSockets is how many sockets a process may open, with some descriptors to spare.
func MaxSockets() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1000
	}
	return max(1, int(min(limit.Cur, 1<<20))-64)
}
