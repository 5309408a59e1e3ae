package load

import "golang.org/x/sys/unix"

// usedBy is getrusage(2): RUSAGE_SELF for this process, RUSAGE_THREAD for the calling thread.
func usedBy(who int) CPU {
	var u unix.Rusage
	unix.Getrusage(who, &u) // cannot fail for these
	return CPU{float64(u.Utime.Nano()) / 1e9, float64(u.Stime.Nano()) / 1e9}
}

// ownCPU is what this process has used.
func ownCPU() CPU { return usedBy(unix.RUSAGE_SELF) }
