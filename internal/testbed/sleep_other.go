//go:build !linux

package testbed

import "time"

// sleepExactly sleeps for d. Elsewhere than on Linux the runtime's timers are exact.
func sleepExactly(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // it is what is asked for
