package snapcodec

import (
	"syscall"
	"time"
)

// pause sleeps. On Linux, the shortest that time.Sleep may sleep in a process
// with nothing else to do is a millisecond.
func pause(d time.Duration) {
	t := syscall.NsecToTimespec(d.Nanoseconds())
	syscall.Nanosleep(&t, nil)
}
