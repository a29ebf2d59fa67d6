//go:build !linux

package snapcodec

import "time"

// pause sleeps.
func pause(d time.Duration) { time.Sleep(d) }
