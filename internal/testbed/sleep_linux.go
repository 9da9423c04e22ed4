package testbed

import (
	"syscall"
	"time"
)

// sleepExactly sleeps for d, by the kernel's own timer: the runtime's wake up with
// epoll, which counts in milliseconds.
func sleepExactly(d time.Duration) {
	if d <= 0 {
		return
	}
	rest := syscall.NsecToTimespec(int64(d))
	for syscall.Nanosleep(&rest, &rest) == syscall.EINTR { //nolint:errorlint // an Errno is compared
	}
}
